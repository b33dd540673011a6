"""The metrics of a run: one JSON object per line, and TensorBoard beside it."""

import json
import tempfile
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Float
from tensorboardX import SummaryWriter

from xdc_jax import hosts
from xdc_jax.errors import UserError
from xdc_jax.files import is_local, reaching, write_atomically

_LINES, _TIMING = "metrics.jsonl", "timing.jsonl"


class MetricsLog:
    """Appends to `metrics.jsonl` and to `tensorboard/`.

    Lines hold no times of day and no durations, so that the file of a run that was
    interrupted and resumed equals that of one that was not, byte for byte.

    Objects in a bucket cannot be appended to: there, the files grow in a temporary
    folder of this machine until they are published.
    """

    def __init__(self, workdir: epath.PathLike, num_lines: int):
        """Opens the log and drops every line after the first `num_lines`.

        Those were written by an interrupted process after its last checkpoint; they
        are written again. Of several processes the first one writes; all count.
        """
        self._workdir = self._folder = epath.Path(workdir)
        lines = _read(self._workdir / _LINES).splitlines(True)
        self.num_lines = min(num_lines, len(lines))
        self._writes = hosts.is_first()
        self._temporary = None
        if not self._writes:
            return
        if not is_local(workdir):
            self._temporary = tempfile.TemporaryDirectory(prefix="xdc_metrics_")
            self._folder = epath.Path(self._temporary.name)
            if timing := _read(self._workdir / _TIMING):
                (self._folder / _TIMING).write_bytes(timing)
        write_atomically(self._folder / _LINES, b"".join(lines[:num_lines]))
        self._file = (self._folder / _LINES).open("a")
        self._tensorboard = SummaryWriter(str(self._folder / "tensorboard"))

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
        with (self._folder / _TIMING).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for key, value in values.items():
            self._tensorboard.add_scalar(key, value, step)

    def publish(self) -> None:
        """Copies the files into the workdir, where that is in a bucket."""
        if self._temporary is None:
            return
        self._tensorboard.flush()
        with reaching(self._workdir):
            for pattern in ("*.jsonl", "tensorboard/*"):
                for file in self._folder.glob(pattern):
                    to = self._workdir / file.relative_to(self._folder)
                    write_atomically(to, file.read_bytes())

    def close(self) -> None:
        """Writes out what is buffered."""
        if not self._writes:
            return
        self._file.close()
        self._tensorboard.close()
        if self._temporary is not None:
            with self._temporary:
                self.publish()


def _read(file: epath.Path) -> bytes:
    """Returns the content of a file, empty where there is none."""
    return file.read_bytes() if file.exists() else b""


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
