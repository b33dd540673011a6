"""Bytes to batches: the only package that imports TensorFlow."""

import os

# Before TensorFlow is imported: its start-up chatter is not the user's concern, and
# oneDNN would round differently with the number of threads.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
