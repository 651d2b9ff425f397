"""What a model looks at, and what an attack does to it: arrays in, arrays out."""

from s3ta.explain.gallery import KEPT, gallery, look

__all__ = ["KEPT", "gallery", "look"]
