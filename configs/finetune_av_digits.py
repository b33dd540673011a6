r"""Digits with labels: moving handwritten ones, or spoken ones.

    xdc finetune --config=configs/finetune_av_digits.py --data=runs/data/av_digits \
        --weights=runs/av_digits/xdc_0 --workdir=runs/finetuned/av_digits

The encoders are those of configs/av_digits.py; `modality=audio` for the other one.
A few labels: `label_fraction=0.01,clips_per_record=20`. The classifier alone:
`train=fc_only,optimizer.lr_head=16`. Video, 1 % of the labels, one seed: 0.958
with XDC, 0.405 from scratch (README.md).
"""

from ml_collections import ConfigDict

from configs import av_digits
from configs.finetune_grid_words import small
from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = small(av_digits.get_config(), finetune_config())
    return parse_arg(config, arg)
