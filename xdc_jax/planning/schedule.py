"""How many steps of each program a run takes, for a data set of a given size."""

import dataclasses

from ml_collections import ConfigDict

from xdc_jax.clustering import assignments, targets
from xdc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps of a run, at most: a plateau may end iterations earlier.

    Attributes:
        steps_per_epoch: training steps.
        epochs: of all iterations together.
        training_steps: of all epochs.
        extractions: passes over all clips: one per iteration and one at the end.
        extraction_steps: of those, and of the held-out clips after each epoch.
        kmeans_updates: clustering -> updates of its centroids, in all clusterings.
    """

    steps_per_epoch: int
    epochs: int
    training_steps: int
    extractions: int
    extraction_steps: int
    kmeans_updates: dict[str, int]


def of_run(config: ConfigDict, num_clips: int) -> Schedule:
    """Returns the schedule of `xdc pretrain` if all clips are usable.

    Raises:
        UserError: the clips are fewer than a batch.
    """
    held_out = round(config.held_out * num_clips)
    batch_size = config.batch_size
    steps_per_epoch = config.clips_per_record * (num_clips - held_out) // batch_size
    if config.iterations and not steps_per_epoch:
        raise UserError(
            f"--num_clips is {num_clips}: an epoch has fewer clips than a batch "
            f"(config.batch_size is {batch_size})"
        )
    epochs = config.iterations * config.epochs
    iterations = config.iterations
    if config.method == "supervised" and iterations:
        iterations = 1  # one long one
    extractions = iterations + 1
    clustering = config.clustering
    per_pass = -(-num_clips // (clustering.batch_size or num_clips))
    updates = extractions * clustering.num_restarts * clustering.max_iters * per_pass
    plan = targets.make_plan(config.method, config.same_modality)
    return Schedule(
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        training_steps=epochs * steps_per_epoch,
        extractions=extractions,
        extraction_steps=extractions * -(-num_clips // batch_size)
        + epochs * -(-held_out // batch_size),
        kmeans_updates=dict.fromkeys(
            assignments.num_clusters(plan, clustering), updates
        ),
    )
