"""Decodes media files into a prepared directory: TFRecord shards that TFDS reads.

Examples:
  xdc prepare --folder=~/videos --out=data/videos
  xdc prepare --manifest=clips.csv --out=data/clips --short_side=128
  xdc prepare --dataset=digits_tones --out=data/digits_tones

A manifest is a CSV file with a header: `path` (relative to the manifest, absolute, or
a URL) and optionally `label`, `split` (default train), `start_s`, `end_s`, `fold`.
Sound becomes mono at 16 kHz and starts at the instant of the first picture. A file
without sound or without pictures is kept. A file that cannot be used is listed in
OUT/rejected.csv with the reason, and the rest goes on.

Data sets: `digits_tones` and `av_digits` first make their media files, in OUT/media,
where they stay: any player plays them. `av_digits` reads MNIST and FSDD from
--data_dir, `grid_words` its clips.

The work is done in OUT.incomplete, which becomes OUT when it is finished.
"""

import collections
import csv
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines import datasets, media, shards, sources, workers
from data_pipelines.incomplete import clear, incomplete_dir
from data_pipelines.manifest import Manifest, Row
from data_pipelines.progress import Progress
from data_pipelines.streams import RejectedError
from xdc_jax.errors import UserError

REJECTED_FILE = "rejected.csv"


@dataclasses.dataclass
class Counts:
    """What came of the sources."""

    sources: int = 0
    clips: int = 0
    media_s: float = 0.0
    without_sound: int = 0
    without_pictures: int = 0
    rejected: int = 0
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("manifest", None, "CSV file that lists the media files.")
    flags.DEFINE_string("folder", None, "Folder whose media files are all taken.")
    flags.DEFINE_bool(
        "folder_labels", False, "With --folder: the first sub-folder is the label."
    )
    flags.DEFINE_enum("dataset", None, sorted(datasets.BUILDERS), "Known data set.")
    flags.DEFINE_string("data_dir", None, "Where the files of --dataset lie.")
    flags.DEFINE_integer("num_train", None, "Training clips that --dataset makes.", 1)
    flags.DEFINE_integer("num_test", None, "Test clips that --dataset makes.", 1)
    flags.DEFINE_integer("seed", 0, "Seed of the clips that --dataset makes.")
    flags.DEFINE_string("out", None, "Prepared directory to write.", required=True)
    flags.DEFINE_integer(
        "short_side", 128, "Shorter side, pixels; smaller ones are kept as they are.", 1
    )
    flags.DEFINE_float(
        "fps", None, "Pictures per second; default: the source's, at most 30.", 0.01
    )
    flags.DEFINE_float(
        "segment_s",
        10.0,
        "Longer sources are cut into records of this length, seconds; a remainder of "
        "less than half stays with the last one.",
        0.1,
    )
    flags.DEFINE_integer("jpeg_quality", 90, "Quality of the pictures.", 1, 95)
    flags.DEFINE_integer("num_workers", None, "Processes; default: one per core.", 1)
    flags.DEFINE_float(
        "max_rejected", 0.1, "Largest share of files that may be rejected.", 0.0, 1.0
    )
    flags.DEFINE_integer("records_per_shard", 256, "Records per TFRecord file.", 1)


def main() -> None:
    """Prepares what the flags say."""
    args = flags.FLAGS
    prepare(
        _source_of_flags(args),
        Path(args.out).expanduser(),
        media.Settings(args.short_side, args.fps, args.segment_s, args.jpeg_quality),
        num_workers=args.num_workers or workers.available_cores(),
        max_rejected=args.max_rejected,
        records_per_shard=args.records_per_shard,
    )


def prepare(
    source: sources.Source,
    out_dir: Path,
    settings: media.Settings,
    *,
    num_workers: int,
    max_rejected: float = 0.1,
    records_per_shard: int = 256,
) -> None:
    """Decodes `source` into the prepared directory `out_dir`.

    The shards are the same for every number of workers. A directory that already
    holds the same preparation is left as it is.

    Raises:
      UserError: `out_dir` holds something else, no clip came out, or more than
        `max_rejected` of the sources were rejected; what was done is then kept, and
        the same call with a larger `max_rejected` takes it over.
    """
    request = {
        **source.identity,
        **dataclasses.asdict(settings),
        "records_per_shard": records_per_shard,
    }
    if _is_finished(out_dir, request):
        print(f"{out_dir}: already prepared; nothing to do.")
        return
    start = time.monotonic()
    out_dir = out_dir.absolute()
    with incomplete_dir(out_dir) as work_dir:
        summary_path = work_dir / shards.SUMMARY_FILE
        if not (summary_path.exists() and _read_request(work_dir) == request):
            clear(work_dir)
            manifest = source.manifest(work_dir / "media")
            _write(
                manifest, work_dir, settings, num_workers, records_per_shard, request
            )
        counts = Counts(**shards.read_summary(work_dir)["counts"])
        _check_rejected(counts, max_rejected, work_dir)
    print(_describe(counts, time.monotonic() - start, out_dir))


def prepare_dataset(name: str, out_dir: str | Path, **options: Any) -> None:
    """Prepares a data set with default settings; `options` go to `dataset_source`."""
    prepare(
        sources.dataset_source(name, **options),
        Path(out_dir),
        media.Settings(),
        num_workers=workers.available_cores(),
    )


def decode_row(task: tuple[Row, media.Settings]) -> Iterator[media.Segment]:
    """What a worker does: decodes one row of the manifest.

    Raises:
      RejectedError: whatever goes wrong.
    """
    row, settings = task
    try:
        yield from media.decode(row.location, row.start_s, row.end_s, settings)
    except RejectedError:
        raise
    except Exception as error:  # One file must not end the job.
        reason = f"{type(error).__name__}: {error}"
        raise RejectedError("decoder failed", reason) from error


def _source_of_flags(args: flags.FlagValues) -> sources.Source:
    given = [name for name in ("manifest", "folder", "dataset") if args[name].value]
    if len(given) != 1:
        raise UserError(
            f"Found {' and '.join('--' + name for name in given) or 'no source'}, "
            "expected exactly one of --manifest=FILE, --folder=DIR, --dataset=NAME."
        )
    made_only = ("data_dir", "num_train", "num_test")
    stray = [name for name in made_only if args[name].value is not None]
    if stray and not args.dataset:
        raise UserError(f"--{stray[0]} goes with --dataset only; leave it out.")
    if args.manifest:
        return sources.manifest_source(Path(args.manifest).expanduser())
    if args.folder:
        return sources.folder_source(Path(args.folder).expanduser(), args.folder_labels)
    return sources.dataset_source(
        args.dataset,
        data_dir=args.data_dir,
        num_train=args.num_train,
        num_test=args.num_test,
        seed=args.seed,
        num_workers=args.num_workers,
    )


def _write(
    manifest: Manifest,
    work_dir: Path,
    settings: media.Settings,
    num_workers: int,
    records_per_shard: int,
    request: dict[str, Any],
) -> None:
    """Decodes the rows of a manifest and finishes `work_dir`."""
    from data_pipelines import shard_writer

    writers = {
        split: shard_writer.SplitWriter(work_dir, split, records_per_shard)
        for split in manifest.splits
    }
    counts = Counts(sources=len(manifest.rows))
    reasons: collections.Counter[str] = collections.Counter()
    tasks = [(row, settings) for row in manifest.rows]
    num_done = 0
    with (
        (work_dir / REJECTED_FILE).open(
            "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as rejected_file,
        Progress(len(tasks), "file", "clips") as progress,
    ):
        rejected = csv.writer(rejected_file, lineterminator="\n")
        rejected.writerow(("path", "reason", "detail"))
        for event in workers.run_in_order(decode_row, tasks, num_workers):
            row = manifest.rows[num_done]
            match event:
                case workers.Result(segment):
                    record = _record(row, segment, manifest)
                    writers[row.split].write(record)
                    counts.clips += 1
                    counts.media_s += record.duration_s
                    counts.without_sound += len(record.audio) == 0
                    counts.without_pictures += not record.frames
                case workers.Failed(RejectedError() as error):
                    reasons[error.reason] += 1
                    rejected.writerow((row.path, error.reason, error.detail))
                case workers.Crashed(how):
                    reasons["decoder crashed"] += 1
                    rejected.writerow((row.path, "decoder crashed", how))
            num_done += not isinstance(event, workers.Result)
            progress.update(num_done, counts.clips)
    for writer in writers.values():
        writer.close()
    counts.reasons = dict(reasons)
    counts.rejected = sum(reasons.values())
    if counts.clips == 0:
        raise UserError(
            f"{counts.sources} files gave no clip: {_describe_reasons(counts)}. See "
            f"{work_dir / REJECTED_FILE}."
        )
    shard_writer.write_metadata(
        work_dir,
        writers.values(),
        manifest.class_names,
        {"request": request, "counts": dataclasses.asdict(counts)},
    )


def _record(row: Row, segment: media.Segment, manifest: Manifest) -> shards.Record:
    return shards.Record(
        video_id=row.path,
        start_s=segment.start_s,
        fps=segment.fps,
        frames=segment.frames,
        audio=segment.audio,
        label=manifest.class_id(row),
        fold=row.fold,
    )


def _is_finished(out_dir: Path, request: dict[str, Any]) -> bool:
    """Whether `out_dir` holds what is asked for.

    Raises:
      UserError: it holds something else.
    """
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    if not (out_dir / shards.SUMMARY_FILE).is_file():
        raise UserError(
            f"{out_dir}: exists and is no prepared directory; expected a new name for "
            "--out. Choose another, or remove it."
        )
    found = _read_request(out_dir)
    differing = sorted(
        key
        for key in found.keys() | request.keys()
        if found.get(key) != request.get(key)
    )
    if differing:
        listed = ", ".join(
            f"{key} is {found.get(key)}, not {request.get(key)}" for key in differing
        )
        raise UserError(
            f"{out_dir}: holds another preparation ({listed}). Choose another --out, "
            "or remove it."
        )
    return True


def _read_request(data_dir: Path) -> dict[str, Any]:
    return shards.read_summary(data_dir)["request"]


def _check_rejected(counts: Counts, max_rejected: float, work_dir: Path) -> None:
    share = counts.rejected / counts.sources
    if share > max_rejected:
        raise UserError(
            f"{counts.rejected} of {counts.sources} files ({share:.1%}) were rejected, "
            f"more than --max_rejected={max_rejected:g}: {_describe_reasons(counts)}. "
            f"See {work_dir / REJECTED_FILE}. Mend the files; or give a larger "
            "--max_rejected, which takes over what is done."
        )


def _describe_reasons(counts: Counts) -> str:
    by_count = sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in by_count)


def _describe(counts: Counts, seconds: float, out_dir: Path) -> str:
    parts = [f"{counts.clips} clips of {counts.sources} files"]
    if counts.without_sound:
        parts.append(f"{counts.without_sound} without sound")
    if counts.without_pictures:
        parts.append(f"{counts.without_pictures} without pictures")
    if counts.rejected:
        parts.append(f"{counts.rejected} files rejected ({_describe_reasons(counts)})")
    parts.append(f"{counts.media_s / 3600:.3f} hours of media")
    parts.append(f"{seconds:.1f} s ({counts.clips / seconds:.1f} clips/s)")
    return f"{out_dir}: {', '.join(parts)}"
