"""VGG-Sound: ten-second clips, one of some 300 sounds each.

The list is the owners' vggsound.csv, without a header: YouTube id, start in whole
seconds, label, `train` or `test`. The clips are `<id>_<start>.<suffix>`, such as
-0RWZT-miFs_000030.mp4, or `<id>_<start>_<end>.<suffix>`, with or without leading zeros,
anywhere below the folder. Listed clips without a file are missing, as <id>_<start>.mp4.
"""

from pathlib import Path

from data_pipelines.datasets import youtube
from data_pipelines.datasets.collection import Collection, whole_number
from data_pipelines.manifest import Manifest

_COLUMNS = 'youtube_id,start_s,"label",train|test'


def build(data_dir: Path, seed: int) -> Manifest:
    """The clips of the list; `seed` has no effect.

    Raises:
      UserError: no list or two, or no clip.
    """
    del seed
    collection = Collection(data_dir, "VGG-Sound: vggsound.csv and the clips it lists")
    lists = collection.lists(r"vggsound\.csv", lambda match: "")
    if not lists:
        raise collection.lacks("vggsound.csv")
    clips = youtube.by_id(collection.media)
    class_names = set()
    for line, cells in collection.cells(lists[""], 4, _COLUMNS):
        youtube_id, start, label, split = cells
        start_s = whole_number(start)
        if (
            not youtube.is_id(youtube_id)
            or start_s is None
            or not label
            or split not in ("train", "test")
        ):
            collection.problem(line, repr(line.text), _COLUMNS)
            continue
        class_names.add(label)
        collection.add_listed(
            line,
            youtube.clip_from(clips.get(youtube_id, ()), start_s),
            f"{youtube_id}_{start_s:06d}.mp4",
            label=label,
            split=split,
        )
    return collection.manifest(class_names)
