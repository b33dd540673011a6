r"""Finetuning on HMDB51, video: the mean over three official splits.

    xdc prepare --dataset=hmdb51 --data_dir=~/hmdb51 --segment_s=100 --out=data/hmdb51
    xdc finetune --config=configs/finetune_hmdb51.py --data=data/hmdb51 \
        --weights=r2plus1d_18_xdc_audioset --workdir=runs/audioset_xdc_hmdb51
    xdc finetune --config=configs/finetune_hmdb51.py:train=fc_only --data=data/hmdb51 \
        --weights=r2plus1d_18_xdc_audioset --workdir=runs/audioset_xdc_hmdb51_fc_only

Clips of 8 frames (unverified) at 112 px (a stand-in). Segments of 100 s make a record
of each video, so that each has 10 test clips. For the state of the art, 32 frames [R]
at 224 px [S], videos are prepared with `--short_side=256 --out=data/256/hmdb51`, and
the config is

    configs/finetune_hmdb51.py:clip.num_frames=32,clip.crop_size=224,clip.short_side=256

From scratch there is no encoder to be careful with: `optimizer.lr_body=0.02`.

TPU v5e-8: at least 5 minutes for the three splits, 1.3 million clips (estimate, not
run; how it is made: configs/paper/shared.py); clips of 32 frames at 224 px are 16 times
the work. The paper's values are not public. The recipe is that of GDT and SeLaVi for
the same network [R of theirs; they take 3 crops, clips of 32 frames and crops of 128
px], the same as for UCF101: the defaults of xdc_jax/finetune_config.py.
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    return parse_arg(finetune_config(), arg)
