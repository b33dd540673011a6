"""Checkpoints of a run: Orbax, asynchronous, the only place that knows of it."""

import dataclasses
import logging
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from xdc_jax import hosts
from xdc_jax.errors import UserError
from xdc_jax.files import absolute
from xdc_jax.training.state import TrainState

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Position:
    """Where a run is: saved with each checkpoint, so that it can go on from there.

    Attributes:
        iteration: of deep clustering, from 0.
        epoch: of the iteration, from 0.
        batch: of the epoch, from 0. Heads are new at the first batch of an iteration.
        best_loss: lowest held-out pseudo-label loss of the iteration so far.
        stale_epochs: epochs since it was reached.
        metrics_lines: lines of metrics.jsonl that belong to what was done so far.
        seconds: wall time that the run has taken, interruptions left out.
    """

    iteration: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = float("inf")
    stale_epochs: int = 0
    metrics_lines: int = 0
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of a workdir, numbered by training step.

    A checkpoint is written beside its final name and renamed when complete, so that a
    killed process leaves the previous ones intact.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            absolute(workdir) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, position: Position) -> None:
        """Saves in the background; waits for the save before it.

        Args:
            step: training step, larger than that of every earlier checkpoint.
            state: arrays.
            position: where the loop is; saved as JSON.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                position=ocp.args.JsonSave(dataclasses.asdict(position)),
            ),
        )

    def restore(self, like: TrainState) -> tuple[Position, TrainState]:
        """Returns the newest checkpoint that can be read.

        Newer ones, which are damaged, are moved to `damaged_checkpoints/`.

        Args:
            like: a state of the same structure, whose shardings the arrays get.

        Raises:
            UserError: none can be read.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._read(step, like)
                damage = ""
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                damage = str(error) or repr(error)
            if hosts.any_of(bool(damage)):
                damaged[step] = damage or "another process could not read it"
                continue
            for number, reason in damaged.items():
                log.warning(
                    "checkpoint %d cannot be read (%s): going on from %d; it is moved "
                    "to damaged_checkpoints/",
                    number,
                    reason.splitlines()[0],
                    step,
                )
            hosts.on_first(lambda: self._move_away(damaged))
            self._manager.reload()
            return found
        raise UserError(
            f"{self._manager.directory}: none of {len(damaged)} checkpoints can be "
            f"read ({damaged[max(damaged)]}); start with a new workdir"
        )

    def _read(self, step: int, like: TrainState) -> tuple[Position, TrainState]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore()
        )
        found = self._manager.restore(step, args=args)
        return Position(**found.position), found.state

    def _move_away(self, steps: Iterable[int]) -> None:
        folder = epath.Path(self._manager.directory)
        away = folder.with_name("damaged_checkpoints")
        for step in steps:
            away.mkdir(exist_ok=True)
            (away / str(step)).rmtree(missing_ok=True)
            (folder / str(step)).rename(away / str(step))

    def close(self) -> None:
        """Waits for saves under way and releases the threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def write_arrays(folder: epath.Path, tree: Any) -> None:
    """Writes nested dicts of arrays into a folder, replacing what is there.

    This process does it alone, also in a job of several.
    """
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix="arrays"
    )
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save(folder, tree, force=True)


def read_arrays(folder: epath.Path) -> Any:
    """Reads nested dicts of arrays as NumPy; every key comes as a string.

    Raises:
        UserError: the folder is missing or damaged.
    """
    try:
        tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(folder, restore_args=_as_numpy(tree))
    except (ValueError, KeyError, OSError, AttributeError) as error:
        raise UserError(f"{folder}: arrays cannot be read ({error})") from error


def read_newest(workdir: epath.PathLike) -> tuple[int, Any]:
    """Reads the newest checkpoint of a run, which may be going on.

    Returns:
        Training step and state: nested dicts of NumPy arrays, as `TrainState`.

    Raises:
        UserError: there is no complete checkpoint.
    """
    folder = absolute(workdir) / "checkpoints"
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    if not steps:
        raise UserError(f"{folder}: found no complete checkpoint; train first")
    return max(steps), read_arrays(folder / str(max(steps)) / "state")


def _as_numpy(tree: Any) -> Any:
    """Returns how to restore a tree of array metadata: as NumPy, whole."""
    args = ocp.RestoreArgs(restore_type=np.ndarray)
    return jax.tree.map(lambda _: args, tree, is_leaf=lambda x: hasattr(x, "shape"))
