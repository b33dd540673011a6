"""Waveform to log-mel spectrogram (tensorflow-io), and masks over it."""

import warnings

import tensorflow as tf
from jaxtyping import Float, Int

from data_pipelines.shards import SAMPLE_RATE_HZ

with warnings.catch_warnings():
    # tensorflow-io's native plugins do not load on current TensorFlow. Only its pure
    # TensorFlow functions are used here, so its two warnings say nothing to a user.
    warnings.filterwarnings("ignore", "unable to load libtensorflow_io_plugins")
    warnings.filterwarnings("ignore", "file system plugins are not loaded")
    import tensorflow_io as tfio

TOP_DB = 80.0  # what lies further below the loudest point of a clip is cut off
# Variance below which a clip counts as constant, dB^2.
VARIANCE_EPSILON = 1e-5


def fft_size(window: int) -> int:
    """The next power of two of a window of `window` samples."""
    return 1 << (window - 1).bit_length()


def log_mel(
    waveform: Float[tf.Tensor, "b samples"],
    *,
    mel_frames: int,
    mel_bins: int,
    hop: int,
    window: int,
) -> Float[tf.Tensor, "b {mel_frames} {mel_bins}"]:
    """Standardised log-mel spectrograms of waveforms.

    Frame j sees the `window` samples centred on the middle of hop j, (j + 1/2) * hop;
    where they reach over an end of the waveform, zeros stand in. The magnitude
    spectrum (Hann window, periodic where its length is even; FFT of the next power of
    two) is summed by triangular filters, equally wide on the mel scale
    1127 ln(1 + f/700) from 0 Hz to Nyquist, taken to decibels down to `TOP_DB` below
    the clip's maximum, and brought to mean 0 and variance 1 over the clip. Silence
    becomes zeros.

    The mel scale, range, FFT size and 40 x 100 output are those of the audio input
    operator of the paper's group (VMZ, LogMels.cc); filters of peak 1, decibels and the
    standardisation are tensorflow-io's and ours: the paper does not give its own.

    Args:
      waveform: float in [-1, 1] at 16 kHz, `mel_frames * hop` samples.
      mel_frames: frames per clip.
      mel_bins: mel filters.
      hop: samples from one frame to the next.
      window: samples a frame sees, at least `hop`.
    """
    before = (window - hop) // 2
    waveform = tf.pad(waveform, [[0, 0], [before, window - hop - before]])
    # tensorflow-io pads the end, which adds frames that start behind the last hop.
    spectrum = tfio.audio.spectrogram(
        waveform, nfft=fft_size(window), window=window, stride=hop
    )[:, :mel_frames]
    mel = tfio.audio.melscale(
        spectrum, rate=SAMPLE_RATE_HZ, mels=mel_bins, fmin=0.0, fmax=SAMPLE_RATE_HZ / 2
    )
    # The reference per clip makes every clip's maximum 0 dB, so that `top_db`, which
    # tensorflow-io counts from the maximum of the whole tensor, is per clip as well.
    decibels = tfio.audio.dbscale(mel, top_db=TOP_DB, ref=_loudest_in_clip)
    return standardise(tf.ensure_shape(decibels, [None, mel_frames, mel_bins]))


def _loudest_in_clip(power):
    return tf.reduce_max(power, axis=[1, 2], keepdims=True)


def standardise(
    spectrogram: Float[tf.Tensor, "b frames bins"],
) -> Float[tf.Tensor, "b frames bins"]:
    """Brings each clip to mean 0 and variance 1; constant clips become zeros."""
    mean, variance = tf.nn.moments(spectrogram, axes=[1, 2], keepdims=True)
    return (spectrogram - mean) * tf.math.rsqrt(variance + VARIANCE_EPSILON)


def freq_mask(
    spectrogram: Float[tf.Tensor, "b frames bins"],
    widest: int,
    uniform: Float[tf.Tensor, "b 2"],
) -> Float[tf.Tensor, "b frames bins"]:
    """Sets one band of neighbouring bins of each clip to 0, its mean.

    tensorflow-io's `freq_mask` draws from a global generator; here the two uniform
    numbers in [0, 1) per clip, for width (0 to `widest`) and place, are the caller's.
    """
    inside = _band(tf.shape(spectrogram)[2], widest, uniform)
    return tf.where(inside[:, tf.newaxis, :], 0.0, spectrogram)


def time_mask(
    spectrogram: Float[tf.Tensor, "b frames bins"],
    widest: int,
    uniform: Float[tf.Tensor, "b 2"],
) -> Float[tf.Tensor, "b frames bins"]:
    """Sets one span of neighbouring frames of each clip to 0, as `freq_mask` bins."""
    inside = _band(tf.shape(spectrogram)[1], widest, uniform)
    return tf.where(inside[:, :, tf.newaxis], 0.0, spectrogram)


def _band(
    size: Int[tf.Tensor, ""], widest: int, uniform: Float[tf.Tensor, "b 2"]
) -> tf.Tensor:
    """Bool [b, size]: True in one random band of 0 to `widest` entries per row."""
    width = tf.cast(uniform[:, 0] * (widest + 1), tf.int32)
    places = tf.cast(size - width + 1, tf.float32)
    start = tf.cast(uniform[:, 1] * places, tf.int32)
    index = tf.range(size)[tf.newaxis]
    return (index >= start[:, tf.newaxis]) & (index < (start + width)[:, tf.newaxis])
