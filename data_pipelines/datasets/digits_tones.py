"""Digits and tones: handwritten digits in motion with their telephone-keypad tones.

Made from the 1,797 handwritten 8x8 digits that come with scikit-learn, so it needs no
download. The pictures show a digit that drifts over a noisy background; the sound is
the pair of tones that a telephone's key for that digit gives, with its pitch, level,
timing and rhythm drawn at random, in noise.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from data_pipelines.datasets.moving_digits import (
    Clip,
    Scene,
    build_clips,
    render,
    write_clip,
)
from data_pipelines.manifest import Manifest
from data_pipelines.shards import SAMPLE_RATE_HZ
from xdc_jax.errors import UserError

NUM_TRAIN = 1_400
NUM_TEST = 300
SCENE = Scene(
    size=24,
    num_frames=12,
    fps=Fraction(25, 2),
    digit_size=(14, 18),
    speed=0.8,
    contrast=(140, 230),
    noise=10,
)
# Rows and columns of the keypad, Hz (ITU-T Q.23).
_ROWS_HZ = (697, 770, 852, 941)
_COLUMNS_HZ = (1209, 1336, 1477)
_KEYS = ("123", "456", "789", " 0 ")
# One digit in five is kept for the test clips.
_TEST_EVERY = 5


def build(
    media_dir: Path,
    *,
    data_dir: str | None,
    num_train: int | None,
    num_test: int | None,
    seed: int,
    num_workers: int,
) -> Manifest:
    """Makes the clips, train and test from different handwritten digits.

    Raises:
      UserError: a data_dir is given.
    """
    if data_dir is not None:
        raise UserError(
            "digits_tones comes with scikit-learn: it needs no --data_dir. Leave it "
            "out."
        )
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    indices = np.arange(len(images))
    is_test = indices % _TEST_EVERY == 0
    sizes = {"train": num_train or NUM_TRAIN, "test": num_test or NUM_TEST}
    clips = []
    for split, pool in (("train", indices[~is_test]), ("test", indices[is_test])):
        rng = np.random.default_rng((seed, split == "test"))
        # Every digit once, in a random order, before any comes again.
        num_rounds = -(-sizes[split] // len(pool))
        order = np.concatenate([rng.permutation(pool) for _ in range(num_rounds)])
        for i, index in enumerate(order[: sizes[split]]):
            label = int(digits.target[index])
            clips.append(
                Clip(
                    path=f"{split}/{i:05d}_{label}.mkv",
                    label=str(label),
                    sources=(images[index], label),
                    seed=(seed, int(split == "test"), i),
                )
            )
    return build_clips(media_dir, clips, make_clip, num_workers)


def make_clip(task: tuple[Path, Clip]) -> tuple[()]:
    """Writes one clip."""
    media_dir, clip = task
    rng = np.random.default_rng(clip.seed)
    image, label = clip.sources
    pictures = render(image, SCENE, rng)
    samples = tones(label, SCENE.num_samples, rng)
    write_clip(media_dir / clip.path, pictures, SCENE.fps, samples)
    return ()


def tones(
    digit: int, num_samples: int, rng: np.random.Generator
) -> Int16[np.ndarray, " samples"]:
    """The tone pair of a digit's key, one or more times, in noise."""
    row = next(i for i, keys in enumerate(_KEYS) if str(digit) in keys)
    column = _KEYS[row].index(str(digit))
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    duration_s = num_samples / SAMPLE_RATE_HZ
    # Neighbouring tones lie 10 % apart: out of tune by up to 2 %, drifting by up to
    # 1 % either way.
    tune = 1 + rng.uniform(-0.02, 0.02)
    drift = 1 + rng.uniform(-0.01, 0.01) * np.linspace(-1, 1, num_samples)
    phase = 2 * np.pi * np.cumsum(tune * drift) / SAMPLE_RATE_HZ
    low = np.sin(_ROWS_HZ[row] * phase + rng.uniform(0, 2 * np.pi))
    high = np.sin(_COLUMNS_HZ[column] * phase + rng.uniform(0, 2 * np.pi))
    signal = low + _gain(rng.uniform(-6, 6)) * high
    # One to four presses of the key, anywhere in the clip.
    period_s = duration_s / rng.integers(1, 5)
    press_s = period_s * rng.uniform(0.4, 0.8)
    offset_s = rng.uniform(0, period_s)
    signal *= (time_s - offset_s) % period_s < press_s
    noise = _gain(rng.uniform(-10, 15))
    samples = signal / np.sqrt(np.mean(signal**2)) + rng.normal(0, noise, num_samples)
    samples *= _gain(rng.uniform(-24, -10)) / np.sqrt(1 + noise**2)
    return (samples * 32767).clip(-32768, 32767).astype(np.int16)


def _gain(level_db: float) -> float:
    return 10 ** (level_db / 20)
