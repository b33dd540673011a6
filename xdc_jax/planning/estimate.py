"""What a run needs on a slice: its programs, its schedule, hours and price."""

import dataclasses
import logging
from typing import Any

from ml_collections import ConfigDict

from xdc_jax.clustering import targets
from xdc_jax.errors import UserError
from xdc_jax.planning import programs, schedule
from xdc_jax.planning.programs import DoesNotFit, Program, Slice
from xdc_jax.training.feed import AHEAD

log = logging.getLogger(__name__)

STEP = 8  # the largest batch per core is found to this many clips
MOST_COMPILES = 8  # of the search for it


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Everything that `xdc plan` says of one slice.

    Attributes:
        tpu: the slice.
        clips_per_core: of a step.
        num_clips: of the data set.
        train: the training step.
        extract: the extraction of a batch.
        kmeans: clustering -> its k-means, one update of the centroids.
        schedule: steps of the run.
        ahead_bytes: batches that wait on a core while a step runs.
        feature_bytes: features of all clips, float32, spread over the hosts that made
            them; k-means spreads one clustering's over the cores.
        label_bytes: tables of labels, on every core.
        largest_batch: most clips per core that fit; None where it was not searched.
    """

    tpu: Slice
    clips_per_core: int
    num_clips: int
    train: Program | DoesNotFit
    extract: Program | DoesNotFit
    kmeans: dict[str, Program | DoesNotFit]
    schedule: schedule.Schedule
    ahead_bytes: int
    feature_bytes: int
    label_bytes: int
    largest_batch: int | None = None

    @property
    def headroom(self) -> float | None:
        """Bytes of HBM of a core that training leaves, batches that wait included."""
        if isinstance(self.train, DoesNotFit):
            return None
        return self.tpu.chip.hbm_bytes - self.train.hbm_needed - self.ahead_bytes

    @property
    def clips_per_s(self) -> float | None:
        """Clips per second that all cores train on, at the roofline."""
        if isinstance(self.train, DoesNotFit):
            return None
        step_s = self.train.seconds(self.tpu.chip)
        return self.clips_per_core * self.tpu.mesh.size / step_s

    def hours(self) -> dict[str, float] | None:
        """Returns hours at the roofline: of an epoch, of each part, and in all."""
        needed = (self.train, self.extract, *self.kmeans.values())
        if any(isinstance(program, DoesNotFit) for program in needed):
            return None
        chip, plan = self.tpu.chip, self.schedule
        step_s = self.train.seconds(chip)
        parts = {
            "training": plan.training_steps * step_s,
            "extraction": plan.extraction_steps * self.extract.seconds(chip),
            "kmeans": sum(
                plan.kmeans_updates[name] * program.seconds(chip)
                for name, program in self.kmeans.items()
            ),
        }
        seconds = {
            "epoch": plan.steps_per_epoch * step_s,
            **parts,
            "total": sum(parts.values()),
        }
        return {name: value / 3600 for name, value in seconds.items()}

    @property
    def chip_hours(self) -> float | None:
        """Hours of the run times chips."""
        hours = self.hours()
        return hours and hours["total"] * self.tpu.mesh.size

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures, for JSON; bytes, seconds and hours."""
        chip = self.tpu.chip

        def figures(program: Program | DoesNotFit) -> dict[str, Any]:
            found = dataclasses.asdict(program)
            found["fits"] = isinstance(program, Program)
            if found["fits"]:
                roofs = program.roofs(chip)
                found["roofs_s"] = roofs
                found["roofline_s"] = program.seconds(chip)
                found["bound_by"] = max(roofs, key=roofs.get)
            return found

        return {
            "topology": self.tpu.name,
            "cores": self.tpu.mesh.size,
            "chip": dataclasses.asdict(chip),
            "num_clips": self.num_clips,
            "clips_per_core": self.clips_per_core,
            "train_step": figures(self.train),
            "extract_step": figures(self.extract),
            "kmeans_update": {
                name: figures(program) for name, program in self.kmeans.items()
            },
            "schedule": dataclasses.asdict(self.schedule),
            "ahead_bytes": self.ahead_bytes,
            "feature_bytes": self.feature_bytes,
            "label_bytes": self.label_bytes,
            "headroom_bytes": self.headroom,
            "clips_per_s": self.clips_per_s,
            "hours": self.hours(),
            "chip_hours": self.chip_hours,
            "largest_clips_per_core": self.largest_batch,
        }


def check_batch_size(config: ConfigDict, tpu: Slice) -> None:
    """Raises UserError unless config.batch_size divides over the cores of a slice."""
    if config.batch_size % tpu.mesh.size:
        raise UserError(
            f"config.batch_size is {config.batch_size}, which the {tpu.mesh.size} "
            f"cores of {tpu.name} cannot share evenly; use a multiple of "
            f"{tpu.mesh.size}"
        )


def of_slice(
    tpu: Slice, config: ConfigDict, num_clips: int, search_batch: bool
) -> Estimate:
    """Compiles the programs of a run for a slice and returns what they need.

    Args:
        tpu: the slice.
        config: of the run.
        num_clips: of its data set.
        search_batch: also find the largest batch per core.

    Raises:
        UserError: the batch does not divide over the cores, or is larger than an epoch.
    """
    check_batch_size(config, tpu)
    plan = targets.make_plan(config.method, config.same_modality)
    steps = schedule.of_run(config, num_clips)
    clips_per_core = config.batch_size // tpu.mesh.size
    train = programs.train_step(tpu, config, num_clips, config.batch_size)
    tables = {name for heads in plan.heads.values() for name in heads}
    found = Estimate(
        tpu=tpu,
        clips_per_core=clips_per_core,
        num_clips=num_clips,
        train=train,
        extract=programs.extract_step(tpu, config, config.batch_size),
        kmeans=programs.kmeans(tpu, config, num_clips),
        schedule=steps,
        ahead_bytes=AHEAD * clips_per_core * programs.batch_bytes(config),
        feature_bytes=4 * num_clips * sum(programs.feature_dims(config).values()),
        label_bytes=4 * num_clips * len(tables),
    )
    if not search_batch:
        return found
    return dataclasses.replace(
        found,
        largest_batch=largest_batch(tpu, config, num_clips, clips_per_core, train),
    )


def largest_batch(
    tpu: Slice,
    config: ConfigDict,
    num_clips: int,
    clips_per_core: int,
    train: Program | DoesNotFit,
) -> int:
    """Returns the most clips per core that fit with waiting batches, 0 if not one does.

    What a program needs grows almost in proportion to its batch, so the next size to
    compile is where the line through the last two meets what there is. Sizes above STEP
    are multiples of it.

    Args:
        tpu: the slice.
        config: of the run.
        num_clips: of its data set.
        clips_per_core: that are known of.
        train: their training step.
    """
    ahead_bytes = AHEAD * programs.batch_bytes(config)
    needed, fit, size = {}, set(), clips_per_core
    for _ in range(1 + MOST_COMPILES):
        if size != clips_per_core:
            cores = tpu.mesh.size
            train = programs.train_step(tpu, config, num_clips, size * cores)
        needed[size] = train.hbm_needed and train.hbm_needed + size * ahead_bytes
        if isinstance(train, Program) and needed[size] <= tpu.chip.hbm_bytes:
            fit.add(size)
        size = next_batch(needed, fit, tpu.chip.hbm_bytes)
        if size is None:
            break
    return max(fit, default=0)


def next_batch(
    needed: dict[int, float | None], fit: set[int], available: float
) -> int | None:
    """Returns the next number of clips per core to try, None when it is found.

    Args:
        needed: clips per core -> bytes, None where the compiler did not say.
        fit: the sizes that fit.
        available: bytes of HBM of a core.
    """
    low = max(fit, default=0)
    high = min((n for n in needed if n not in fit), default=None)
    known = {n: size for n, size in needed.items() if size is not None}
    nearest = sorted(known, key=lambda n: abs(known[n] - available))[:2]
    guess = (low + high) / 2 if high else 2 * low
    if len(nearest) == 1:
        guess = nearest[0] * available / known[nearest[0]]
    elif nearest:
        a, b = nearest
        slope = (known[b] - known[a]) / (b - a)
        guess = a + (available - known[a]) / slope if slope > 0 else guess
    guess = max(_rounded(guess), low + STEP if low >= STEP else max(2 * low, 1))
    guess = min(_rounded(guess), _rounded(high - 1) if high else guess)
    return guess if guess > low else None


def _rounded(size: float) -> int:
    """Returns the multiple of STEP, or the power of two, that is not larger."""
    if size >= STEP:
        return int(size) // STEP * STEP
    return 1 << int(size).bit_length() - 1 if size >= 1 else 0
