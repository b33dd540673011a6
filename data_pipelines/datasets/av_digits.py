"""AV-Digits: a moving MNIST digit, paired with a spoken digit of the same class (FSDD).

Training clips pair MNIST training images with takes 5 to 49 of each FSDD speaker, test
clips t10k images with takes 0 to 4, as both data sets have it.
"""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Int16, UInt8

from data_pipelines.datasets.moving_digits import (
    Clip,
    Scene,
    build_clips,
    render,
    write_clip,
)
from data_pipelines.manifest import Manifest
from data_pipelines.sound import read_samples
from xdc_jax.errors import UserError

SCENE = Scene(
    size=32,
    num_frames=16,
    fps=16,
    digit_size=(24, 28),
    speed=1.0,
    contrast=(140, 230),
    noise=5,
)
_MNIST = {"train": "train", "test": "t10k"}
_NUM_TEST_TAKES = 5


def build(
    media_dir: Path,
    *,
    data_dir: str | None,
    num_train: int | None,
    num_test: int | None,
    seed: int,
    num_workers: int,
) -> Manifest:
    """Makes one clip per spoken digit, or as many as asked for.

    `data_dir` holds the four MNIST .gz files and `fsdd/*.wav`.

    Raises:
      UserError: no data_dir, a file is missing or is not what it should be.
    """
    if data_dir is None:
        raise UserError(
            "av_digits: give --data_dir, the folder with MNIST's four .gz files and "
            "fsdd/*.wav."
        )
    takes = _find_takes(Path(data_dir) / "fsdd")
    sizes = {"train": num_train, "test": num_test}
    clips = []
    for split, prefix in _MNIST.items():
        images = read_idx(Path(data_dir) / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(Path(data_dir) / f"{prefix}-labels-idx1-ubyte.gz")
        rng = np.random.default_rng((seed, split == "test"))
        num_clips = sizes[split] or len(takes[split])
        # Every take once, in a random order, before any comes again; a new image each.
        num_rounds = -(-num_clips // len(takes[split]))
        order = np.concatenate(
            [rng.permutation(len(takes[split])) for _ in range(num_rounds)]
        )
        unused = {
            d: iter(rng.permutation(np.flatnonzero(labels == d))) for d in range(10)
        }
        for i, index in enumerate(order[:num_clips]):
            digit, wav = takes[split][index]
            image = next(unused[digit], None)
            if image is None:
                raise UserError(
                    f"--num_{split}={num_clips}: MNIST has only "
                    f"{np.sum(labels == digit)} images of a {digit}. Ask for fewer."
                )
            clips.append(
                Clip(
                    path=f"{split}/{i:05d}_{digit}.mkv",
                    label=str(digit),
                    sources=(images[image], str(wav)),
                    seed=(seed, int(split == "test"), i),
                )
            )
    return build_clips(media_dir, clips, make_clip, num_workers)


def make_clip(task: tuple[Path, Clip]) -> tuple[()]:
    """Writes one clip."""
    media_dir, clip = task
    rng = np.random.default_rng(clip.seed)
    image, wav = clip.sources
    pictures = render(image / np.float32(255), SCENE, rng)
    samples = place(read_samples(wav), SCENE.num_samples, rng)
    write_clip(media_dir / clip.path, pictures, SCENE.fps, samples)
    return ()


def place(
    take: Int16[np.ndarray, " take"], num_samples: int, rng: np.random.Generator
) -> Int16[np.ndarray, " samples"]:
    """A take somewhere in a clip, in faint noise; too long ones lose their ends."""
    surplus = max(0, len(take) - num_samples)
    take = take[surplus // 2 : surplus // 2 + num_samples]
    samples = rng.normal(0, 10, num_samples)
    start = rng.integers(0, num_samples - len(take) + 1)
    samples[start : start + len(take)] += take
    return samples.clip(-32768, 32767).astype(np.int16)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Reads a gzipped file of unsigned bytes in the IDX format of MNIST.

    Raises:
      UserError: it is missing, or is no such file.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        zeros, kind, num_axes = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{num_axes}I", data[4 : 4 + 4 * num_axes])
        if (zeros, kind) != (0, 8):
            raise ValueError(f"starts with {data[:4].hex()}, not 0000 08")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * num_axes).reshape(shape)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not found; expected --data_dir to hold MNIST's four .gz files."
        ) from error
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise UserError(
            f"{path}: not a gzipped IDX file ({error}). Fetch it again."
        ) from error


def _find_takes(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Digit and file of every recording, `{digit}_{speaker}_{take}.wav`, sorted."""
    takes: dict[str, list[tuple[int, Path]]] = {"train": [], "test": []}
    for path in sorted(folder.glob("*.wav")):
        match = re.fullmatch(r"(\d)_[a-z]+_(\d+)", path.stem)
        if match:
            split = "test" if int(match[2]) < _NUM_TEST_TAKES else "train"
            takes[split].append((int(match[1]), path))
    if not takes["train"] or not takes["test"]:
        raise UserError(
            f"{folder}: found {len(takes['train'])} training and {len(takes['test'])} "
            "test recordings named {digit}_{speaker}_{take}.wav; expected those of the "
            "Free Spoken Digit Dataset."
        )
    return takes
