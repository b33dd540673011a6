r"""Both encoders trained with the labels of AudioSet-240K, to compare with XDC on it.

    xdc prepare --dataset=audioset240k --data_dir=~/audioset --out=data/audioset240k
    xdc pretrain --config=configs/paper/audioset240k_supervised.py \
        --data=data/audioset240k --workdir=runs/audioset240k_supervised

TPU v5e-8: at least 2.6 hours (45 epochs of 0.96 million; estimate, not run; how it is
made: configs/paper/shared.py).

A clip of AudioSet often has several labels. Here those with several teach nothing: the
loss is the softmax cross-entropy of clips with one. What the paper did is not known.
The recipe is VMZ's for Kinetics [R of VMZ], a stand-in. Unverified: that the subset is
random and of this size, clips of 8 frames, 2 s of sound as 100 x 40 log-mel.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.supervised("audioset240k_supervised", clips_per_record=4)
    return parse_arg(config, arg)
