"""XDC on Kinetics-400 with the full-size encoders, for a TPU slice. Not run yet.

    xdc pretrain --config=configs/xdc_kinetics.py --data=DIR --workdir=DIR

Clips of 8 frames at 112 px and the clusters of the authors' gallery: 128 of audio, 64
of video. What the paper's sources do not state is a stand-in, marked as such in
xdc_jax/config.py.
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg, pretrain_config


def get_config(arg: str | None = None) -> ConfigDict:
    return parse_arg(pretrain_config(), arg)
