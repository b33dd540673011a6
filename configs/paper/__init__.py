"""One config per pretraining of the paper's tables, named as in xdc_jax/paper/."""
