"""AudioSet: ten-second clips of two million videos, several of 527 sounds each.

The lists are the owners' balanced_train_segments.csv, unbalanced_train_segments.csv and
eval_segments.csv (lines with # in front, then YouTube id, start, end, "mid,mid,..."),
those that are there, and class_labels_indices.csv or the ontology.json that explain
a mid, anywhere below the folder. Both training lists give split `train`, eval `test`.

The files, anywhere below the folder, are clips that were cut out,
`<id>_<start>.<suffix>` or `<id>_<start>_<end>.<suffix>` (seconds with or without zeros
and fractions, or milliseconds; with or without a `Y` in front) and `Y<id>.<suffix>`, or
whole videos, `<id>.<suffix>`, of which the listed interval is taken. So clips that were
cut out and named `<id>.<suffix>` must be renamed. Listed clips without a file are
missing, as <list>/<id>_<start>_<end>.mp4.

A record has one class id and a clip often several labels, in the order of their mids:
the first says nothing. So a clip with one label has it, and one with several has none.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_pipelines.datasets import youtube
from data_pipelines.datasets.collection import Collection
from data_pipelines.manifest import Manifest, Row, parse_seconds
from xdc_jax.errors import UserError

SUBSET_SIZE = 240_000
_UNBALANCED = "unbalanced_train_segments"
_SPLITS = {
    "balanced_train_segments": "train",
    _UNBALANCED: "train",
    "eval_segments": "test",
}
_COLUMNS = '11-character YouTube id, start_s, end_s, "mid,mid,..."'


def build(data_dir: Path, seed: int) -> Manifest:
    """The clips of the lists that are there; `seed` has no effect.

    Raises:
      UserError: no list of clips or of classes, or no clip.
    """
    del seed
    return _build(data_dir, _SPLITS)


def build_240k(data_dir: Path, seed: int) -> Manifest:
    """240,000 clips drawn from those of the unbalanced training list that are there.

    The paper's AudioSet-240K is, as far as is known, a random subset of the size of
    Kinetics. Which clips it holds is not published: this is another draw. Clips are
    ranked by a hash of seed and YouTube id, so that the subset depends neither on any
    order nor on where the files lie, and a clip that is gone gives its place to one
    other. Fewer than 240,000 are all taken, and a problem.

    Raises:
      UserError: no list of clips or of classes, or no clip.
    """
    whole = _build(data_dir, (_UNBALANCED,))

    def rank(row: Row) -> bytes:
        (youtube_id,) = youtube.by_id([row.path])
        return hashlib.blake2b(f"{seed} {youtube_id}".encode()).digest()

    problems = whole.problems
    if len(whole.rows) < SUBSET_SIZE:
        problems += (
            f"{data_dir}: found {len(whole.rows)} clips of {_UNBALANCED}.csv, expected "
            f"at least {SUBSET_SIZE}",
        )
    return Manifest.of(
        heapq.nsmallest(SUBSET_SIZE, whole.rows, key=rank),
        class_names=whole.class_names,
        missing=whole.missing,
        problems=problems,
    )


def _build(data_dir: Path, names: Iterable[str]) -> Manifest:
    collection = Collection(
        data_dir,
        f"AudioSet: {' or '.join(f'{name}.csv' for name in names)}, "
        "class_labels_indices.csv or ontology.json, and the clips",
    )
    lists = collection.lists(f"({'|'.join(names)})\\.csv", lambda m: m[1].lower())
    if not lists:
        raise collection.lacks(" or ".join(f"{name}.csv" for name in names))
    display_names = _display_names(collection)
    files = youtube.by_id(collection.media)
    for name, list_path in sorted(lists.items()):
        for line, cells in collection.cells(list_path, 4, _COLUMNS):
            youtube_id, start, end, mids = cells
            start_s, end_s = parse_seconds(start), parse_seconds(end)
            if (
                not youtube.is_id(youtube_id)
                or start_s is None
                or end_s is None
                or end_s <= start_s
            ):
                collection.problem(line, repr(line.text), _COLUMNS)
                continue
            labels = [display_names.get(mid.strip()) for mid in mids.split(",")]
            if None in labels:
                collection.problem(line, repr(mids), "mids of the list of classes")
                continue
            path, interval = _find(files.get(youtube_id, ()), start_s, end_s)
            collection.add_listed(
                line,
                path,
                f"{name}/{youtube_id}_{start_s:g}_{end_s:g}.mp4",
                label=labels[0] if len(labels) == 1 else "",
                split=_SPLITS[name],
                **interval,
            )
    return collection.manifest(display_names.values())


def _find(
    files: Sequence[youtube.Named], start_s: float, end_s: float
) -> tuple[str | None, dict[str, float]]:
    """The file of a clip, and the interval to take of a whole video."""
    if path := youtube.clip_from(files, start_s):
        return path, {}
    for file in files:
        if file.start is None:
            whole = {"start_s": start_s, "end_s": end_s}
            return file.path, {} if file.is_clip else whole
    return None, {}


def _display_names(collection: Collection) -> dict[str, str]:
    """Class names by mid."""
    lists = collection.lists(
        r"(class_labels_indices\.csv|ontology\.json)", lambda match: match[1].lower()
    )
    if csv_path := lists.get("class_labels_indices.csv"):
        rows = collection.table(csv_path, "mid", "display_name")
        return {row["mid"]: row["display_name"] for _, row in rows}
    if json_path := lists.get("ontology.json"):
        try:
            classes = json.loads(json_path.read_text(encoding="utf-8"))
            return {str(entry["id"]): str(entry["name"]) for entry in classes}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{json_path}: found no AudioSet ontology ({error!r}), expected a JSON "
                "list of objects with id and name. Fetch it again."
            ) from error
    raise collection.lacks("class_labels_indices.csv or ontology.json")
