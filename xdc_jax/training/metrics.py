"""The metrics of a run: one JSON object per line, and TensorBoard beside it."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from tensorboardX import SummaryWriter

from xdc_jax import hosts
from xdc_jax.errors import UserError
from xdc_jax.files import write_atomically


class MetricsLog:
    """Appends to `metrics.jsonl` and to `tensorboard/`.

    Lines hold no times of day and no durations, so that the file of a run that was
    interrupted and resumed equals that of one that was not, byte for byte.
    """

    def __init__(self, workdir: str | Path, num_lines: int):
        """Opens the log and drops every line after the first `num_lines`.

        Those were written by an interrupted process after its last checkpoint; they
        are written again. Of several processes the first one writes; all count.
        """
        self._path = Path(workdir) / "metrics.jsonl"
        lines = self._path.read_bytes().splitlines(True) if self._path.exists() else []
        self.num_lines = min(num_lines, len(lines))
        self._writes = hosts.is_first()
        if self._writes:
            write_atomically(self._path, b"".join(lines[:num_lines]))
            self._file = self._path.open("a")
            self._tensorboard = SummaryWriter(str(Path(workdir) / "tensorboard"))

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes one line of metrics that belong to a training step."""
        self.num_lines += 1
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            if isinstance(value, float):
                self._tensorboard.add_scalar(key, value, step)

    def write_timing(self, step: int, values: dict[str, float]) -> None:
        """Writes a line of timing.jsonl, whose figures no second run repeats."""
        if not self._writes:
            return
        with self._path.with_name("timing.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for key, value in values.items():
            self._tensorboard.add_scalar(key, value, step)

    def close(self) -> None:
        """Writes out what is buffered."""
        if not self._writes:
            return
        self._file.close()
        self._tensorboard.close()


def fetch_finite(metrics: dict[str, Float[Array, ""]], step: int) -> dict[str, float]:
    """Returns the metrics of a training step as numbers of the host.

    Raises:
        UserError: one of them is infinite or not a number.
    """
    values = {key: float(value) for key, value in jax.device_get(metrics).items()}
    for key, value in values.items():
        if not np.isfinite(value):
            raise UserError(
                f"{key} is {value} at step {step}; the checkpoint before it is kept. A "
                "lower config.optimizer.lr_video or lr_audio or a longer "
                "config.optimizer.warmup_epochs in a new workdir usually helps"
            )
    return values
