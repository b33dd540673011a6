r"""MDC on Kinetics-400: both encoders learn both clusterings, with two heads.

    xdc prepare --dataset=kinetics400 --data_dir=~/kinetics400 --out=data/kinetics400
    xdc pretrain --config=configs/paper/kinetics_mdc.py --data=data/kinetics400 \
        --workdir=runs/kinetics_mdc

TPU v5e-8: at least 3 hours if no iteration ends early (50 epochs of 0.96 million clips;
estimate, not run; how it is made: configs/paper/shared.py).

Of the paper [R]: the method, and that an iteration ends when the held-out loss
saturates. Stand-ins: 64 video and 128 audio clusters as in the gallery of XDC (k sets
both: k=64 to 1024), equal weight of both heads, optimizer, 5 iterations of at most 10
epochs of 4 clips per video (about VMZ's epoch of 1,000,000). Unverified: clips of 8
frames, 2 s of sound as 100 x 40 log-mel.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.clustered(
        "kinetics_mdc", "mdc", clips_per_record=4, iterations=5, epochs=10
    )
    config.test_split = "val"  # of the linear probe at the end
    return parse_arg(config, arg)
