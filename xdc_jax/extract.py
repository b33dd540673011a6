r"""Features of every clip, as a TFDS data set.

Examples:
  xdc extract --weights=encoders/xdc_audioset --data=data/ucf101 --out=features/ucf101
  xdc extract --workdir=runs/xdc_kinetics --data=data/esc50 --clips=10 --per_clip \
      --modality=audio --out=features/esc50
  xdc extract --weights=r2plus1d_18_xdc_audioset --data=data/thumos14 --window_s=0.5 \
      --stride_s=0.25 --out=features/thumos14

--weights is what `xdc convert` wrote, or what it reads: a released name or a PyTorch
file. --workdir is a run of `xdc pretrain`, whose clips are cut as in its training.
--data is what `xdc prepare` wrote.

A row is a record, with the mean over its clips; or with --per_clip or --stride_s each
clip. A clip without pictures has NaN as video feature, one without sound NaN as audio
feature. One shard of records is one slice of work: started again, what was interrupted
goes on with the slices that are missing. Several hosts with the same folders share
them.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from tqdm import tqdm

from xdc_jax import convert, parallel
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import mean_per_group
from xdc_jax.files import write_atomically
from xdc_jax.training import steps
from xdc_jax.training.extraction import run
from xdc_jax.weights import encoder_dir, layout
from xdc_jax.weights.encoder_dir import SavedEncoder

REQUEST_FILE = "request.json"


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("weights", None, "Encoder, released name or PyTorch file.")
    flags.DEFINE_string(
        "workdir", None, "Run of `xdc pretrain`, in place of --weights."
    )
    flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.", required=True)
    flags.DEFINE_string("out", None, "Folder of the features.", required=True)
    flags.DEFINE_enum(
        "modality", "both", ["video", "audio", "both"], "Of --workdir: which encoders."
    )
    flags.DEFINE_integer("clips", 1, "Clips per record, evenly spread.", 1)
    flags.DEFINE_bool("per_clip", False, "A row for each clip, not their mean.")
    flags.DEFINE_integer("crops", 1, "Squares per clip, averaged: 1 or 3.", 1, 3)
    flags.DEFINE_float("window_s", None, "Length of a clip, seconds.", 0.01)
    flags.DEFINE_float("stride_s", None, "A clip every so many seconds.", 0.01)
    flags.DEFINE_bool("feature_map", False, "The last map, not its mean.")
    flags.DEFINE_integer("num_frames", None, "Frames per clip; default 8 or the run's.")
    flags.DEFINE_integer("crop_size", None, "Pixels; default 112 or the run's.")
    flags.DEFINE_integer("batch_size", 16, "Clips per step, over all devices.", 1)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is extracted, how, and to where.

    Attributes:
        clips: `ClipData` of the prepared directory.
        views: which clips of each record.
        encoders: modality -> encoder.
        per_clip: a row for each clip, not their mean.
        feature_map: the last map, not its mean.
        batch_size: clips per step.
        out: folder of the features.
    """

    clips: Any
    views: Any
    encoders: dict[str, SavedEncoder]
    per_clip: bool
    feature_map: bool
    batch_size: int
    out: Path

    def request(self) -> dict[str, Any]:
        """Returns what the result is a function of, as JSON values."""
        return {
            "data": self.clips.fingerprint,
            "clip": dataclasses.asdict(self.clips.spec),
            "views": dataclasses.asdict(self.views),
            "encoders": {
                name: f"{encoder.source}, {layout.digest(encoder.variables)}"
                for name, encoder in sorted(self.encoders.items())
            },
            "per_clip": self.per_clip,
            "feature_map": self.feature_map,
        }


def help_end() -> str:
    """Returns what the help of this verb ends with: how to read the result."""
    from data_pipelines import features

    return features.HOW_TO_READ


def main() -> None:
    """Runs the verb."""
    from data_pipelines import clips as clips_lib
    from data_pipelines import shards, views

    parallel.enable_compilation_cache()
    args = flags.FLAGS
    encoders = _encoders(args)
    out = Path(args.out).expanduser()
    job = Job(
        clips=clips_lib.ClipData(
            shards.open_prepared(Path(args.data).expanduser()),
            clips_lib.ClipSpec(**_clip(args, encoders)),
            seed=0,
        ),
        views=views.Views(args.clips, args.crops, args.stride_s),
        encoders=encoders,
        per_clip=args.per_clip or args.stride_s is not None,
        feature_map=args.feature_map,
        batch_size=args.batch_size,
        out=out,
    )
    started = time.monotonic()
    num_rows, num_clips = extract(job)
    seconds = time.monotonic() - started
    print(
        f"{out}: {num_rows} rows; {num_clips} clips in {seconds:.1f} s "
        f"({num_clips / seconds:.1f} clips/s)"
    )


def _encoders(args: flags.FlagValues) -> dict[str, SavedEncoder]:
    if (args.weights is None) == (args.workdir is None):
        raise UserError("give one of --weights and --workdir")
    if args.workdir is not None:
        wanted = ("video", "audio") if args.modality == "both" else (args.modality,)
        workdir = Path(args.workdir).expanduser()
        return {name: encoder_dir.of_run(workdir, name) for name in wanted}
    encoder = convert.load(args.weights)
    modality = encoder.spec.modality
    if args.modality not in (modality, "both"):
        raise UserError(
            f"--modality={args.modality}, but {args.weights} is of {modality}"
        )
    return {modality: encoder}


def _clip(args: flags.FlagValues, encoders: dict[str, SavedEncoder]) -> dict[str, Any]:
    """Returns the fields of `ClipSpec`: the encoder's, as changed by the flags."""
    clip = dict(next(iter(encoders.values())).clip)
    if args.num_frames is not None:
        clip["num_frames"] = args.num_frames
    if args.crop_size is not None:
        clip["crop_size"] = args.crop_size
        # As 128 is to 112: the usual margin.
        clip["short_side"] = max(
            round(args.crop_size * 8 / 7), clip.get("short_side", 0)
        )
    if args.window_s is not None:
        clip["fps"] = clip.get("num_frames", 8) / args.window_s
        clip["audio_duration_s"] = args.window_s
    return clip


def extract(job: Job, mesh: jax.sharding.Mesh | None = None) -> tuple[int, int]:
    """Extracts what is missing of a job, and completes the folder.

    Args:
        job: what to do.
        mesh: the devices; default: all of this host.

    Returns:
        Rows of the whole data set, and clips that this call ran the encoders on.

    Raises:
        UserError: the folder holds something else.
    """
    from data_pipelines import features

    mesh = parallel.make_mesh(jax.local_devices()) if mesh is None else mesh
    parallel.check_batch_size(job.batch_size, mesh)
    _claim(job)
    apply, shapes = _compile(job, mesh)
    lengths, todo = {}, []
    for split in job.clips.splits:
        slices = _slices(job, split)
        lengths[split] = [_num_rows(job, split, ids) for ids in slices]
        for number, ids in enumerate(slices):
            path = features.shard_path(job.out, split, number, len(slices))
            todo.append((path, split, ids))
    mine = todo[jax.process_index() :: jax.process_count()]
    num_clips = 0
    missing = [item for item in mine if not item[0].exists()]
    total = sum(len(ids) for _, _, ids in missing)
    with tqdm(total=total, desc="extract", unit="record", disable=None) as bar:
        for path, split, ids in missing:
            rows, done = _slice(job, split, ids, apply, shapes)
            features.write_slice(path, rows)
            num_clips += done
            bar.update(len(ids))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("features are written")
    if jax.process_index() == 0:
        features.write_metadata(
            job.out,
            lengths,
            {f"{name}{features.SUFFIX}": shape for name, shape in shapes.items()},
            job.clips.class_names,
        )
    return sum(map(sum, lengths.values())), num_clips


def _claim(job: Job) -> None:
    """Makes the folder this job's; raises UserError if it is something else's."""
    file = job.out / REQUEST_FILE
    request = json.loads(json.dumps(job.request()))
    if file.exists():
        try:
            found = json.loads(file.read_text())
        except ValueError:
            found = {}
        differing = [key for key in request if found.get(key) != request[key]]
        if differing:
            raise UserError(
                f"{job.out}: holds other features ({', '.join(differing)} differ); "
                "choose another --out or remove it"
            )
    elif job.out.exists() and any(job.out.iterdir()):
        raise UserError(
            f"{job.out}: exists and holds no features; choose another --out"
        )
    else:
        write_atomically(file, json.dumps(request, indent=1).encode())


def _compile(
    job: Job, mesh: jax.sharding.Mesh
) -> tuple[Callable, dict[str, tuple[int, ...]]]:
    """Returns batches -> features (`extraction.run`), and the shape of each feature."""
    networks = {name: encoder.network() for name, encoder in job.encoders.items()}
    step = steps.compile_extract_step(mesh, networks, pooled=not job.feature_map)
    variables = {
        name: (encoder.variables.params, encoder.variables.batch_stats)
        for name, encoder in job.encoders.items()
    }
    spec, rows = job.clips.spec, mesh.size
    side = spec.crop_size
    like = {
        "video": jax.ShapeDtypeStruct((rows, spec.num_frames, side, side, 3), np.uint8),
        "audio": jax.ShapeDtypeStruct(
            (rows, spec.mel_frames, spec.mel_bins, 1), np.float32
        ),
    }
    like = {network.modality: like[network.modality] for network in networks.values()}
    shapes = {
        name: out.shape[1:]
        for name, out in jax.eval_shape(step, variables, like).items()
    }
    variables = parallel.replicate(variables, mesh)
    return lambda batches: run(step, variables, networks, batches, mesh), shapes


def _slices(job: Job, split: str) -> list[range]:
    """Returns the records of each slice of work: those of one prepared shard."""
    ends = np.cumsum(job.clips.index(split).shard_lengths).tolist()
    return [range(a, b) for a, b in zip([0, *ends], ends, strict=False) if b > a]


def _num_rows(job: Job, split: str, ids: range) -> int:
    if not job.per_clip:
        return len(ids)
    return sum(len(starts) for starts in _starts(job, split, ids))


def _starts(job: Job, split: str, ids: range) -> list[np.ndarray]:
    durations = job.clips.index(split).duration_s
    return [job.views.starts(job.clips.spec, float(durations[i])) for i in ids]


def _slice(
    job: Job, split: str, ids: range, apply: Any, shapes: dict[str, tuple]
) -> tuple[dict[str, np.ndarray], int]:
    """Returns the rows of a slice, and how many clips it has."""
    starts = _starts(job, split, ids)
    clips_of = np.array([len(found) for found in starts])
    parts = {name: [] for name in shapes}
    batches = job.clips.view_batches(
        split, job.views, batch_size=job.batch_size, clip_ids=ids
    )
    for _, out in apply(batches):
        for name, values in out.items():
            parts[name].append(values)
    index = job.clips.index(split)
    record = np.repeat(np.arange(len(ids)), clips_of)  # of each clip
    video_s = job.clips.spec.num_frames / job.clips.spec.fps
    where = ids[0] + (record if job.per_clip else np.arange(len(ids)))
    start_s = index.start_s[where]
    if job.per_clip:
        start_s = start_s + np.concatenate(starts)
        end_s = np.minimum(
            start_s + video_s, index.start_s[where] + index.duration_s[where]
        )
    else:
        end_s = start_s + index.duration_s[where]
    rows = {
        "video_id": index.video_id[where],
        "start_s": np.float32(start_s),
        "end_s": np.float32(end_s),
        "label": index.label[where],
        "fold": index.fold[where],
    }
    for name in shapes:
        values = np.concatenate(parts[name])
        values = values.reshape(-1, job.views.crops, *values.shape[1:]).mean(1)
        if not job.per_clip:
            values = np.float32(mean_per_group(values, record))
        usable = job.clips.usable(split, (job.encoders[name].spec.modality,))
        values[~usable[where]] = np.nan
        rows[f"{name}_feature"] = values
    return rows, int(clips_of.sum()) * job.views.crops
