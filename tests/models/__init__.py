"""Tests of s3ta.models."""
