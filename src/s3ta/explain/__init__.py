"""What a model looks at, and what an attack does to it: arrays in, arrays out."""

from s3ta.explain.gallery import KEPT, build_gallery, predict_with_attention

__all__ = ["KEPT", "build_gallery", "predict_with_attention"]
