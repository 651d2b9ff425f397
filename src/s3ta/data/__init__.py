"""Datasets with stable example ids, and the order of training data. Images are uint8 until a batch is fetched."""

from s3ta.data.config import DataConfig
from s3ta.data.dataset import Batch, Dataset, check_fit, fetch
from s3ta.data.digits import ClutteredDigits
from s3ta.data.images import load_image
from s3ta.data.order import batches, position, steps_per_epoch
from s3ta.data.sources import TORCHVISION, Located, locate, open_dataset

__all__ = [
    "TORCHVISION",
    "Batch",
    "ClutteredDigits",
    "DataConfig",
    "Dataset",
    "Located",
    "batches",
    "check_fit",
    "fetch",
    "load_image",
    "locate",
    "open_dataset",
    "position",
    "steps_per_epoch",
]
