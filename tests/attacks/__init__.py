"""Tests of s3ta.attacks."""
