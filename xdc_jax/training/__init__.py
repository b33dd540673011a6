"""State, steps, optimiser, checkpoints and metrics of a training run."""
