"""Media files of a digit that moves over a noisy background, with a given sound."""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, Int16, UInt8
from PIL import Image

from data_pipelines import workers
from data_pipelines.manifest import Manifest, read_manifest, write_manifest
from data_pipelines.progress import Progress
from data_pipelines.shards import SAMPLE_RATE_HZ


@dataclasses.dataclass(frozen=True)
class Scene:
    """What the pictures of a data set look like.

    Attributes:
      size: side of the square pictures, pixels.
      num_frames: pictures per clip.
      fps: pictures per second.
      digit_size: smallest and largest side of the digit, pixels.
      speed: largest speed along an axis, pixels per frame.
      contrast: smallest and largest brightness of the digit over the ground, of 255.
      noise: largest standard deviation of the noise of a picture, of 255.
    """

    size: int
    num_frames: int
    fps: int | Fraction
    digit_size: tuple[int, int]
    speed: float
    contrast: tuple[float, float]
    noise: float

    @property
    def num_samples(self) -> int:
        """Samples of sound that are as long as the pictures."""
        return round(self.num_frames * SAMPLE_RATE_HZ / self.fps)


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip to make.

    Attributes:
      path: relative to the media folder; the parent is the split.
      label: name of the class.
      sources: what `Maker` makes it from.
      seed: everything random in the clip follows from it.
    """

    path: str
    label: str
    sources: Any
    seed: tuple[int, ...]


# Writes a clip below a folder. Runs in a worker process.
Maker = Callable[[tuple[Path, Clip]], Sequence[None]]


def build_clips(
    media_dir: Path, clips: Sequence[Clip], make: Maker, num_workers: int
) -> Manifest:
    """Makes the clips in worker processes, and their manifest."""
    for split in {Path(clip.path).parent for clip in clips}:
        (media_dir / split).mkdir(parents=True)
    tasks = [(media_dir, clip) for clip in clips]
    num_made = 0
    with Progress(len(clips), "clip", "made") as progress:
        for event in workers.run_in_order(make, tasks, num_workers):
            match event:
                case workers.Failed(error):
                    raise error
                case workers.Crashed(how):
                    raise RuntimeError(f"{media_dir}: making a clip failed: {how}")
            num_made += 1
            progress.update(num_made, num_made)
    manifest_path = media_dir / "manifest.csv"
    write_manifest(
        manifest_path,
        (
            {
                "path": clip.path,
                "label": clip.label,
                "split": Path(clip.path).parent.as_posix(),
            }
            for clip in clips
        ),
    )
    return read_manifest(manifest_path)


def render(
    digit: Float[np.ndarray, "rows columns"], scene: Scene, rng: np.random.Generator
) -> UInt8[np.ndarray, "time size size"]:
    """Pictures of a digit (0 ground, 1 ink) that drifts and bounces off the edges."""
    side = int(rng.integers(scene.digit_size[0], scene.digit_size[1] + 1))
    ink = np.asarray(
        Image.fromarray(np.float32(digit)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    ).clip(0, 1)
    contrast = rng.uniform(*scene.contrast)
    # The level leaves room for the digit, so that its contrast is not cut off.
    level = rng.uniform(0, 255 - contrast)
    noise = rng.uniform(0.3, 1.0) * scene.noise
    pictures = level + _clutter(scene, noise, rng)
    room = scene.size - side
    start = rng.uniform(0, room, 2)
    velocity = rng.uniform(-scene.speed, scene.speed, 2)
    for i, picture in enumerate(pictures):
        row, column = _bounce(start + i * velocity, room)
        picture[row : row + side, column : column + side] += contrast * ink
    pictures += rng.normal(0, noise, pictures.shape)
    return pictures.clip(0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    pictures: UInt8[np.ndarray, "time size size"],
    fps: int | Fraction,
    samples: Int16[np.ndarray, " samples"],
) -> None:
    """Writes a Matroska file: H.264 and FLAC, both from time 0."""
    with av.open(path, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=fps)
        video.width, video.height = pictures.shape[2], pictures.shape[1]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        video.options = {"preset": "superfast", "crf": "18", "bf": "0"}
        audio = container.add_stream("flac", rate=SAMPLE_RATE_HZ)
        audio.layout = "mono"
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = i, 1 / Fraction(fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def _clutter(
    scene: Scene, noise: float, rng: np.random.Generator
) -> Float[np.ndarray, "time size size"]:
    """A cloudy background that stays where it is."""
    cells = rng.normal(0, 2 * noise, (scene.size // 8 + 1,) * 2).astype(np.float32)
    clouds = np.asarray(
        Image.fromarray(cells).resize((scene.size,) * 2, Image.Resampling.BICUBIC)
    )
    return np.repeat(clouds[None].astype(np.float64), scene.num_frames, axis=0)


def _bounce(position: Float[np.ndarray, "2"], room: int) -> tuple[int, int]:
    """Folds a straight path back and forth between 0 and `room`."""
    folded = room - np.abs(position % (2 * room) - room) if room else 0 * position
    return round(folded[0]), round(folded[1])
