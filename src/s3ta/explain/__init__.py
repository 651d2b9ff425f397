"""What a model looks at, and what an attack does to it: arrays in, arrays out."""

from s3ta.explain.gallery import GALLERY, look, write_gallery

__all__ = ["GALLERY", "look", "write_gallery"]
