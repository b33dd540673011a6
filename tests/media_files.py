"""Small media files with known content."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_media(
    path: Path,
    *,
    pictures=None,
    fps=25,
    picture_start_s=0.0,
    samples=None,
    rate=16_000,
    sound_start_s=0.0,
    codecs=("ffv1", "pcm_s16le"),
):
    """Writes `[time, height, width]` grey pictures and `[samples]` mono sound."""
    with av.open(path, "w") as container:
        if pictures is not None:
            video = container.add_stream(codecs[0], rate=fps)
            video.height, video.width = pictures.shape[1:]
            video.pix_fmt = "gray" if codecs[0] == "ffv1" else "yuv420p"
            # MPEG codecs count in frames; FFV1 takes pictures at any time.
            tick_s = Fraction(1, 90_000) if codecs[0] == "ffv1" else 1 / Fraction(fps)
            video.codec_context.time_base = tick_s
        if samples is not None:
            sound = container.add_stream(codecs[1], rate=rate)
            sound.layout = "mono"
        if pictures is not None:
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                frame.time_base = tick_s
                frame.pts = round((picture_start_s + i / fps) / tick_s)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if samples is not None:
            kind = {"int16": "s16", "float32": "flt"}[samples.dtype.name]
            frame = av.AudioFrame.from_ndarray(
                samples[None], format=kind, layout="mono"
            )
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(sound_start_s * rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def flash_and_click(
    path: Path, at_s, *, duration_s=2.0, fps=25, picture_start_s=0.0, sound_start_s=0.0
):
    """A file that flashes white for a frame and clicks at `at_s` on its own clock."""
    num_frames = round((duration_s - picture_start_s) * fps)
    pictures = np.zeros((num_frames, 48, 64), np.uint8)
    pictures[round((at_s - picture_start_s) * fps)] = 255
    samples = np.zeros(round((duration_s - sound_start_s) * 16_000), np.int16)
    samples[round((at_s - sound_start_s) * 16_000)] = 30_000
    return write_media(
        path,
        pictures=pictures,
        fps=fps,
        picture_start_s=picture_start_s,
        samples=samples,
        sound_start_s=sound_start_s,
    )


def numbered_pictures(count, size=(24, 32)):
    """Picture i is grey of level `8 * i` modulo 256."""
    levels = (8 * np.arange(count) % 256).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None], (count, *size)).copy()
