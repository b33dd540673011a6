"""What features are extracted from: prepared records, or media files as they are.

Both give slices of work. A slice has batches of clips, and says which records they
are of.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from data_pipelines import sources, workers
from data_pipelines.choices import centre_choices, view_crop
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.clips import (
    Batch,
    ClipData,
    Tensors,
    batch,
    pad,
    prepare_tensorflow,
    preprocess,
)
from data_pipelines.manifest import Manifest, read_manifest, scan_folder
from data_pipelines.media_clips import Found, MediaClip, read_clips
from data_pipelines.streams import RejectedError
from data_pipelines.views import Views

FILES_PER_SLICE = 256
# With windows, a file has many rows, all of which are held until its slice is written.
FILES_PER_SLICE_OF_WINDOWS = 16


@dataclasses.dataclass(frozen=True)
class Looked:
    """A record, or a media file, and the clips that were made of it.

    Attributes:
      video_id: as in the manifest.
      start_s: where it starts in its source, seconds.
      duration_s: its length.
      label: class id, -1 where unlabelled.
      fold: cross-validation fold, -1 where none.
      partitions: part in each of several official partitions, as in the manifest.
      has: which of `video` and `audio`.
      starts_s: start of each clip, seconds from `start_s`.
      fault: (reason, detail) if it is rejected: its clips are not to be used.
    """

    video_id: str
    start_s: float
    duration_s: float
    label: int
    fold: int
    partitions: str
    has: tuple[str, ...]
    starts_s: Float[np.ndarray, " clips"]
    fault: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Slice:
    """A part of the work.

    Attributes:
      batches: of views: clip by clip, crop by crop; the last one is filled.
      records: in the order of the batches; of media files, those that have been read
        so far.
    """

    batches: Iterator[Batch]
    records: Sequence[Looked]


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """Clips of a prepared directory; a slice is one of its shards."""

    clips: ClipData
    views: Views

    @property
    def spec(self) -> ClipSpec:
        """What a clip is."""
        return self.clips.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """Sorted class names."""
        return self.clips.class_names

    @property
    def identity(self) -> str:
        """Equal for equal data."""
        return self.clips.fingerprint

    @property
    def slices(self) -> dict[str, list[range]]:
        """Split -> clip ids of each slice."""
        return {
            split: _ranges(self.clips.index(split).shard_lengths)
            for split in self.clips.splits
        }

    def open(
        self, wanted: Sequence[tuple[str, range]], batch_size: int
    ) -> Iterator[Slice]:
        """Yields some slices, (split, clip ids), in turn."""
        for split, ids in wanted:
            batches = self.clips.view_batches(
                split, self.views, batch_size=batch_size, clip_ids=ids
            )
            yield Slice(batches, [self._looked(split, i) for i in ids])

    def _looked(self, split: str, clip_id: int) -> Looked:
        index = self.clips.index(split)
        duration_s = float(index.duration_s[clip_id])
        has = {
            "video": index.num_frames[clip_id] > 0,
            "audio": index.num_samples[clip_id] > 0,
        }
        return Looked(
            video_id=str(index.video_id[clip_id]),
            start_s=float(index.start_s[clip_id]),
            duration_s=duration_s,
            label=int(index.label[clip_id]),
            fold=int(index.fold[clip_id]),
            partitions=str(index.partitions[clip_id]),
            has=tuple(kind for kind, there in has.items() if there),
            starts_s=self.views.starts(self.spec, duration_s),
        )


class MediaSource:
    """Clips of the media files that a manifest lists, or of a folder of them.

    Worker processes decode what the views need, no more. A file is one record, however
    long it is.

    Args:
      location: a CSV manifest, or a folder.
      spec: what a clip is.
      views: which clips of each file.
      modalities: those that are decoded: `video`, `audio`.
      num_workers: processes.

    Raises:
      UserError: as `manifest.read_manifest` and `manifest.scan_folder`.
    """

    def __init__(
        self,
        location: Path,
        spec: ClipSpec,
        views: Views,
        modalities: Sequence[str],
        num_workers: int,
    ):
        prepare_tensorflow()
        if location.is_file():
            self._manifest: Manifest = read_manifest(location)
        else:
            self._manifest = scan_folder(location, folder_labels=False)
        self.spec = spec
        self.views = views
        self.class_names = self._manifest.class_names
        self.identity: str = sources.digest(self._manifest)
        self._modalities = tuple(modalities)
        self._num_workers = num_workers
        self._rows = {
            split: [row for row in self._manifest.rows if row.split == split]
            for split in self._manifest.splits
        }
        # Traced once, not once per slice.
        self._finish = tf.function(self._finish_of, autograph=False)

    @property
    def slices(self) -> dict[str, list[range]]:
        """Split -> numbers of the files of each slice."""
        size = FILES_PER_SLICE
        if self.views.stride_s is not None:
            size = FILES_PER_SLICE_OF_WINDOWS
        return {
            split: [
                range(start, min(start + size, len(rows)))
                for start in range(0, len(rows), size)
            ]
            for split, rows in self._rows.items()
        }

    def open(
        self, wanted: Sequence[tuple[str, range]], batch_size: int
    ) -> Iterator[Slice]:
        """Yields some slices, (split, numbers), in turn.

        A slice must be used up before the next one is asked for.
        """
        rows = [self._rows[split][i] for split, ids in wanted for i in ids]
        tasks = [(row, self.spec, self.views, self._modalities) for row in rows]
        events = workers.run_in_order(read_clips, tasks, self._num_workers)
        undone = iter(rows)
        try:
            for _, ids in wanted:
                records: list[Looked] = []
                of_slice = [next(undone) for _ in ids]

                def views_of(of_slice=of_slice, records=records) -> Iterator[tuple]:
                    for row in of_slice:
                        yield from self._views(row, events, records)

                yield Slice(self._batches(views_of, batch_size), records)
        finally:
            # The pipeline of a slice that was left half-way may be waiting in it.
            with contextlib.suppress(ValueError):
                events.close()

    def _views(
        self,
        row: Any,
        events: Iterator[workers.Event],
        records: list[Looked],
    ) -> Iterator[tuple]:
        """The views of one file, as they are decoded; notes the file in `records`."""
        spec = self.spec
        black = np.zeros(
            (spec.num_frames, spec.short_side, spec.short_side, 3), np.uint8
        )
        silence = np.zeros(spec.num_samples, np.int16)
        found = Found(row.start_s, 0.0, (), np.zeros(0))
        num_clips, fault = 0, None
        for event in events:
            match event:
                case workers.Result(Found() as found):
                    continue
                case workers.Result(MediaClip(video, waveform)):
                    for crop in range(self.views.crops):
                        yield (
                            black if video is None else video,
                            silence if waveform is None else waveform,
                            crop,
                        )
                    num_clips += 1
                    continue
                case workers.Failed(RejectedError() as error):
                    fault = (error.reason, error.detail)
                case workers.Crashed(how, reason):
                    fault = (reason, how)
            break
        records.append(
            Looked(
                video_id=row.path,
                start_s=found.start_s,
                duration_s=found.duration_s,
                label=self._manifest.class_id(row),
                fold=row.fold,
                partitions=row.partitions,
                has=found.has,
                starts_s=found.starts_s[:num_clips],
                fault=fault,
            )
        )

    def _batches(self, views: Any, batch_size: int) -> Iterator[Batch]:
        spec = self.spec
        signature = (
            tf.TensorSpec((spec.num_frames, None, None, 3), tf.uint8),
            tf.TensorSpec((spec.num_samples,), tf.int16),
            tf.TensorSpec((), tf.int32),
        )
        clips = tf.data.Dataset.from_generator(views, output_signature=signature)
        clips = clips.map(self._finish, num_parallel_calls=workers.available_cores())
        for found in batch(clips, batch_size).as_numpy_iterator():
            yield pad(found, batch_size)

    def _finish_of(
        self, video: tf.Tensor, waveform: tf.Tensor, crop: tf.Tensor
    ) -> Tensors:
        shape = tf.shape(video)
        none = tf.constant(-1)
        clip = {"video": video, "waveform": waveform, "clip_id": none, "label": none}
        place = view_crop(self.views, shape[1] > shape[2], crop)
        return preprocess(self.spec, clip, {**centre_choices(), "crop": place})


def _ranges(lengths: Sequence[int]) -> list[range]:
    """Consecutive ranges of given lengths, from 0 on; without empty ones."""
    ends = np.cumsum(lengths).tolist()
    return [range(a, b) for a, b in zip([0, *ends], ends, strict=False) if b > a]
