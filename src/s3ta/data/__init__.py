"""Datasets with stable example ids, and the order of training data. Images are uint8 until a batch is fetched."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.data.class_matching import (
        ClassMatch,
        RelabelledDataset,
        class_names_from_numbers,
        class_order_note,
        imagenet_wnids,
        match_classes,
        order_classes_as_numbers,
    )
    from s3ta.data.cluttered_digits import ClutteredDigits
    from s3ta.data.config import (
        PREPROCESSINGS,
        TORCHVISION_DATASETS,
        DataConfig,
        Preprocessing,
        get_preprocessing,
        preprocessing_of_transform,
        refuse_unknown_data,
        with_evaluation_transform,
    )
    from s3ta.data.dataset import Batch, Dataset, check_model_fits_data, fetch_batch
    from s3ta.data.device_cache import DeviceDataset, load_on_device
    from s3ta.data.epoch_order import BatchOrder, batches, steps_per_epoch
    from s3ta.data.example_selection import find_unreadable, positions_of_ids, read_ids, unreadable_error, write_ids
    from s3ta.data.folder_dataset import file_facts, folder_summary
    from s3ta.data.folder_listing import FileFacts, normalize_name
    from s3ta.data.image_files import has_transparency, load_image, transparency_note
    from s3ta.data.in_memory_dataset import array_dataset, as_arrays, validate_labels
    from s3ta.data.sources import ResolvedSource, open_dataset, resolve_source, without_unreadable
    from s3ta.data.target_files import read_targets, write_targets

__all__ = [
    "PREPROCESSINGS",
    "TORCHVISION_DATASETS",
    "Batch",
    "BatchOrder",
    "ClassMatch",
    "ClutteredDigits",
    "DataConfig",
    "Dataset",
    "DeviceDataset",
    "FileFacts",
    "Preprocessing",
    "RelabelledDataset",
    "ResolvedSource",
    "array_dataset",
    "as_arrays",
    "batches",
    "check_model_fits_data",
    "class_names_from_numbers",
    "class_order_note",
    "fetch_batch",
    "file_facts",
    "find_unreadable",
    "folder_summary",
    "get_preprocessing",
    "has_transparency",
    "imagenet_wnids",
    "load_image",
    "load_on_device",
    "match_classes",
    "normalize_name",
    "open_dataset",
    "order_classes_as_numbers",
    "positions_of_ids",
    "preprocessing_of_transform",
    "read_ids",
    "read_targets",
    "refuse_unknown_data",
    "resolve_source",
    "steps_per_epoch",
    "transparency_note",
    "unreadable_error",
    "validate_labels",
    "with_evaluation_transform",
    "without_unreadable",
    "write_ids",
    "write_targets",
]

load_names_on_first_use(__name__)
