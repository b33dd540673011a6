"""Clips in memory with the interface of `data_pipelines.clips.ClipData`."""

from types import SimpleNamespace

import numpy as np


class ArrayClips:
    """Random clips of a few classes that show and sound alike within a class."""

    def __init__(self, num_train, num_test, num_classes=4, seed=0):
        rng = np.random.default_rng(seed)
        looks = rng.integers(0, 256, (num_classes, 4, 16, 16, 3))
        sounds = rng.normal(size=(num_classes, 16, 8, 1))
        self.class_names = tuple(f"class_{i}" for i in range(num_classes))
        self.fingerprint = f"arrays-{num_train}-{num_test}-{seed}"
        self.data_dir = "arrays"
        self.splits, self._arrays = ("train", "test"), {}
        for split, n in (("train", num_train), ("test", num_test)):
            label = rng.integers(0, num_classes, n).astype(np.int32)
            noise = rng.normal(0, 40, (n, 4, 16, 16, 3))
            self._arrays[split] = {
                "video": np.clip(looks[label] + noise, 0, 255).astype(np.uint8),
                "audio": (sounds[label] + rng.normal(0, 0.5, (n, 16, 8, 1))).astype(
                    np.float32
                ),
                "clip_id": np.arange(n, dtype=np.int32),
                "label": label,
            }

    def num_clips(self, split):
        return len(self._arrays[split]["label"])

    def labels(self, split):
        return self._arrays[split]["label"]

    def index(self, split):
        """The columns of `shards.SplitIndex` that concern labels."""
        n = self.num_clips(split)
        return SimpleNamespace(
            label=self.labels(split),
            video_id=np.array([f"{split}_{i}" for i in range(n)]),
            fold=np.full(n, -1),
            partitions=np.full(n, ""),
        )

    def usable(self, split, modalities=("video", "audio")):
        return np.ones(self.num_clips(split), bool)

    def kept(self, split, **_):
        return np.ones(self.num_clips(split), bool)

    def train_batches(
        self,
        split,
        *,
        batch_size,
        epoch,
        draws,
        start_batch=0,
        process_index=0,
        process_count=1,
    ):
        order = np.repeat(np.arange(len(draws)), draws)
        order = np.random.default_rng(epoch).permutation(order)
        rows = batch_size // process_count
        for i in range(start_batch, len(order) // batch_size):
            start = i * batch_size + process_index * rows
            yield self._batch(split, order[start : start + rows], rows)

    def eval_batches(self, split, *, batch_size, clip_ids=None, num_batches=None):
        ids = np.arange(self.num_clips(split)) if clip_ids is None else clip_ids
        for i in range(num_batches or -(-len(ids) // batch_size)):
            part = ids[i * batch_size : (i + 1) * batch_size]
            yield self._batch(split, part, batch_size)

    def view_batches(self, split, views, *, batch_size, clip_ids, num_batches=None):
        ids = np.repeat(clip_ids, views.clips * views.crops)
        yield from self.eval_batches(
            split, batch_size=batch_size, clip_ids=ids, num_batches=num_batches
        )

    def _batch(self, split, ids, batch_size):
        padded = np.concatenate([ids, np.zeros(batch_size - len(ids), ids.dtype)])
        batch = {key: array[padded] for key, array in self._arrays[split].items()}
        return {**batch, "mask": np.arange(batch_size) < len(ids)}
