"""Sub-clips of a recording without pictures, against a naive cut of the waveform.

The audio protocol of the paper: clips of 2 seconds, evenly spread over a recording,
10 of 5 s (ESC-50) and 60 of 30 s (DCASE).
"""

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines import audio
from data_pipelines.clip_spec import ClipSpec
from data_pipelines.clips import ClipData
from data_pipelines.extraction import MediaSource, PreparedSource
from data_pipelines.views import Views
from tests.clip_records import collect, make_record, noise, write
from tests.media_files import write_media

RATE = 16_000
SPEC = ClipSpec(fps=8 / 2.0)  # as of --window_s=2, with the default 8 frames


def naive_cuts(samples, count, length_s=2.0):
    """The middle of each of `count` equal parts of the possible starts."""
    spare = len(samples) / RATE - length_s
    for i in range(count):
        start = round((i + 0.5) / count * spare * RATE)
        yield samples[start : start + round(length_s * RATE)]


def log_mels(cuts):
    """One at a time, as the pipeline makes them: sums may round otherwise."""
    return np.concatenate(
        [
            audio.log_mel(
                tf.constant(np.float32(cut)[None] / 2**15),
                mel_frames=SPEC.mel_frames,
                mel_bins=SPEC.mel_bins,
                hop=SPEC.hop,
                window=SPEC.window,
            ).numpy()
            for cut in cuts
        ]
    )


def prepared_source(samples, views, tmp_path):
    record = make_record(np.random.default_rng(0), "a.wav", num_frames=0)
    object.__setattr__(record, "audio", samples)
    prepared = write(tmp_path / "p", {"train": [record]})
    return PreparedSource(ClipData(prepared, SPEC, seed=0), views)


def media_source(samples, views, tmp_path):
    (tmp_path / "media").mkdir()
    write_media(tmp_path / "media" / "a.wav", samples=samples)
    return MediaSource(tmp_path / "media", SPEC, views, ("audio",), num_workers=1)


@pytest.mark.parametrize("make_source", [prepared_source, media_source])
@pytest.mark.parametrize(("duration_s", "count"), [(5, 10), (30, 60), (2, 3)])
def test_clips_are_evenly_spread(make_source, duration_s, count, tmp_path):
    samples = noise(np.random.default_rng(duration_s), duration_s * RATE)
    source = make_source(samples, Views(clips=count), tmp_path)
    slices = source.open([("train", range(1))], 16)
    piece = next(slices)
    found = collect(piece.batches)
    (record,) = piece.records
    assert record.has == ("audio",)
    cuts = list(naive_cuts(samples, count))
    assert {len(cut) for cut in cuts} == {2 * RATE}
    assert found["mask"].sum() == len(record.starts_s) == count
    np.testing.assert_allclose(
        found["audio"][found["mask"]][..., 0], log_mels(cuts), atol=1e-4
    )
    steps = np.diff(record.starts_s)
    np.testing.assert_allclose(steps, (duration_s - 2) / count, atol=1e-6)
    # Together they hear nearly all of it.
    spare = (duration_s - 2) / count / 2
    assert record.starts_s[0] == pytest.approx(spare, abs=1e-6)
    assert record.starts_s[-1] + 2 == pytest.approx(duration_s - spare, abs=1e-6)
