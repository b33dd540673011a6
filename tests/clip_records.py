"""Prepared data made in memory for the tests of clips, and how they are read."""

import dataclasses
import io

import numpy as np
import PIL.Image
from etils import epath

from data_pipelines import shard_writer, shards
from data_pipelines.clips import ClipSpec

SMALL = ClipSpec(
    num_frames=2,
    fps=10.0,
    short_side=16,
    crop_size=12,
    audio_duration_s=0.4,
    mel_frames=10,
    mel_bins=8,
)


def jpeg(image):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def smooth_image(rng, height, width):
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), PIL.Image.Resampling.BICUBIC))


def noise(rng, samples):
    return rng.normal(0, 3000, samples).astype(np.int16)


def make_record(rng, name, num_frames=9, samples=14_400, size=(16, 20), label=-1):
    frames = [jpeg(smooth_image(rng, *size)) for _ in range(num_frames)]
    sound = noise(rng, samples)
    return shards.Record(name, 0.0, 10.0 if frames else 0.0, frames, sound, label)


def write(folder, splits, class_names=(), records_per_shard=7):
    """Writes split -> records as a prepared directory, and opens it."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    reports = {}
    for split, records in splits.items():
        records = list(records)
        reports[split] = {}
        for start in range(0, len(records), records_per_shard):
            path = epath.Path(folder) / "parts" / f"{split}-{start:05d}"
            writer = shard_writer.PartWriter(path)
            for record in records[start : start + records_per_shard]:
                writer.write(record)
            writer.close()
            reports[split][path] = shard_writer.read_report(path)
    summary = shard_writer.make_shards(epath.Path(folder), reports, tuple(class_names))
    shard_writer.write_summary(epath.Path(folder), summary)
    return shards.open_prepared(folder)


def make_splits():
    rng = np.random.default_rng(0)
    names = [f"{i}.mp4" for i in range(24)]
    ordinary = [make_record(rng, name, label=i % 2) for i, name in enumerate(names)]
    odd = [
        make_record(rng, "no_sound", samples=0),
        make_record(rng, "no_picture", num_frames=0),
        dataclasses.replace(
            make_record(rng, "silent"), audio=np.zeros(14_400, np.int16)
        ),
        make_record(rng, "short", num_frames=1, samples=1600),
        make_record(rng, "portrait", size=(40, 24)),
        make_record(rng, "landscape", size=(23, 47)),
    ]
    return {"train": ordinary, "odd": odd}


def collect(batches):
    batches = list(batches)
    return {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def one_epoch(data, epoch=0, batch_size=8, draws=None, **settings):
    if draws is None:
        draws = np.ones(24, np.int32)
    return collect(
        data.train_batches(
            "train", batch_size=batch_size, epoch=epoch, draws=draws, **settings
        )
    )
