"""How the files and labels of each data set become a manifest.

A builder is called as `build(media_dir, data_dir=, num_train=, num_test=, seed=,
num_workers=)`; None for a size takes the builder's own. It writes media files to
`media_dir` where it makes any.
"""

from collections.abc import Callable

from data_pipelines.datasets import av_digits, digits_tones, grid_words
from data_pipelines.manifest import Manifest

BUILDERS: dict[str, Callable[..., Manifest]] = {
    "av_digits": av_digits.build,
    "digits_tones": digits_tones.build,
    "grid_words": grid_words.build,
}
