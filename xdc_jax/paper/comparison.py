"""The paper's tables with our results in their cells."""

import dataclasses

from xdc_jax.paper.measured import Measured, Setting, Summary, summarize
from xdc_jax.paper.published import GALLERY_CLUSTERS, TABLES, Column, Published, Row

_SVM_CLIP_S = 2.0  # what the audio protocol takes
# Clips per record and crops per clip that tables do not mention.
_USUAL_TEST = {"dcase2014": (60, 1)}


@dataclasses.dataclass(frozen=True)
class Line:
    """A cell of a table of the paper.

    Attributes:
        row: its pretraining.
        column: its downstream result.
        published: the paper's number, None where none is known.
        ours: None where nothing was run.
        remarks: what a reader must know of ours.
    """

    row: Row
    column: Column
    published: Published | None
    ours: Summary | None
    remarks: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, per cent; None where there is only one of them."""
        if self.ours is None or self.published is None:
            return None
        return self.ours.mean - self.published.percent


def compare(
    found: dict[Setting, Measured],
) -> tuple[dict[str, list[Line]], dict[Setting, Summary]]:
    """Puts results into the cells of the paper's tables.

    Runs of several settings that belong into one cell, as of our own and of released
    weights, are a line each.

    Args:
        found: setting -> results.

    Returns:
        table name -> a line or more per cell, row by row; setting -> summary of what
        belongs into no cell.
    """
    rest = {setting: summarize(setting, runs) for setting, runs in found.items()}
    summaries = dict(rest)
    tables = {}
    for table in TABLES:
        lines = tables[table.name] = []
        for row in table.rows:
            for column, number in zip(table.columns, row.published, strict=True):
                fitting = [s for s in summaries if _fits(row, column, s)]
                for setting in fitting:
                    ours = summaries[setting]
                    remarks = ours.remarks + _remarks(row, setting)
                    lines.append(Line(row, column, number, ours, remarks))
                    rest.pop(setting, None)
                if not fitting:
                    lines.append(Line(row, column, number, None, ()))
    return tables, rest


def _fits(row: Row, column: Column, setting: Setting) -> bool:
    """Whether runs belong into the cell of a row and a column."""
    clusters = (setting.k_video, setting.k_audio)
    if row.k:
        same_clusters = clusters == (row.k, row.k)
    else:  # Released weights do not say how many; scratch has none.
        same_clusters = clusters in ((None, None), GALLERY_CLUSTERS)
    return (
        same_clusters
        and setting.official
        and setting.label_fraction == 1
        and row.pretraining is not None
        and setting.pretraining in (row.pretraining, row.released)
        and (setting.data, setting.modality) == (column.data, column.modality)
        and setting.protocol == column.protocol
        and column.num_frames in (None, setting.num_frames)
        and column.crop_size in (None, setting.crop_size)
    )


def _remarks(row: Row, setting: Setting) -> tuple[str, ...]:
    remarks = []
    if setting.pretraining == row.released:
        remarks.append("released weights")
    test = (setting.test_clips, setting.test_crops)
    if None not in test and test != _USUAL_TEST.get(setting.data, (10, 1)):
        remarks.append(f"{test[0]} test clips x {test[1]} crops")
    if setting.protocol == "svm" and setting.clip_s != _SVM_CLIP_S:
        seconds = "?" if setting.clip_s is None else f"{setting.clip_s:g}"
        remarks.append(f"clips of {seconds} s")
    return tuple(remarks)
