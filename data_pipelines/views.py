"""The clips of a record whose features are wanted: in time, in space, or windows."""

import dataclasses

import numpy as np
from jaxtyping import Float

from data_pipelines.clip_spec import ClipSpec
from xdc_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Views:
    """Which clips of each record are looked at.

    Attributes:
      clips: clips per record, evenly spread over its length; one is the centre.
      crops: 1 takes the centre square of a clip, 3 both ends and the centre of its
        longer side.
      stride_s: a clip every so many seconds from the record's start on, instead of
        `clips`; the last one ends with the record or before.
    """

    clips: int = 1
    crops: int = 1
    stride_s: float | None = None

    def __post_init__(self):
        if self.clips < 1:
            raise UserError(f"clips: found {self.clips}, expected at least 1.")
        if self.crops not in (1, 3):
            raise UserError(f"crops: found {self.crops}, expected 1 or 3.")
        if self.stride_s is not None and not 0 < self.stride_s < float("inf"):
            raise UserError(f"stride_s: found {self.stride_s}, expected more than 0.")

    def starts(self, spec: ClipSpec, duration_s: float) -> Float[np.ndarray, " clips"]:
        """Returns when the clips of a record start, seconds from its start."""
        spare = max(duration_s - spec.num_frames / spec.fps, 0.0)
        if self.stride_s is None:
            return (np.arange(self.clips) + 0.5) / self.clips * spare
        # A record is as long as its frames say, to a rounding error.
        return np.arange(int(spare / self.stride_s + 1e-6) + 1) * self.stride_s
