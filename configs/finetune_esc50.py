r"""Finetuning on ESC-50, audio: the mean over five official folds.

    xdc prepare --dataset=esc50 --data_dir=~/ESC-50 --out=data/esc50
    xdc finetune --config=configs/finetune_esc50.py --data=data/esc50 \
        --weights=runs/audioset_xdc --workdir=runs/audioset_xdc_esc50
    xdc finetune --config=configs/finetune_esc50.py:train=fc_only --data=data/esc50 \
        --weights=runs/audioset_xdc --workdir=runs/audioset_xdc_esc50_fc_only

No audio encoder was released: the weights are a run of `xdc pretrain`. From scratch
there is no encoder to be careful with: `optimizer.lr_body=0.02`.

TPU v5e-8: minutes, 1 million clips of sound alone (estimate, not run). The paper's
values are not public. Unverified: clips of 2 s as 100 x 40 log-mel, and 10 of them per
recording in testing (counts as in CrissCross [R of theirs]). The optimizer is the
recipe of GDT and SeLaVi for video [R of theirs], here without any evidence for audio:
the defaults of xdc_jax/finetune_config.py.
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = finetune_config()
    config.modality = "audio"
    config.audio_model.name = "audio_resnet18"
    config.clip.audio_duration_s = 2.0
    config.test_clips = 10
    return parse_arg(config, arg)
