r"""Features of every clip, as a TFDS data set.

Examples:
  xdc extract --weights=r2plus1d_18_xdc_audioset --videos=~/videos --out=features/mine
  xdc extract --weights=encoders/xdc_audioset --data=data/ucf101 --out=features/ucf101
  xdc extract --workdir=runs/xdc_kinetics --data=data/esc50 --clips=10 --per_clip \
      --modality=audio --window_s=2 --feature_map --out=features/esc50
  xdc extract --weights=r2plus1d_18_xdc_audioset --data=data/thumos14 --window_s=0.5 \
      --stride_s=0.25 --out=features/thumos14

--weights is what `xdc convert` wrote, or what it reads: a released name or a PyTorch
file. --workdir is a run of `xdc pretrain`, whose clips are cut as in its training.
--data is what `xdc prepare` wrote. --videos is a folder of media files, or a manifest
as `xdc prepare` takes it: read in place, only where the clips lie. A file that cannot
be read there is listed in OUT/rejected.csv with the reason, and the rest goes on.

A row is a record or file, with the mean over its clips; or with --per_clip or
--stride_s each clip. A clip without pictures has NaN as video feature, one without
sound NaN as audio feature. One shard of --data, or some hundred files, is one slice of
work: started again, what was interrupted goes on with the slices that are missing.
Several hosts with the same folders share them.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from xdc_jax import convert, files, hosts, parallel, preemption
from xdc_jax.errors import UserError
from xdc_jax.evaluation.rows import mean_per_group
from xdc_jax.training import steps
from xdc_jax.training.extraction import run
from xdc_jax.weights import encoder_dir, layout
from xdc_jax.weights.encoder_dir import SavedEncoder


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("weights", None, "Encoder, released name or PyTorch file.")
    flags.DEFINE_string(
        "workdir", None, "Run of `xdc pretrain`, in place of --weights."
    )
    flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
    flags.DEFINE_string(
        "videos", None, "Folder of media files or manifest, in place of --data."
    )
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
    flags.DEFINE_integer(
        "num_workers", None, "Processes that decode --videos; default: one per core.", 1
    )
    hosts.define_flags()


@dataclasses.dataclass(frozen=True)
class Job:
    """What is extracted, how, and to where.

    Attributes:
        source: `data_pipelines.extraction.PreparedSource` or `MediaSource`.
        encoders: modality -> encoder.
        per_clip: a row for each clip, not their mean.
        feature_map: the last map, not its mean.
        batch_size: clips per step.
        out: folder of the features.
        data: name of the data set, for tables of results.
    """

    source: Any
    encoders: dict[str, SavedEncoder]
    per_clip: bool
    feature_map: bool
    batch_size: int
    out: Path
    data: str = ""

    def request(self) -> dict[str, Any]:
        """Returns what the result is a function of, as JSON values."""
        return {
            "data": self.source.identity,
            "clip": dataclasses.asdict(self.source.spec),
            "views": dataclasses.asdict(self.source.views),
            "encoders": {
                name: f"{encoder.source}, {layout.digest(encoder.variables)}"
                for name, encoder in sorted(self.encoders.items())
            },
            "per_clip": self.per_clip,
            "feature_map": self.feature_map,
        }

    def about(self) -> dict[str, Any]:
        """Returns what tables of results say of it, besides the measures."""
        spec, views = self.source.spec, self.source.views
        windows = views.stride_s is not None
        return {
            "data": self.data,
            "num_frames": spec.num_frames,
            "crop_size": spec.crop_size,
            "clips_per_record": None if windows else views.clips,
            "crops": views.crops,
            "clip_s": round(spec.num_frames / spec.fps, 4),
            "feature_map": self.feature_map,
            "pretraining": {
                name: encoder.pretraining
                for name, encoder in sorted(self.encoders.items())
            },
        }


def help_end() -> str:
    """Returns what the help of this verb ends with: how to read the result."""
    from data_pipelines import features

    return features.HOW_TO_READ


def main() -> None:
    """Runs the verb."""
    parallel.keep_freed_memory()
    parallel.enable_compilation_cache()
    hosts.connect()
    preemption.watch()
    args = flags.FLAGS
    if (args.data is None) == (args.videos is None):
        raise UserError("give one of --data and --videos")
    out = files.local(args.out, "out")
    encoders = _encoders(args)
    job = Job(
        source=_source(args, encoders),
        encoders=encoders,
        per_clip=args.per_clip or args.stride_s is not None,
        feature_map=args.feature_map,
        batch_size=args.batch_size,
        out=out,
        data=data_name(args.data or args.videos),
    )
    started = time.monotonic()
    done = extract(job)
    seconds = time.monotonic() - started
    rejected = ""
    if done.num_rejected:
        rejected = f", {done.num_rejected} files rejected (see {out}/rejected.csv)"
    print(
        f"{out}: {done.num_rows} rows{rejected}; {done.num_clips} clips in "
        f"{seconds:.1f} s ({done.num_clips / seconds:.1f} clips/s)"
    )


def data_name(location: str | Path) -> str:
    """Returns the name of a folder, or of the one that a manifest is in."""
    location = Path(location).expanduser().resolve()
    return location.parent.name if location.is_file() else location.name


def _source(args: flags.FlagValues, encoders: dict[str, SavedEncoder]) -> Any:
    from data_pipelines import clips, extraction, shards, views, workers

    spec = clips.ClipSpec(**_clip(args, encoders))
    which = views.Views(args.clips, args.crops, args.stride_s)
    if args.data is not None:
        prepared = shards.open_prepared(files.absolute(args.data))
        found = clips.ClipData(prepared, spec, 0, sorted(encoders))
        return extraction.PreparedSource(found, which)
    return extraction.MediaSource(
        files.local(args.videos, "videos"),
        spec,
        which,
        sorted(encoders),
        args.num_workers or workers.available_cores(),
    )


def _encoders(args: flags.FlagValues) -> dict[str, SavedEncoder]:
    if (args.weights is None) == (args.workdir is None):
        raise UserError("give one of --weights and --workdir")
    if args.workdir is not None:
        wanted = ("video", "audio") if args.modality == "both" else (args.modality,)
        with files.reaching(args.workdir):
            return {name: encoder_dir.of_run(args.workdir, name) for name in wanted}
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


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of a job.

    Attributes:
        num_rows: of the whole data set.
        num_rejected: files that could not be read.
        num_clips: that this call ran the encoders on.
    """

    num_rows: int
    num_rejected: int
    num_clips: int


def extract(job: Job, mesh: jax.sharding.Mesh | None = None) -> Done:
    """Extracts what is missing of a job, and completes the folder.

    Args:
        job: what to do.
        mesh: the devices; default: all of this host.

    Raises:
        UserError: the folder holds something else, or no file could be read.
    """
    from data_pipelines import features
    from data_pipelines.progress import Progress

    mesh = parallel.make_mesh(jax.local_devices()) if mesh is None else mesh
    parallel.check_batch_size(job.batch_size, mesh)
    hosts.on_first(lambda: features.claim(job.out, job.request(), job.about()))
    hosts.check_shared(job.out / features.REQUEST_FILE, "out")
    apply, shapes = compile_encoders(job, mesh)
    paths, wanted = [], []
    for split, slices in job.source.slices.items():
        for number, ids in enumerate(slices):
            paths.append(features.shard_path(job.out, split, number, len(slices)))
            wanted.append((split, ids))
    missing = [
        i
        for i in range(jax.process_index(), len(paths), jax.process_count())
        if not paths[i].exists()
    ]
    num_clips = num_records = num_rows = 0
    pieces = job.source.open([wanted[i] for i in missing], job.batch_size)
    total = sum(len(wanted[i][1]) for i in missing)
    with Progress(total, "record", "rows") as progress:
        for i, piece in zip(missing, pieces, strict=True):
            parts = {name: [] for name in shapes}
            for _, out in apply(piece.batches):
                preemption.check(together=False)
                for name, values in out.items():
                    parts[name].append(values)
                progress.update(num_records + len(piece.records), num_rows)
            # The notice may have gone to the decoding processes as well, and ended
            # them: their files are none to be rejected.
            preemption.check(together=False)
            rows = _rows(job, piece.records, parts, shapes)
            features.write_slice(
                paths[i],
                rows,
                [(r.video_id, *r.fault) for r in piece.records if r.fault],
            )
            num_records += len(piece.records)
            num_rows += len(rows["label"])
            num_clips += sum(map(len, next(iter(parts.values()))))
            progress.update(num_records, num_rows)
    multihost_utils.sync_global_devices("features are written")
    shards = list(zip([split for split, _ in wanted], paths, strict=True))
    lengths, rejected = features.reports(shards)
    num_rows = sum(map(sum, lengths.values()))
    if hosts.is_first():
        if rejected:
            features.write_rejected(job.out, rejected)
        if num_rows:
            features.write_metadata(
                job.out,
                lengths,
                {f"{name}{features.SUFFIX}": shape for name, shape in shapes.items()},
                job.source.class_names,
            )
    if not num_rows:
        raise UserError(
            f"{job.out}: none of {len(rejected)} files could be read; see "
            f"{job.out / features.REJECTED_FILE}"
        )
    return Done(num_rows, len(rejected), num_clips)


def compile_encoders(
    job: Job, mesh: jax.sharding.Mesh
) -> tuple[Callable, dict[str, tuple[int, ...]]]:
    """Returns batches -> features (`extraction.run`), and the shape of each feature."""
    networks = {name: encoder.network() for name, encoder in job.encoders.items()}
    step = steps.compile_extract_step(mesh, networks, pooled=not job.feature_map)
    variables = {
        name: (encoder.variables.params, encoder.variables.batch_stats)
        for name, encoder in job.encoders.items()
    }
    spec, rows = job.source.spec, mesh.size
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


def _rows(
    job: Job,
    records: Sequence[Any],
    parts: dict[str, list[np.ndarray]],
    shapes: dict[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """Returns the rows of a slice.

    Args:
        job: what is wanted.
        records: `data_pipelines.extraction.Looked` of the slice.
        parts: modality -> features of the views of all records, in batches.
        shapes: of each feature.
    """
    from data_pipelines.features import SUFFIX

    # Clip by clip: the record it is of, or of a record to leave out, -1.
    number = itertools.count()
    clip_of = np.array(
        [
            n
            for record in records
            for n in [-1 if record.fault else next(number)] * len(record.starts_s)
        ],
        dtype=int,
    )
    records = [record for record in records if not record.fault]
    used = clip_of >= 0
    clip_of = clip_of[used]
    of = clip_of if job.per_clip else np.arange(len(records))  # of each row

    def column(values, dtype=np.float64):
        return np.array(values, dtype)[of]

    start_s = column([record.start_s for record in records])
    end_s = start_s + column([record.duration_s for record in records])
    if job.per_clip:
        start_s = start_s + np.concatenate(
            [np.zeros(0), *(r.starts_s for r in records)]
        )
        clip_s = job.source.spec.num_frames / job.source.spec.fps
        end_s = np.minimum(start_s + clip_s, end_s)
    rows = {
        "video_id": column([record.video_id for record in records], object),
        "start_s": np.float32(start_s),
        "end_s": np.float32(end_s),
        "label": column([record.label for record in records], np.int64),
        "fold": column([record.fold for record in records], np.int64),
        "partitions": column([record.partitions for record in records], object),
    }
    for name, shape in shapes.items():
        values = np.concatenate([np.zeros((0, *shape), np.float32), *parts[name]])
        values = values.reshape(-1, job.source.views.crops, *shape).mean(1)[used]
        if not job.per_clip:
            values = np.float32(mean_per_group(values, clip_of))
        modality = job.encoders[name].spec.modality
        values[column([modality not in r.has for r in records], bool)] = np.nan
        rows[f"{name}{SUFFIX}"] = values
    return rows
