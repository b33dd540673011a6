"""What came of a preparation: counts, by measured values of the clips."""

import collections
import dataclasses
import math
from collections.abc import Mapping

from etils import epath

from data_pipelines.manifest import Manifest
from data_pipelines.shard_writer import PartReport

# A clip is counted as silent below this level, dB of full scale; ...
SILENT_DB = -60.0
# ... as near-still below this mean change from one picture to the next, of 255; ...
NEAR_STILL = 0.5
# ... as short below this, seconds.
SHORT_S = 0.5
MARKS = (
    "without_sound",
    "without_pictures",
    "silent",
    "near_still",
    "short",
    "duplicates",
)


@dataclasses.dataclass(frozen=True)
class Counts:
    """What came of the sources.

    Attributes:
      sources: rows of the manifest.
      missing: files that the data set lists and that are not there.
      bad_rows: rows of the data set's lists that cannot be read.
      rejected: sources that failed, or the rest of them.
      reasons: how many for each reason.
      clips: records.
      media_hours: their length.
      bytes: size of the shards.
      without_sound: clips; likewise the following.
      without_pictures: only sound.
      silent: quieter than `SILENT_DB`.
      near_still: less motion than `NEAR_STILL`.
      short: shorter than `SHORT_S`.
      duplicates: with the pictures and sound of an earlier clip of the split.
    """

    sources: int
    missing: int
    bad_rows: int
    rejected: int
    reasons: dict[str, int]
    clips: int
    media_hours: float
    without_sound: int
    without_pictures: int
    silent: int
    near_still: int
    short: int
    duplicates: int
    bytes: int = 0

    @property
    def reasons_text(self) -> str:
        """The reasons, the most frequent first."""
        by_count = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {reason}" for reason, count in by_count)

    def describe(self, out_dir: epath.Path) -> str:
        """All of it in one line, without what there is none of."""
        text = [f"{self.clips} clips of {self.sources} files"]
        for name in MARKS:
            if number := getattr(self, name):
                text.append(f"{number} {name.replace('_', ' ')}")
        if self.rejected:
            text.append(f"{self.rejected} files rejected ({self.reasons_text})")
        if self.missing:
            text.append(f"{self.missing} files missing")
        if self.bad_rows:
            text.append(f"{self.bad_rows} bad rows")
        text.append(f"{self.media_hours:.3f} hours of media")
        text.append(f"{self.bytes / 1e6:.1f} MB")
        return f"{out_dir}: {', '.join(text)}"


def count(
    manifest: Manifest, reports: Mapping[str, Mapping[epath.Path, PartReport]]
) -> Counts:
    """Counts what the parts of each split report."""
    reasons: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    media_s = 0.0
    for of_split in reports.values():
        seen: set[str] = set()
        for report in of_split.values():
            reasons.update(reason for _, reason, _ in report.rejected)
            for clip in report.clips:
                media_s += float(clip["duration_s"])
                level_db, motion = float(clip["level_db"]), float(clip["motion"])
                found["clips"] += 1
                found["without_sound"] += math.isnan(level_db)
                found["without_pictures"] += math.isnan(motion)
                found["silent"] += level_db < SILENT_DB
                found["near_still"] += motion < NEAR_STILL
                found["short"] += float(clip["duration_s"]) < SHORT_S
                found["duplicates"] += clip["digest"] in seen
                seen.add(clip["digest"])
    return Counts(
        sources=len(manifest.rows),
        missing=len(manifest.missing),
        bad_rows=len(manifest.problems),
        rejected=sum(reasons.values()),
        reasons=dict(reasons),
        media_hours=media_s / 3600,
        clips=found["clips"],
        **{name: found[name] for name in MARKS},
    )
