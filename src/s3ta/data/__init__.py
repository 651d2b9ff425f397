"""Datasets with stable example ids, and the order of training data. Images are uint8 until a batch is fetched."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.data.class_matching import ClassMatch as ClassMatch
    from s3ta.data.class_matching import RelabelledDataset as RelabelledDataset
    from s3ta.data.class_matching import class_names_from_numbers as class_names_from_numbers
    from s3ta.data.class_matching import class_order_note as class_order_note
    from s3ta.data.class_matching import imagenet_wnids as imagenet_wnids
    from s3ta.data.class_matching import match_classes as match_classes
    from s3ta.data.class_matching import order_classes_as_numbers as order_classes_as_numbers
    from s3ta.data.cluttered_digits import ClutteredDigits as ClutteredDigits
    from s3ta.data.config import PREPROCESSINGS as PREPROCESSINGS
    from s3ta.data.config import TORCHVISION_DATASETS as TORCHVISION_DATASETS
    from s3ta.data.config import DataConfig as DataConfig
    from s3ta.data.config import MixingConfig as MixingConfig
    from s3ta.data.config import Preprocessing as Preprocessing
    from s3ta.data.config import get_preprocessing as get_preprocessing
    from s3ta.data.config import holds_files as holds_files
    from s3ta.data.config import preprocessing_of_transform as preprocessing_of_transform
    from s3ta.data.config import refuse_unknown_data as refuse_unknown_data
    from s3ta.data.config import with_evaluation_transform as with_evaluation_transform
    from s3ta.data.dataset import Batch as Batch
    from s3ta.data.dataset import Dataset as Dataset
    from s3ta.data.dataset import check_model_fits_data as check_model_fits_data
    from s3ta.data.dataset import fetch_batch as fetch_batch
    from s3ta.data.device_cache import DeviceDataset as DeviceDataset
    from s3ta.data.device_cache import load_on_device as load_on_device
    from s3ta.data.epoch_order import BatchOrder as BatchOrder
    from s3ta.data.epoch_order import batches as batches
    from s3ta.data.epoch_order import steps_per_epoch as steps_per_epoch
    from s3ta.data.example_selection import find_unreadable as find_unreadable
    from s3ta.data.example_selection import positions_of_ids as positions_of_ids
    from s3ta.data.example_selection import read_ids as read_ids
    from s3ta.data.example_selection import unreadable_error as unreadable_error
    from s3ta.data.example_selection import write_ids as write_ids
    from s3ta.data.folder_dataset import file_facts as file_facts
    from s3ta.data.folder_dataset import folder_summary as folder_summary
    from s3ta.data.folder_listing import FileFacts as FileFacts
    from s3ta.data.folder_listing import normalize_name as normalize_name
    from s3ta.data.image_files import has_transparency as has_transparency
    from s3ta.data.image_files import load_image as load_image
    from s3ta.data.image_files import transparency_note as transparency_note
    from s3ta.data.in_memory_dataset import array_dataset as array_dataset
    from s3ta.data.in_memory_dataset import as_arrays as as_arrays
    from s3ta.data.in_memory_dataset import validate_labels as validate_labels
    from s3ta.data.sources import ResolvedSource as ResolvedSource
    from s3ta.data.sources import open_dataset as open_dataset
    from s3ta.data.sources import resolve_source as resolve_source
    from s3ta.data.sources import without_unreadable as without_unreadable
    from s3ta.data.target_files import read_targets as read_targets
    from s3ta.data.target_files import write_targets as write_targets

load_names_on_first_use(__name__)
