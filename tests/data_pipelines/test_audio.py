"""The log-mel front end against NumPy/SciPy, on real sound where it is there."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.fft
import scipy.io.wavfile
import scipy.signal
import tensorflow as tf

from data_pipelines import audio

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"
SETTINGS = {"mel_frames": 100, "mel_bins": 40, "hop": 320, "window": 640}


def reference_log_mel(samples, mel_frames, mel_bins, hop, window):
    """The docstring of `audio.log_mel` written in NumPy and SciPy, in float64."""
    nfft = 2 ** int(np.ceil(np.log2(window)))
    hann = scipy.signal.get_window("hann", window, fftbins=window % 2 == 0)
    frequencies = np.arange(nfft // 2 + 1) * 16_000 / nfft
    spectrum = np.zeros((mel_frames, nfft // 2 + 1))
    for j in range(mel_frames):
        first = j * hop - (window - hop) // 2
        covered = np.arange(first, first + window)
        inside = (covered >= 0) & (covered < len(samples))
        seen = np.where(inside, samples[np.clip(covered, 0, len(samples) - 1)], 0.0)
        spectrum[j] = np.abs(scipy.fft.rfft(seen * hann, nfft))
    mels = 1127 * np.log1p(frequencies / 700)
    edges = np.linspace(0, 1127 * np.log1p(8000 / 700), mel_bins + 2)
    filters = np.stack(
        [np.interp(mels, edges[m : m + 3], [0, 1, 0]) for m in range(mel_bins)], axis=1
    )
    filters[0] = 0  # no constant component
    power = (spectrum @ filters) ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-10) / max(power.max(), 1e-10))
    decibels = np.maximum(decibels, -80.0)
    return (decibels - decibels.mean()) / np.sqrt(decibels.var() + 1e-5)


def fsdd_sounds():
    files = sorted((DATA / "digits" / "fsdd").rglob("*.wav"))[::375]
    for file in files:
        rate, samples = scipy.io.wavfile.read(file)
        assert rate == 8000
        yield file.name, scipy.signal.resample_poly(samples / 2**15, 2, 1)


def esc10_sounds():
    av = pytest.importorskip("av")
    for file in sorted((DATA / "esc10" / "audio").glob("*.flac"))[::50]:
        with av.open(str(file)) as container:
            frames = [f.to_ndarray()[0] for f in container.decode(audio=0)]
        yield file.name, np.concatenate(frames) / 2**15


@pytest.mark.parametrize(
    ("folder", "sounds"), [("digits/fsdd", fsdd_sounds), ("esc10", esc10_sounds)]
)
@pytest.mark.parametrize(
    "settings",
    [SETTINGS, {"mel_frames": 64, "mel_bins": 40, "hop": 160, "window": 256}],
)
def test_log_mel_equals_scipy_on_real_sound(folder, sounds, settings):
    if not (DATA / folder).is_dir():
        pytest.skip(f"real sound is not at ../shared/data/{folder}")
    length = settings["mel_frames"] * settings["hop"]
    names, waveforms = zip(*sounds(), strict=True)
    waveforms = [np.pad(w[:length], (0, max(0, length - len(w)))) for w in waveforms]
    assert len(names) >= 8
    ours = audio.log_mel(tf.constant(np.stack(waveforms), tf.float32), **settings)
    for name, waveform, found in zip(names, waveforms, ours.numpy(), strict=True):
        expected = reference_log_mel(waveform, **settings)
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0, err_msg=name)


@pytest.mark.parametrize(("hop", "window"), [(320, 640), (160, 400), (400, 401)])
def test_log_mel_equals_scipy_on_noise_of_odd_sizes(hop, window):
    waveform = np.random.default_rng(0).normal(size=(2, 30 * hop)) * [[0.1], [1e-3]]
    settings = {"mel_frames": 30, "mel_bins": 23, "hop": hop, "window": window}
    ours = audio.log_mel(tf.constant(waveform, tf.float32), **settings).numpy()
    assert ours.shape == (2, 30, 23)
    for row in range(2):
        expected = reference_log_mel(waveform[row], **settings)
        np.testing.assert_allclose(ours[row], expected, atol=1e-3, rtol=0)


def test_a_click_is_loudest_in_the_frame_of_its_hop():
    for sample in (0, 159, 160, 5000, 31_999):
        waveform = np.zeros((1, 32_000), np.float32)
        waveform[0, sample] = 1.0
        ours = audio.log_mel(tf.constant(waveform), **SETTINGS).numpy()
        loudest = int(ours[0].mean(axis=1).argmax())
        assert loudest == sample // 320


def test_a_clip_does_not_depend_on_its_neighbours_in_the_batch():
    rng = np.random.default_rng(1)
    quiet, loud = rng.normal(size=(2, 32_000)) * [[1e-4], [0.5]]
    together = audio.log_mel(tf.constant([quiet, loud], tf.float32), **SETTINGS)
    alone = audio.log_mel(tf.constant([quiet], tf.float32), **SETTINGS)
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)


def test_standardised_and_silence_is_zeros():
    noise = np.random.default_rng(2).normal(size=32_000)
    waveforms = np.stack([noise, np.zeros(32_000)]).astype(np.float32)
    found = audio.log_mel(tf.constant(waveforms), **SETTINGS).numpy()
    assert abs(found[0].mean()) < 1e-4
    assert abs(found[0].std() - 1) < 1e-3
    np.testing.assert_array_equal(found[1], np.zeros((100, 40)))


@pytest.mark.parametrize(("mask", "axis"), [(audio.freq_mask, 2), (audio.time_mask, 1)])
def test_masks_are_one_band_per_clip_of_every_width_and_place(mask, axis):
    clips, widest = 2000, 3
    spectrogram = tf.ones([clips, 8, 6])
    uniform = tf.random.stateless_uniform([clips, 2], seed=[1, 2])
    found = mask(spectrogram, widest, uniform).numpy()
    np.testing.assert_array_equal(found, mask(spectrogram, widest, uniform).numpy())
    lines = found.min(axis=3 - axis)
    np.testing.assert_array_equal(lines, found.max(axis=3 - axis))  # whole lines
    size = lines.shape[1]
    bands = set()
    for line in lines:
        masked = np.flatnonzero(line == 0)
        if len(masked):
            assert masked[-1] - masked[0] + 1 == len(masked)
        bands.add((len(masked), masked[0] if len(masked) else -1))
    places = {(w, s) for w in range(1, widest + 1) for s in range(size - w + 1)}
    assert bands == places | {(0, -1)}


def test_a_mask_may_be_as_wide_as_the_spectrogram():
    uniform = tf.constant([[0.999999, 0.999999]])
    assert not audio.freq_mask(tf.ones([1, 3, 4]), 4, uniform).numpy().any()


def test_import_hides_the_two_plugin_warnings_and_no_others():
    code = (
        "import warnings; from data_pipelines import audio;"
        "warnings.warn('file system plugins are not loaded: by someone else')"
    )
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unable to load" not in done.stderr
    assert done.stderr.count("file system plugins") == 1
    assert "by someone else" in done.stderr
