"""Checkpoints of a run: Orbax, asynchronous, the only place that knows of it."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from xdc_jax.errors import UserError
from xdc_jax.training.state import TrainState


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

    def __init__(self, workdir: str | Path, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            Path(workdir).absolute() / "checkpoints",
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

    def position(self, step: int) -> Position:
        """Returns the position saved with a checkpoint."""
        args = ocp.args.Composite(position=ocp.args.JsonRestore())
        return Position(**self._restore(step, args).position)

    def state(self, step: int, like: TrainState) -> TrainState:
        """Returns the state of a checkpoint.

        Args:
            step: a step at which there is a checkpoint.
            like: a state of the same structure, whose shardings the arrays get.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._restore(step, args).state

    def _restore(self, step: int, args: ocp.args.Composite) -> Any:
        try:
            return self._manager.restore(step, args=args)
        except (ValueError, KeyError, OSError) as error:
            folder = Path(self._manager.directory) / str(step)
            raise UserError(
                f"{folder}: this checkpoint cannot be read ({error}); remove that "
                "folder to go on from the one before, or start with a new workdir"
            ) from error

    def close(self) -> None:
        """Waits for saves under way and releases the threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def write_arrays(folder: Path, tree: Any) -> None:
    """Writes nested dicts of arrays into a folder, replacing what is there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, tree, force=True)


def read_arrays(folder: Path) -> Any:
    """Reads nested dicts of arrays as NumPy; every key comes as a string.

    Raises:
        UserError: the folder is missing or damaged.
    """
    try:
        tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(folder, restore_args=_as_numpy(tree))
    except (ValueError, KeyError, OSError, AttributeError) as error:
        raise UserError(f"{folder}: arrays cannot be read ({error})") from error


def read_newest(workdir: str | Path) -> tuple[int, Any]:
    """Reads the newest checkpoint of a run, which may be going on.

    Returns:
        Training step and state: nested dicts of NumPy arrays, as `TrainState`.

    Raises:
        UserError: there is no complete checkpoint.
    """
    folder = Path(workdir).absolute() / "checkpoints"
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    if not steps:
        raise UserError(f"{folder}: found no complete checkpoint; train first")
    return max(steps), read_arrays(folder / str(max(steps)) / "state")


def _as_numpy(tree: Any) -> Any:
    """Returns how to restore a tree of array metadata: as NumPy, whole."""
    args = ocp.RestoreArgs(restore_type=np.ndarray)
    return jax.tree.map(lambda _: args, tree, is_leaf=lambda x: hasattr(x, "shape"))
