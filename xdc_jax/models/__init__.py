"""Encoders: clips to features."""
