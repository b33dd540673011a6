r"""Both encoders trained with the labels of AudioSet, to compare with XDC on it.

    xdc prepare --dataset=audioset --data_dir=~/audioset --out=data/audioset
    xdc pretrain --config=configs/paper/audioset_supervised.py --data=data/audioset \
        --workdir=runs/audioset_supervised

TPU v5e-8: at least 5.4 hours (45 epochs of 2 million; estimate, not run; how it is
made: configs/paper/shared.py).

A clip of AudioSet often has several labels. Here those with several teach nothing: the
loss is the softmax cross-entropy of clips with one. What the paper did is not known.
The recipe is VMZ's for Kinetics [R of VMZ], a stand-in. Unverified: the number of
videos, clips of 8 frames, 2 s of sound as 100 x 40 log-mel.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.supervised("audioset_supervised", clips_per_record=1)
    return parse_arg(config, arg)
