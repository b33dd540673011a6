r"""XDC on 65 million random videos (IG-Random). The data is not public.

    xdc prepare --manifest=ig65m_random.csv --out=data/ig65m_random
    xdc pretrain --config=configs/paper/ig65m_random_xdc.py \
        --data=data/ig65m_random --workdir=runs/ig65m_random_xdc

At the rate of a TPU v5e-8 at least 35 hours (4 epochs of 65 million clips, and features
of them 5 times; estimate, not run; how it is made: configs/paper/shared.py). But
features of 65 million clips take 133 GB per modality. The host holds both, and copies,
and the last assignment of k-means places one modality on the devices: more than the 128
GB of a v5e-8. Take a part of the videos there.

The authors released the video encoder, r2plus1d_18_xdc_ig65m_random. Of the paper [R]:
the method and the data's name. Unverified: the size. Unverified too: clips of 8 frames,
2 s of sound as 100 x 40 log-mel. Stand-ins: 64 video and 128 audio clusters as on
Kinetics (k sets both), mini-batch k-means, optimizer, 4 iterations of one epoch of one
clip per video, which is too short to wait for saturation as the paper does.
"""

from ml_collections import ConfigDict

from configs.paper import shared
from xdc_jax.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    config = shared.clustered(
        "ig65m_random_xdc", "xdc", clips_per_record=1, iterations=4, epochs=1
    )
    config.held_out = 0.001  # 65,000 clips tell the loss as well as 3 million
    config.optimizer.warmup_epochs = 0.05
    # Eight passes in batches of 65,536. Scaling to length 1 would take one device the
    # memory of all features.
    config.clustering.update(batch_size=65536, max_iters=8, l2_normalize=False)
    return parse_arg(config, arg)
