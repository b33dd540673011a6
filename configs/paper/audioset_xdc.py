r"""XDC on AudioSet, two million videos.

    xdc prepare --dataset=audioset --data_dir=~/audioset --out=data/audioset
    xdc pretrain --config=configs/paper/audioset_xdc.py --data=data/audioset \
        --workdir=runs/audioset_xdc

TPU v5e-8: at least 7 hours if no iteration ends early (50 epochs of 2 million clips,
and features of them 6 times; estimate, not run; how it is made:
configs/paper/shared.py). Features take 8 GB of the host's memory. The authors released
the video encoder, r2plus1d_18_xdc_audioset.

Of the paper [R]: the method, and that an iteration ends when the held-out loss
saturates. Unverified: the number of videos, clips of 8 frames, 2 s of sound as 100 x 40
log-mel. Stand-ins: 64 video and 128 audio clusters as on Kinetics (k sets both),
optimizer, 5 iterations of at most 10 epochs of one clip per video.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.clustered(
        "audioset_xdc", "xdc", clips_per_record=1, iterations=5, epochs=10
    )
    return parse_arg(config, arg)
