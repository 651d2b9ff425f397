"""Datasets with stable example ids, and the order of training data. Images are uint8 until a batch is fetched."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.data.class_matching import (
        Match,
        Relabelled,
        count_as_numbers,
        match_classes,
        numbers_as_names,
        text_order_note,
    )
    from s3ta.data.cluttered_digits import ClutteredDigits
    from s3ta.data.config import (
        PREPROCESSINGS,
        TORCHVISION,
        DataConfig,
        Preprocessing,
        get_preprocessing,
        preprocessing_of_view,
        refuse_unknown_data,
        with_view,
    )
    from s3ta.data.dataset import Batch, Dataset, check_fit, fetch
    from s3ta.data.device_cache import Resident, resident
    from s3ta.data.epoch_order import batches, position, steps_per_epoch
    from s3ta.data.example_ids import read_ids, select_ids, unreadable, unreadable_error, write_ids
    from s3ta.data.folder_dataset import facts_of, listing_line
    from s3ta.data.folder_listing import FileFacts, printable
    from s3ta.data.image_files import has_transparency, load_image, transparency_note
    from s3ta.data.imagenet_classes import IMAGENET_A, imagenet_a_wnids, imagenet_wnids
    from s3ta.data.memory import array_dataset, class_numbers, read_examples
    from s3ta.data.sources import ResolvedSource, locate, open_dataset, readable
    from s3ta.data.targets import read_targets, write_targets

__all__ = [
    "IMAGENET_A",
    "PREPROCESSINGS",
    "TORCHVISION",
    "Batch",
    "ClutteredDigits",
    "DataConfig",
    "Dataset",
    "FileFacts",
    "Match",
    "Preprocessing",
    "Relabelled",
    "Resident",
    "ResolvedSource",
    "array_dataset",
    "batches",
    "check_fit",
    "class_numbers",
    "count_as_numbers",
    "facts_of",
    "fetch",
    "get_preprocessing",
    "has_transparency",
    "imagenet_a_wnids",
    "imagenet_wnids",
    "listing_line",
    "load_image",
    "locate",
    "match_classes",
    "numbers_as_names",
    "open_dataset",
    "position",
    "preprocessing_of_view",
    "printable",
    "read_examples",
    "read_ids",
    "read_targets",
    "readable",
    "refuse_unknown_data",
    "resident",
    "select_ids",
    "steps_per_epoch",
    "text_order_note",
    "transparency_note",
    "unreadable",
    "unreadable_error",
    "with_view",
    "write_ids",
    "write_targets",
]

load_names_on_first_use(__name__)
