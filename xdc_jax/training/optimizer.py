"""SGD with Nesterov momentum, and the learning rate of each step."""

from collections.abc import Callable

import jax
import optax
from ml_collections import ConfigDict

LR_BATCH_SIZE = 256  # config.optimizer.lr_* are for this many clips per batch


def make(config: ConfigDict) -> optax.GradientTransformation:
    """Returns SGD whose updates are still to be multiplied by minus the learning rate.

    The rate is an argument of the train step, so that one compiled program serves every
    iteration. Weight decay acts on matrices and filters only, not on biases and
    BatchNorm's scales (arrays of one dimension).
    """

    def is_weight(params):
        return jax.tree.map(lambda array: array.ndim > 1, params)

    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=is_weight),
        optax.trace(decay=config.momentum, nesterov=True),
    )


def learning_rate(
    config: ConfigDict,
    peak: float,
    *,
    batch_size: int,
    steps_per_epoch: int,
    epochs: int,
) -> Callable[[int], float]:
    """Returns step of the iteration -> learning rate.

    Args:
        config: `config.optimizer`.
        peak: for batches of `LR_BATCH_SIZE` clips; scaled linearly with the batch size.
        batch_size: clips per step over all devices.
        steps_per_epoch: steps per epoch.
        epochs: epochs of an iteration, at most.
    """
    peak = peak * batch_size / LR_BATCH_SIZE
    warmup = round(config.warmup_epochs * steps_per_epoch)
    total = epochs * steps_per_epoch
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
    else:
        after = optax.piecewise_constant_schedule(
            peak,
            {
                max(round(epoch * steps_per_epoch) - warmup, 0): config.step_factor
                for epoch in config.step_epochs
            },
        )
    if not warmup:
        return after
    ramp = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, after], [warmup])
