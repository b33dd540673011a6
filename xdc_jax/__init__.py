"""Cross-Modal Deep Clustering (XDC) of video and audio in JAX and Flax."""
