"""The unit of work of a preparation: some rows of a manifest -> one part, a file.

A part is a function of its rows and the settings, whoever makes it and however many
others are made at the same time. One that is there is not made again.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

from etils import epath

from data_pipelines import media, shard_writer, workers
from data_pipelines.manifest import Manifest, Row
from data_pipelines.progress import Progress
from data_pipelines.shards import Record
from data_pipelines.streams import RejectedError

PARTS_DIR = "parts"
# A part of larger files ends earlier, so that hours of video are not one piece of work.
SOURCE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of a manifest that are prepared together.

    Attributes:
      split: the split of all of them.
      index: counts the parts of a split.
      rows: the rows.
      class_ids: label of each row, -1 where it has none.
    """

    split: str
    index: int
    rows: tuple[Row, ...]
    class_ids: tuple[int, ...]

    def path(self, out_dir: epath.Path) -> epath.Path:
        """Where the part of a prepared directory is."""
        return out_dir / PARTS_DIR / f"{self.split}-{self.index:05d}.tfrecord"

    def is_done(self, out_dir: epath.Path) -> bool:
        """Whether it is there, whole."""
        return shard_writer.read_report(self.path(out_dir)) is not None


def plan(manifest: Manifest, rows_per_shard: int) -> list[Part]:
    """Divides a manifest: rows in order, each part of one split."""
    parts = []
    sizes = _source_bytes(manifest.rows)
    for split in manifest.splits:
        groups: list[list[Row]] = []
        left = 0
        for row in manifest.rows:
            if row.split != split:
                continue
            if not groups or len(groups[-1]) == rows_per_shard or left <= 0:
                groups.append([])
                left = SOURCE_BYTES
            groups[-1].append(row)
            left -= sizes[row.location]
        parts += [
            Part(split, index, tuple(rows), tuple(map(manifest.class_id, rows)))
            for index, rows in enumerate(groups)
        ]
    return parts


def write(
    parts: Sequence[Part],
    out_dir: epath.Path,
    settings: media.Settings,
    num_workers: int,
    time_limit_s: float,
) -> None:
    """Makes parts, several at a time.

    Args:
      parts: which.
      out_dir: the prepared directory.
      settings: how media is stored.
      num_workers: processes that decode.
      time_limit_s: a file that gives no clip for so long is given up.

    Raises:
      OSError: the disk is full, or the like; finished parts stay.
    """
    (out_dir / PARTS_DIR).mkdir(parents=True, exist_ok=True)
    lists = [[(row, settings) for row in part.rows] for part in parts]
    writers: dict[int, shard_writer.PartWriter] = {}
    num_rows = num_clips = 0
    with Progress(sum(map(len, lists)), "file", "clips") as progress:
        for index, place, event in workers.run_lists(
            decode_row, lists, num_workers, time_limit_s
        ):
            part = parts[index]
            row = part.rows[place]
            if index not in writers:
                writers[index] = shard_writer.PartWriter(part.path(out_dir))
            writer = writers[index]
            match event:
                case workers.Result(segment):
                    writer.write(_record(row, segment, part.class_ids[place]))
                    num_clips += 1
                    progress.update(num_rows, num_clips)
                    continue
                case workers.Failed(RejectedError() as error):
                    writer.reject(row.path, error.reason, error.detail)
                case workers.Crashed(how, reason):
                    writer.reject(row.path, reason, how)
            num_rows += 1
            if place + 1 == len(part.rows):
                writers.pop(index).close()
            progress.update(num_rows, num_clips)


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


def _record(row: Row, segment: media.Segment, class_id: int) -> Record:
    return Record(
        video_id=row.path,
        start_s=segment.start_s,
        fps=segment.fps,
        frames=segment.frames,
        audio=segment.audio,
        label=class_id,
        fold=row.fold,
        partitions=row.partitions,
        motion=segment.motion,
    )


def _source_bytes(rows: Sequence[Row]) -> dict[str, float]:
    """Location -> size of the file per row that takes something of it; 0 of URLs."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.location] = counts.get(row.location, 0) + 1
    return {
        location: os.path.getsize(location) / count if os.path.isfile(location) else 0
        for location, count in counts.items()
    }
