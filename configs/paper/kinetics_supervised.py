r"""Both encoders trained with the labels of Kinetics-400, to compare with.

    xdc prepare --dataset=kinetics400 --data_dir=~/kinetics400 --out=data/kinetics400
    xdc pretrain --config=configs/paper/kinetics_supervised.py --data=data/kinetics400 \
        --workdir=runs/kinetics_supervised

TPU v5e-8: at least 2.6 hours (45 epochs of 0.96 million clips; estimate, not run; how
it is made: configs/paper/shared.py). The authors released a video encoder of this kind,
r2plus1d_18_fs_kinetics.

The recipe is VMZ's for R(2+1)D-18 on Kinetics [R of VMZ], a stand-in for the paper's,
which is not public, as for the audio encoder. Unverified: clips of 8 frames, 2 s of
sound as 100 x 40 log-mel.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.supervised("kinetics_supervised", clips_per_record=4)
    config.test_split = "val"  # of the linear probe at the end
    return parse_arg(config, arg)
