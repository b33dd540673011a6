"""How the files and labels of each data set become a manifest.

`MADE` are made: `build(media_dir, data_dir=, num_train=, num_test=, seed=,
num_workers=)` writes media files to `media_dir`; None for a size takes the builder's
own. `FOUND` lie in a folder as their owners distribute them: `build(data_dir, seed)`
writes nothing, and only those in `SEEDED` draw from the seed. The module of each says
what it expects.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from data_pipelines.datasets import (
    audioset,
    av_digits,
    class_folders,
    dcase2014,
    digits_tones,
    esc,
    grid_words,
    hmdb51,
    kinetics,
    thumos14,
    ucf101,
    vggsound,
)
from data_pipelines.manifest import Manifest

MADE: dict[str, Callable[..., Manifest]] = {
    "av_digits": av_digits.build,
    "digits_tones": digits_tones.build,
}
FOUND: dict[str, Callable[[Path, int], Manifest]] = {
    "audioset": audioset.build,
    "audioset240k": audioset.build_240k,
    "class_folders": class_folders.build,
    "dcase2014": dcase2014.build,
    "esc10": esc.build_esc10,
    "esc50": esc.build_esc50,
    "grid_words": grid_words.build,
    "hmdb51": hmdb51.build,
    "kinetics400": functools.partial(kinetics.build, num_classes=400),
    "kinetics600": functools.partial(kinetics.build, num_classes=600),
    "kinetics700": functools.partial(kinetics.build, num_classes=700),
    "thumos14": thumos14.build,
    "ucf101": ucf101.build,
    "vggsound": vggsound.build,
}
SEEDED = frozenset(("audioset240k",))
