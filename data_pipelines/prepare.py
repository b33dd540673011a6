"""Decodes media files into a prepared directory: TFRecord shards that TFDS reads.

Examples:
  xdc prepare --folder=~/videos --out=data/videos
  xdc prepare --manifest=clips.csv --out=data/clips --short_side=128
  xdc prepare --dataset=ucf101 --data_dir=~/ucf101 --check
  xdc prepare --dataset=ucf101 --data_dir=~/ucf101 --out=data/ucf101

A manifest is a CSV file with a header: `path` (relative to the manifest, absolute, or
a URL) and optionally `label`, `split` (default train), `start_s`, `end_s`, `fold`,
`partitions`. Sound becomes mono at 16 kHz and starts at the instant of the first
picture. A file without sound or without pictures is kept. A file that cannot be used is
listed in OUT/rejected.csv with the reason, and the rest goes on.

Started again, it goes on with the shards that are missing; they are the same whatever
it was killed in. OUT/prepared.json is written last.
OUT/prepare_report.json counts what came of the files, and the clips that are silent,
near-still, short, or duplicates; OUT/clips_SPLIT.csv has the measured values of each.

Data sets: `digits_tones` and `av_digits` first make their media files, in OUT/media,
where they stay: any player plays them. All others are read from --data_dir; the
docstring of data_pipelines/datasets/NAME.py says which files it expects there.
"""

import csv
import dataclasses
import io
import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from data_pipelines import (
    datasets,
    media,
    parts,
    shard_writer,
    shards,
    sources,
    workers,
)
from data_pipelines.beam import RUNNERS
from data_pipelines.locked import locked
from data_pipelines.manifest import Manifest
from data_pipelines.quality import Counts, count
from xdc_jax.errors import UserError
from xdc_jax.files import is_local, write_atomically

REJECTED_FILE = "rejected.csv"
MISSING_FILE = "missing.csv"
REQUEST_FILE = "preparing.json"


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("manifest", None, "CSV file that lists the media files.")
    flags.DEFINE_string("folder", None, "Folder whose media files are all taken.")
    flags.DEFINE_bool(
        "folder_labels", False, "With --folder: the first sub-folder is the label."
    )
    flags.DEFINE_enum(
        "dataset", None, sorted(datasets.MADE | datasets.FOUND), "Known data set."
    )
    flags.DEFINE_string("data_dir", None, "Where the files of --dataset lie.")
    flags.DEFINE_integer("num_train", None, "Training clips that --dataset makes.", 1)
    flags.DEFINE_integer("num_test", None, "Test clips that --dataset makes.", 1)
    flags.DEFINE_integer("seed", 0, "Seed of the clips that --dataset makes.")
    flags.DEFINE_bool(
        "check", False, "Only say which files of --dataset are there; decode nothing."
    )
    flags.DEFINE_string("out", None, "Prepared directory to write; may be gs://...")
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
    flags.DEFINE_integer(
        "rows_per_shard", 64, "Files, or rows of the manifest, per shard, at most.", 1
    )
    flags.DEFINE_float(
        "time_limit_s",
        workers.TIME_LIMIT_S,
        "A file that gives no clip for so many seconds is rejected.",
        0.1,
    )
    flags.DEFINE_enum(
        "runner", None, RUNNERS, "Runs on Apache Beam instead of this machine's cores."
    )
    flags.DEFINE_list(
        "runner_options", [], "Pipeline options of the runner: project=x,region=y,..."
    )


def main() -> None:
    """Prepares what the flags say."""
    args = flags.FLAGS
    source = _source_of_flags(args)
    if args.check:
        return _check(args, source)
    if not args.out:
        raise UserError("Give --out, the prepared directory to write.")
    if args.dataset in datasets.MADE and not is_local(args.out):
        raise UserError(
            f"--dataset={args.dataset} makes media files in --out: give a local one."
        )
    if args.runner_options and not args.runner:
        raise UserError("--runner_options goes with --runner only; leave it out.")
    prepare(
        source,
        epath.Path(args.out).expanduser(),
        media.Settings(args.short_side, args.fps, args.segment_s, args.jpeg_quality),
        num_workers=args.num_workers or workers.available_cores(),
        max_rejected=args.max_rejected,
        rows_per_shard=args.rows_per_shard,
        time_limit_s=args.time_limit_s,
        runner=args.runner,
        runner_options=args.runner_options,
    )
    return None


def prepare(
    source: sources.Source,
    out_dir: epath.PathLike,
    settings: media.Settings,
    *,
    num_workers: int,
    max_rejected: float = 0.1,
    rows_per_shard: int = 64,
    time_limit_s: float = workers.TIME_LIMIT_S,
    runner: str | None = None,
    runner_options: Sequence[str] = (),
) -> None:
    """Decodes `source` into the prepared directory `out_dir`.

    The shards are the same for every number of workers, every runner, and however often
    the work was interrupted. A directory that already holds the same preparation is
    left as it is.

    Args:
      source: what to prepare.
      out_dir: local, or a URL such as gs://...
      settings: how media is stored.
      num_workers: processes that decode, on this machine.
      max_rejected: largest share of the sources that may be rejected.
      rows_per_shard: rows of the manifest that are prepared together, at most.
      time_limit_s: a file that gives no clip for so long is rejected.
      runner: one of `beam.RUNNERS`; None uses worker processes of this machine.
      runner_options: pipeline options, `name=value`.

    Raises:
      UserError: `out_dir` holds something else, no clip came out, or more than
        `max_rejected` of the sources were rejected; what was done is then kept, and
        the same call with a larger `max_rejected` takes it over.
      OSError: the disk is full, or the like; finished parts are kept.
    """
    out_dir = epath.Path(os.path.abspath(out_dir) if is_local(out_dir) else out_dir)
    request = {
        **source.identity,
        **dataclasses.asdict(settings),
        "rows_per_shard": rows_per_shard,
    }
    if _is_finished(out_dir, request):
        _remove_parts(out_dir)
        print(f"{out_dir}: already prepared; nothing to do.")
        return
    start = time.monotonic()
    out_dir.mkdir(parents=True, exist_ok=True)
    with locked(out_dir):
        write_atomically(out_dir / REQUEST_FILE, json.dumps(request).encode())
        manifest = source.manifest(Path(out_dir) / "media")
        todo = planned = parts.plan(manifest, rows_per_shard)
        if (out_dir / parts.PARTS_DIR).exists():
            todo = [part for part in planned if not part.is_done(out_dir)]
            print(
                f"{out_dir}: going on; {len(planned) - len(todo)} of {len(planned)} "
                "shards are there.",
                flush=True,
            )
        if todo and runner is None:
            parts.write(todo, out_dir, settings, num_workers, time_limit_s)
        elif todo:
            from data_pipelines import beam

            beam.write(todo, out_dir, settings, time_limit_s, runner, runner_options)
        reports = _reports(planned, out_dir)
        counts = _check_rejected(out_dir, manifest, reports, max_rejected)
        summary = shard_writer.make_shards(out_dir, reports, manifest.class_names)
        size = sum(path.stat().length for path in out_dir.glob("*.tfrecord-*"))
        counts = dataclasses.replace(counts, bytes=size)
        seconds = time.monotonic() - start
        num_new = sum(len(part.rows) for part in todo)
        report = {
            **dataclasses.asdict(counts),
            "files_of_this_start": num_new,
            "seconds_of_this_start": round(seconds, 1),
            "files_per_s": round(num_new / seconds, 2),
        }
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(out_dir / shards.REPORT_FILE, text.encode())
        shard_writer.write_summary(out_dir, {**summary, "request": request})
        _remove_parts(out_dir)
    print(
        f"{counts.describe(out_dir)}, {seconds:.1f} s ({num_new / seconds:.1f} files/s)"
    )


def prepare_dataset(name: str, out_dir: str | Path, **options: Any) -> None:
    """Prepares a data set with default settings; `options` go to `dataset_source`."""
    prepare(
        sources.dataset_source(name, **options),
        out_dir,
        media.Settings(),
        num_workers=workers.available_cores(),
    )


Reports = dict[str, dict[epath.Path, shard_writer.PartReport]]


def _reports(planned: Sequence[parts.Part], out_dir: epath.Path) -> Reports:
    """Split -> path and report of each of its parts, in order."""
    found: Reports = {}
    for part in planned:
        path = part.path(out_dir)
        found.setdefault(part.split, {})[path] = shard_writer.read_report(path)
    return found


def _check_rejected(
    out_dir: epath.Path, manifest: Manifest, reports: Reports, max_rejected: float
) -> Counts:
    """Writes the lists of what is rejected and missing; counts everything.

    Raises:
      UserError: too much is rejected.
    """
    counts = count(manifest, reports)
    found = itertools.chain.from_iterable(each.values() for each in reports.values())
    rejected = itertools.chain.from_iterable(report.rejected for report in found)
    _write_list(out_dir / REJECTED_FILE, ("path", "reason", "detail"), sorted(rejected))
    if manifest.missing:
        missing = [(path,) for path in manifest.missing]
        _write_list(out_dir / MISSING_FILE, ("path",), missing)
    where = out_dir / REJECTED_FILE
    if counts.clips == 0:
        raise UserError(
            f"{counts.sources} files gave no clip: {counts.reasons_text}. See {where}."
        )
    share = counts.rejected / counts.sources
    if share > max_rejected:
        raise UserError(
            f"{counts.rejected} of {counts.sources} files ({share:.1%}) were rejected, "
            f"more than --max_rejected={max_rejected:g}: {counts.reasons_text}. See "
            f"{where}. Mend the files; or give a larger --max_rejected, which takes "
            "over what is done."
        )
    return counts


def _check(args: flags.FlagValues, source: sources.Source) -> int:
    """Says what there is of a data set; returns the exit status."""
    if args.dataset not in datasets.FOUND:
        raise UserError(
            f"--check looks for the files of {', '.join(sorted(datasets.FOUND))}; give "
            "one of these as --dataset."
        )
    manifest = source.manifest(Path())
    listed = len(manifest.rows) + len(manifest.missing)
    print(f"{args.dataset} in {args.data_dir}: {len(manifest.rows)} of {listed} files")
    for split in manifest.splits:
        rows = [row for row in manifest.rows if row.split == split]
        classes = len({row.label for row in rows if row.label})
        folds = len({row.fold for row in rows if row.fold >= 0})
        print(f"  {split}: {len(rows)} files, {classes} classes, {folds} folds")
    for what, found in (("missing", manifest.missing), ("bad", manifest.problems)):
        for text in found[:10]:
            print(f"  {what}: {text}")
        if len(found) > 10:
            print(f"  {what}: and {len(found) - 10} more")
    return 1 if manifest.missing or manifest.problems else 0


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


def _remove_parts(out_dir: epath.Path) -> None:
    for path in (out_dir / parts.PARTS_DIR, out_dir / REQUEST_FILE):
        if path.is_dir():
            path.rmtree()
        elif path.exists():
            path.unlink()


def _write_list(
    path: epath.Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    # Surrogates stand for the bytes of names that are not UTF-8.
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))


def _is_finished(out_dir: epath.Path, request: dict[str, Any]) -> bool:
    """Whether `out_dir` holds what is asked for; False where it holds a part of it.

    Raises:
      UserError: it holds something else.
    """
    state = "holds another preparation"
    if (out_dir / shards.SUMMARY_FILE).exists():
        found = shards.read_summary(out_dir)["request"]
    elif (out_dir / REQUEST_FILE).exists():
        found = json.loads((out_dir / REQUEST_FILE).read_text())
        state = "holds an unfinished preparation of something else"
    elif out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError(
            f"{out_dir}: exists and is no prepared directory; expected a new name for "
            "--out. Choose another, or remove it."
        )
    else:
        return False
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
            f"{out_dir}: {state} ({listed}). Choose another --out, or remove it."
        )
    return (out_dir / shards.SUMMARY_FILE).exists()
