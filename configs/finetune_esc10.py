r"""Environmental sounds, 5 folds of ESC-10, from an encoder that heard spoken words.

    xdc prepare --dataset=esc10 --data_dir=../shared/data/esc10 --out=runs/data/esc10
    xdc finetune --config=configs/finetune_esc10.py --data=runs/data/esc10 \
        --weights=runs/grid_words/xdc_0 --workdir=runs/finetuned/esc10

The encoder is the audio one of configs/grid_words.py, with its clips of 0.57 s; those
of a recording are many, so ten of them are averaged in the test. Results are in
README.md.
"""

from ml_collections import ConfigDict

from configs import grid_words
from configs.finetune_grid_words import small
from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = small(grid_words.get_config(), finetune_config())
    config.update(modality="audio", epochs=10, clips_per_record=4, test_clips=10)
    return parse_arg(config, arg)
