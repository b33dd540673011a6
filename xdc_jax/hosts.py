"""One job in several processes: how they meet, agree, and write once.

On Cloud TPU the processes of a slice find each other; elsewhere three flags say it. In
a job of one process every function here is the obvious thing at no cost.
"""

import os
from collections.abc import Callable

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.experimental import multihost_utils

from xdc_jax import preemption
from xdc_jax.errors import UserError

_FLAGS = ("coordinator_address", "num_processes", "process_id")
# JAX says so when it is imported on a host of a Cloud TPU; TensorFlow overwrites it.
_ON_CLOUD_TPU = os.environ.get("TPU_ML_PLATFORM") == "JAX"


def define_flags() -> None:
    """Defines the flags of a verb that runs in several processes."""
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of process 0, of a job in several processes. Cloud TPU needs none.",
    )
    flags.DEFINE_integer("num_processes", None, "Of the job; not on Cloud TPU.", 1)
    flags.DEFINE_integer("process_id", None, "Of this process, from 0; likewise.", 0)


def connect() -> None:
    """Joins the other processes of the job; before anything else is done with JAX.

    Raises:
        UserError: some of the flags are missing, or the others are not to be reached.
    """
    values = {name: flags.FLAGS[name].value for name in _FLAGS}
    missing = [name for name, value in values.items() if value is None]
    if 0 < len(missing) < len(_FLAGS):
        raise UserError(
            f"--{missing[0]} is missing; a job in several processes needs all of "
            + ", ".join(f"--{name}" for name in _FLAGS)
        )
    try:
        if not missing:
            jax.distributed.initialize(**values, cluster_detection_method="deactivate")
        elif _ON_CLOUD_TPU and jax.config.jax_platforms != "cpu":
            jax.distributed.initialize()
            preemption.follow_metadata()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of the job do not meet: {error}") from error


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def agreed(value: bool) -> bool:
    """Returns the first process's value in all, for what is read off a disk."""
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_of(value: bool) -> bool:
    """Whether it is true in any process."""
    return bool(multihost_utils.process_allgather(np.int32(value)).any())


def on_first(action: Callable[[], None]) -> None:
    """Does something in the first process, while the others wait.

    Raises:
        Exception: what the action raises; UserError in the other processes then.
    """
    found = None
    if is_first():
        try:
            action()
        except Exception as error:
            found = error
    if agreed(found is not None):
        raise found or UserError("process 0 stopped; its message says why")


def check_shared(file: epath.Path, flag: str) -> None:
    """Checks that this process sees a file that the first one wrote.

    Raises:
        UserError: it does not.
    """
    if not file.exists():
        raise UserError(
            f"--{flag}: process {jax.process_index()} does not find {file}, which "
            "process 0 wrote; all hosts of a job need the same folder, as of a network "
            "disk or a bucket (gs://...)"
        )


def gather(rows: np.ndarray | jax.Array) -> np.ndarray:
    """Returns the rows of all processes in their order, to each of them.

    Args:
        rows: of this process, as many as of every other; or an array that is split over
            the devices of all.
    """
    return multihost_utils.process_allgather(rows, tiled=True)
