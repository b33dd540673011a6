"""Features of THUMOS14 in the layout that the public code of G-TAD reads.

Source: github.com/frostinassiky/gtad, gtad_lib/dataset.py. It opens `rgb_val.h5`,
`flow_val.h5`, `rgb_test.h5` and `flow_test.h5` in its --feature_path. Each has one
data set per video, named `video_validation_0000051`, of one row per frame; of these
every --skip_videoframes-th is used, row i standing for frame i. Flow and RGB are joined
side by side. Which videos there are, and where their actions lie, is in
`val_Annotation.csv` and `test_Annotation.csv`, in seconds and in frames.
"""

import contextlib
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from xdc_jax.errors import UserError

SPLITS = ("val", "test")
# Repeated rows lie near each other, so that the fastest level finds them.
_COMPRESSION = {"compression": "gzip", "compression_opts": 1}
_ROWS_PER_CHUNK = 64


def write(
    windows: Mapping[str, Any], annotations: Path, out: Path
) -> tuple[dict[str, int], list[str]]:
    """Writes the features of annotated videos, one row per frame.

    A frame has the features of the window whose centre is nearest to it. What G-TAD
    reads as flow has a width of 0, so that it trains on these features alone; its
    --feat_dim is their width. All four files appear once all are written.

    Args:
        windows: `video_id` -> `data_pipelines.features.Windows`.
        annotations: folder of G-TAD's two lists, which say the frame rates.
        out: folder of the four files.

    Returns:
        Split (`val`, `test`) -> number of its videos, and the annotated videos that
        have no features: G-TAD stops at these.

    Raises:
        UserError: a list is missing or damaged, two videos have one name, none is
            annotated, or features are not finite.
    """
    import h5py

    named: dict[str, str] = {}
    for video_id in windows:
        other = named.setdefault(Path(video_id).stem, video_id)
        if other != video_id:
            raise UserError(f"found two videos of one name: {other} and {video_id}")
    rates = {split: _frame_rates(annotations, split) for split in SPLITS}
    found = {split: sorted(named.keys() & rates[split]) for split in SPLITS}
    if not any(found.values()):
        raise UserError(
            f"found no video that {annotations} lists, expected file names such as "
            f"{next(iter(rates['val']), 'video_validation_0000051')}; found "
            f"{min(named, default='no video at all')}"
        )
    for split in SPLITS:
        for name in found[split]:
            if not np.isfinite(windows[named[name]].features).all():
                raise UserError(
                    f"{named[name]}: found features that are not finite numbers, "
                    "expected pictures in every window; remove the video or mend it"
                )
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with contextlib.ExitStack() as cleanup:
        for split in SPLITS:
            paths = [out / f".{kind}_{split}.h5.tmp" for kind in ("rgb", "flow")]
            for path in paths:
                cleanup.callback(path.unlink, missing_ok=True)
            written += paths
            with h5py.File(paths[0], "w") as rgb, h5py.File(paths[1], "w") as flow:
                for name in found[split]:
                    rows = per_frame(windows[named[name]], rates[split][name])
                    chunks = (min(_ROWS_PER_CHUNK, len(rows)), rows.shape[1])
                    rgb.create_dataset(name, data=rows, chunks=chunks, **_COMPRESSION)
                    flow.create_dataset(name, data=rows[:, :0])
        for temporary in written:
            temporary.replace(out / temporary.name[1 : -len(".tmp")])
    counts = {split: len(found[split]) for split in SPLITS}
    return counts, [v for split in SPLITS for v in rates[split] if v not in named]


def per_frame(windows: Any, fps: float) -> Float32[np.ndarray, "frames d"]:
    """Returns for each frame the features of the window with the nearest centre.

    Args:
        windows: `data_pipelines.features.Windows` of one video.
        fps: frames per second.
    """
    centre = (np.float64(windows.start_s) + windows.end_s) / 2
    num_frames = max(1, round(float(windows.end_s.max()) * fps))
    between = (centre[1:] + centre[:-1]) / 2
    nearest = np.searchsorted(between, np.arange(num_frames) / fps)
    return windows.features[nearest]


def _frame_rates(annotations: Path, split: str) -> dict[str, float]:
    """Returns video -> frames per second, by which a list tells frames from seconds."""
    file = annotations / f"{split}_Annotation.csv"
    ends: dict[str, list[tuple[float, float]]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.DictReader(lines):
                pair = float(row["end"]), float(row["endFrame"])
                ends.setdefault(row["video"], []).append(pair)
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); expected the folder "
            "data/thumos_annotations of the code of G-TAD as --gtad_annotations"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: expected columns video, end (seconds) and endFrame ({error!r}); "
            "take the list from the code of G-TAD"
        ) from error
    rates = {}
    for video, pairs in ends.items():
        second, frame = np.array(pairs).T
        # Least squares: both are rounded.
        rates[video] = float((second * frame).sum() / max((second**2).sum(), 1e-9))
        if not 1 <= rates[video] <= 1000:
            raise UserError(
                f"{file}: {video} has {rates[video]:g} frames per second by its end "
                "and endFrame, expected 1 to 1000; correct the list"
            )
    return rates
