"""Our results, from the results.json of every run below a folder."""

import dataclasses
import json
import os
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xdc_jax.errors import UserError
from xdc_jax.paper.published import OFFICIAL_PARTS

# verb that wrote a row -> the accuracy that tables show, of whole videos or recordings
_MEASURES = {"finetune": "video_top1", "evaluate": "svm"}

Seed = tuple[int | None, int]  # of the pretraining, of what came after it


@dataclasses.dataclass(frozen=True)
class Setting:
    """What runs have in common that differ in their seed and part alone.

    Attributes:
        data: name of the data set.
        modality: `video` or `audio`.
        pretraining: its name.
        protocol: `full`, `fc_only` or `svm`.
        k_video: clusters of the pretraining; None where not known, or none were made.
        k_audio: as `k_video`.
        label_fraction: share of the labels that were learned from.
        num_frames: of a video clip; None of audio.
        crop_size: of a video clip, pixels; None of audio.
        test_clips: per record; None where not known.
        test_crops: per clip; None where not known.
        clip_s: length of a clip of `xdc evaluate`, seconds; None where not known.
        official: whether the parts are the data set's official ones.
    """

    data: str
    modality: str
    pretraining: str
    protocol: str
    k_video: int | None
    k_audio: int | None
    label_fraction: float
    num_frames: int | None
    crop_size: int | None
    test_clips: int | None
    test_crops: int | None
    clip_s: float | None
    official: bool


Measured = dict[Seed, dict[str, float]]  # seed -> part -> accuracy, a share


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the runs of a setting come to.

    Attributes:
        mean: over seeds, of the mean over parts; per cent.
        std: sample standard deviation over seeds, per cent; None of a single one.
        num_seeds: how many are in the mean.
        parts: the parts, in words.
        remarks: what a reader must know, such as parts that are missing.
    """

    mean: float
    std: float | None
    num_seeds: int
    parts: str
    remarks: tuple[str, ...]


def collect(folder: Path) -> tuple[dict[Setting, Measured], list[str]]:
    """Reads every results.json below a folder, but for hidden folders.

    Of two results of one setting, seed and part, that of the newer file counts.

    Returns:
        setting -> results; notes about rows that are not among them.

    Raises:
        UserError: there is no such folder, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"--runs: found no folder {folder}, expected one that holds runs of `xdc "
            "finetune` or `xdc evaluate`; make an empty one to see the paper's tables"
        )
    origin: dict[tuple[Setting, Seed, str], tuple[float, Path]] = {}
    notes, num_others = [], 0
    for path in sorted(_files(folder), key=lambda path: (path.stat().st_mtime, path)):
        for number, row in enumerate(_rows(path), 1):
            if row.get("verb") not in _MEASURES:
                num_others += 1
                continue
            try:
                key, share = _parse(row)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: row {number} is not a result of `xdc {row['verb']}` "
                    f"({error!r}); repair it, or move it out of {folder}"
                ) from error
            old_share, old_path = origin.get(key, (share, path))
            if old_share != share:
                setting, (_, seed), part = key
                notes.append(
                    f"{setting.pretraining} on {setting.data}, {part}, seed {seed}: "
                    f"{100 * old_share:.1f} in {old_path} is passed over, because "
                    f"{path} is newer and has {100 * share:.1f}."
                )
            origin[key] = share, path
    if num_others:
        notes.append(
            f"Not shown: {num_others} rows of other kinds than `xdc finetune` and "
            "`xdc evaluate` write."
        )
    found: dict[Setting, Measured] = {}
    for (setting, seed, part), (share, _) in origin.items():
        found.setdefault(setting, {}).setdefault(seed, {})[part] = share
    return found, notes


def summarize(setting: Setting, measured: Measured) -> Summary:
    """Returns mean and deviation over seeds of the mean over parts.

    A seed that lacks parts is left out where another has all of them.
    """
    seen = sorted({part for parts in measured.values() for part in parts})
    expected = OFFICIAL_PARTS[setting.data] if setting.official else tuple(seen)
    complete = {
        seed: parts for seed, parts in measured.items() if set(parts) == set(expected)
    }
    used = complete or measured
    remarks = []
    if not complete:
        remarks.append(_missing(used, seen, expected))
    elif left_out := len(measured) - len(complete):
        seeds = "seed" if left_out == 1 else "seeds"
        remarks.append(f"{left_out} incomplete {seeds} left out")
    means = [100 * statistics.fmean(parts.values()) for parts in used.values()]
    return Summary(
        mean=statistics.fmean(means),
        std=statistics.stdev(means) if len(means) > 1 else None,
        num_seeds=len(means),
        parts=", ".join(seen),
        remarks=tuple(remarks),
    )


def _missing(used: Measured, seen: list[str], expected: tuple[str, ...]) -> str:
    """Says which parts there are: `split 1 of 3`, `folds 1, 4 of 5`."""
    if len({frozenset(parts) for parts in used.values()}) > 1:
        return f"seeds differ in parts, of {len(expected)}"
    kind = seen[0].partition(" ")[0] + ("s" if len(seen) > 1 else "")
    numbers = ", ".join(part.partition(" ")[2] for part in seen)
    return f"{kind} {numbers} of {len(expected)}"


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError):
        raise error

    for parent, children, names in os.walk(folder, onerror=fail):
        children[:] = [name for name in children if not name.startswith(".")]
        if "results.json" in names:
            yield Path(parent) / "results.json"


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text())["rows"]
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise TypeError("rows is not a list of objects")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: found {error!r}, expected {{"rows": [...]}} as xdc writes it; '
            "the file is damaged: run again what wrote it, or move it away"
        ) from error
    return rows


def _parse(row: Mapping[str, Any]) -> tuple[tuple[Setting, Seed, str], float]:
    """Returns what a row measures, and the accuracy."""
    verb = row["verb"]
    name = _MEASURES[verb]
    share = row[name]
    if not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ValueError(f"{name} is {share!r}, expected a share from 0 to 1")
    row = {**row, "pretraining": row["pretraining"] or "unknown"}
    for key in ("data", "part", "modality", "pretraining"):
        if not isinstance(row[key], str):
            raise TypeError(f"{key} is {row[key]!r}, expected a string")
    part = row["part"]
    is_video = row["modality"] == "video"
    setting = Setting(
        data=row["data"],
        modality=row["modality"],
        pretraining=row["pretraining"],
        protocol=row["train"] if verb == "finetune" else "svm",
        k_video=row.get("k_video"),
        k_audio=row.get("k_audio"),
        label_fraction=row["label_fraction"],
        num_frames=row.get("num_frames") if is_video else None,
        crop_size=row.get("crop_size") if is_video else None,
        # `xdc evaluate` counts all clips under `test_clips`.
        test_clips=row.get("test_clips" if verb == "finetune" else "clips_per_record"),
        test_crops=row.get("test_crops" if verb == "finetune" else "crops"),
        clip_s=row.get("clip_s") if verb == "evaluate" else None,
        official=part in OFFICIAL_PARTS.get(row["data"], ()),
    )
    return (setting, (row.get("pretraining_seed"), row["seed"]), part), share
