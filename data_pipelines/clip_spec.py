"""What is cut out of a record: the keys of `config.clip`, checked."""

import dataclasses
from typing import Any

from data_pipelines.shards import SAMPLE_RATE_HZ
from xdc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What is cut out of a record and how it looks in a batch.

    Attributes:
      num_frames: frames per clip.
      fps: frames per second of the clip, whatever the record's; frame i shows the
        instant i / fps after the clip's start.
      short_side: shorter side before cropping, pixels.
      crop_size: side of the square that is cut out, pixels.
      random_crop: crop anywhere in training; evaluation crops the centre.
      flip: mirror half of the clips in training.
      audio_duration_s: length of the sound that goes with the clip.
      mel_frames: spectrogram frames; the hop is audio_duration_s / mel_frames, rounded
        to samples.
      mel_bins: mel filters.
      window_ms: length of sound that one spectrogram frame sees.
      freq_mask: widest frequency mask in training, bins; 0 masks nothing.
      time_mask: widest time mask in training, spectrogram frames; 0 masks nothing.
    """

    num_frames: int = 8
    fps: float = 30.0
    short_side: int = 128
    crop_size: int = 112
    random_crop: bool = True
    flip: bool = True
    audio_duration_s: float = 2.0
    mel_frames: int = 100
    mel_bins: int = 40
    window_ms: float = 40.0
    freq_mask: int = 0
    time_mask: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_number(field.name, getattr(self, field.name), field.type)
        if self.crop_size > self.short_side:
            raise UserError(
                f"clip.crop_size: found {self.crop_size}, expected at most "
                f"clip.short_side ({self.short_side}). Lower it."
            )
        if self.hop < 1:
            raise UserError(
                f"clip.mel_frames: found {self.mel_frames}, expected at most "
                f"clip.audio_duration_s * {SAMPLE_RATE_HZ} samples. Lower it."
            )
        if self.window < self.hop:
            hop_ms = 1000 * self.hop / SAMPLE_RATE_HZ
            raise UserError(
                f"clip.window_ms: found {self.window_ms}, expected at least the hop "
                f"clip.audio_duration_s / clip.mel_frames = {hop_ms:g} ms: the sound "
                "between the windows would be lost. Raise clip.window_ms or "
                "clip.mel_frames."
            )
        for mask, size in (("freq_mask", "mel_bins"), ("time_mask", "mel_frames")):
            if getattr(self, mask) > getattr(self, size):
                raise UserError(
                    f"clip.{mask}: found {getattr(self, mask)}, expected at most "
                    f"clip.{size} ({getattr(self, size)}). Lower it."
                )

    @property
    def hop(self) -> int:
        """Samples from one spectrogram frame to the next."""
        return round(self.audio_duration_s * SAMPLE_RATE_HZ / self.mel_frames)

    @property
    def window(self) -> int:
        """Samples that one spectrogram frame sees."""
        return round(self.window_ms * SAMPLE_RATE_HZ / 1000)

    @property
    def num_samples(self) -> int:
        """Samples of sound per clip."""
        return self.mel_frames * self.hop

    def audio_start(self, video_start: Any, duration_s: Any, ops: Any) -> Any:
        """When the sound of a clip starts, seconds from the start of its record.

        It is centred on the pictures, then shifted as little as is needed: into the
        record, or around all of it where the record is shorter than the sound.

        Args:
          video_start: when the pictures start, seconds.
          duration_s: length of the record, seconds.
          ops: `numpy` or `tensorflow`, as the numbers are.
        """
        video_s = self.num_frames / self.fps
        audio_s = self.num_samples / SAMPLE_RATE_HZ
        spare = duration_s - audio_s
        centred = video_start + (video_s - audio_s) / 2
        lowest, highest = ops.minimum(spare, 0.0), ops.maximum(spare, 0.0)
        return ops.minimum(ops.maximum(centred, lowest), highest)


def _check_number(name: str, value, kind: type) -> None:
    """Raises a UserError unless `value` is of `kind` and in the range of its field."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is bool:
        valid, expected = isinstance(value, bool), "True or False"
    elif name in ("freq_mask", "time_mask"):
        valid, expected = (
            isinstance(value, int) and number and value >= 0,
            "an int >= 0",
        )
    elif kind is int:
        valid, expected = (
            isinstance(value, int) and number and value >= 1,
            "an int >= 1",
        )
    else:
        valid = number and 0 < value < float("inf")
        expected = "a finite number above 0"
    if not valid:
        raise UserError(f"clip.{name}: found {value!r}, expected {expected}.")
