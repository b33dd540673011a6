r"""XDC on AudioSet-240K: as many videos as Kinetics, drawn from AudioSet at random.

    xdc prepare --dataset=audioset240k --data_dir=~/audioset --out=data/audioset240k
    xdc pretrain --config=configs/paper/audioset240k_xdc.py --data=data/audioset240k \
        --workdir=runs/audioset240k_xdc

TPU v5e-8: at least 3 hours if no iteration ends early (50 epochs of 0.96 million clips;
estimate, not run; how it is made: configs/paper/shared.py).

Of the paper [R]: the method, and that an iteration ends when the held-out loss
saturates. Unverified: that the subset is random and of this size (which videos it had
is not known: this is another draw), clips of 8 frames, 2 s of sound as 100 x 40
log-mel. Stand-ins: 64 video and 128 audio clusters as on Kinetics (k sets both),
optimizer, 5 iterations of at most 10 epochs of 4 clips per video.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.clustered(
        "audioset240k_xdc", "xdc", clips_per_record=4, iterations=5, epochs=10
    )
    return parse_arg(config, arg)
