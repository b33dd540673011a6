"""Bytes to batches: the only package that imports TensorFlow."""
