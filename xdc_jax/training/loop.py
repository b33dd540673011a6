"""Steps of a run, with its checkpoints and metrics, from where it stopped."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from xdc_jax import preemption
from xdc_jax.errors import UserError
from xdc_jax.training import metrics as metrics_lib
from xdc_jax.training.checkpoint import Checkpoints, Position
from xdc_jax.training.feed import Feed
from xdc_jax.training.state import TrainState

log = logging.getLogger(__name__)

Rate = Callable[[int], float]


class TrainingLoop:
    """The state of a run, where it is, and what it has logged.

    Attributes:
        state: replicated over the mesh.
        position: where the run is.
        log: metrics.jsonl and TensorBoard.
        timing: of the last epoch; see `Feed.timing`.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        config: ConfigDict,
        mesh: Mesh,
        initial: TrainState,
        like: Callable[[], TrainState],
    ):
        """Goes on from the newest checkpoint of the workdir, if there is one.

        Args:
            workdir: of the run.
            config: of the run: batch size, how often to log and to save.
            mesh: the devices.
            initial: the state where there is no checkpoint.
            like: makes a state of the structure that checkpoints have.
        """
        self._config, self._mesh = config, mesh
        self.state, self.position = initial, Position()
        self.checkpoints = Checkpoints(workdir)
        if self.checkpoints.latest_step() is not None:
            self.position, self.state = self.checkpoints.restore(like())
            log.info("resuming after step %d of %s", self.step, workdir)
        self.log = metrics_lib.MetricsLog(workdir, self.position.metrics_lines)
        self.timing: dict[str, float] = {}
        self._started = time.monotonic() - self.position.seconds

    @property
    def step(self) -> int:
        """Training steps done since the run began."""
        return int(self.state.step)

    @property
    def seconds(self) -> float:
        """Wall time that the run has taken, interruptions left out."""
        return time.monotonic() - self._started

    def train_epoch(
        self,
        train_step: Callable,
        batches: Iterable[dict[str, np.ndarray]],
        keys: Sequence[str],
        labels: Any,
        rates: Mapping[str, Mapping[str, Rate]],
        *,
        num_steps: int,
        description: str,
    ) -> dict[str, float]:
        """Trains to the end of the epoch; returns the metrics of its last step.

        Args:
            train_step: from `steps.compile_train_step`.
            batches: from batch `position.batch` of the epoch on.
            keys: what the devices need of a batch, besides the ids.
            labels: label tables, replicated.
            rates: encoder name -> `body` and `head` -> rate by step of the iteration.
            num_steps: of the epoch.
            description: of the progress bar.

        Raises:
            UserError: the batches are fewer, or a metric is infinite or NaN.
            PreemptedError: there was a notice; the step before is saved.
        """
        position, config = self.position, self._config
        feed = Feed(batches, ("clip_id", *keys), self._mesh)
        first = position.epoch * num_steps
        with tqdm(
            total=num_steps,
            initial=position.batch,
            desc=description,
            leave=False,
            disable=None,
        ) as bar:
            for inputs in feed:
                now = {
                    name: {
                        part: np.float32(rate(first + position.batch))
                        for part, rate in of_encoder.items()
                    }
                    for name, of_encoder in rates.items()
                }
                self.state, metrics = train_step(self.state, inputs, labels, now)
                feed.stepped(metrics)
                position.batch += 1
                bar.update()
                last = position.batch == num_steps
                step = first + position.batch
                save = step % config.checkpoint_every_steps == 0 and not last
                preempted = preemption.noticed() and not last
                if last or save or preempted or step % config.log_every_steps == 0:
                    values = metrics_lib.fetch_finite(metrics, self.step)
                if step % config.log_every_steps == 0 and not last:
                    where = {"iteration": position.iteration, "epoch": position.epoch}
                    self.log.write(self.step, {**where, **values})
                if save or preempted:
                    self.save()
                if preempted:
                    log.info("preempted: step %d is saved", self.step)
                    preemption.check()
        self.timing = feed.timing(config.batch_size)
        self.log.write_timing(self.step, self.timing)
        if position.batch != num_steps:
            raise UserError(
                f"the data gave {position.batch} batches in epoch {position.epoch} of "
                f"iteration {position.iteration}, expected {num_steps}; were its files "
                "changed during the run?"
            )
        return values

    def save(self) -> None:
        """Saves a checkpoint in the background, its lines of metrics before it."""
        self.log.publish()
        self.position.metrics_lines = self.log.num_lines
        self.position.seconds = self.seconds
        self.checkpoints.save(self.step, self.state, self.position)

    def close(self) -> None:
        """Waits for saves under way and closes the files."""
        try:
            self.log.close()
        finally:
            self.checkpoints.close()
