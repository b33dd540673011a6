r"""Finetuning on DCASE 2014 acoustic scenes, audio: trained on train, tested on test.

    xdc prepare --dataset=dcase2014 --data_dir=~/dcase --segment_s=60 \
        --out=data/dcase2014
    xdc finetune --config=configs/finetune_dcase.py --data=data/dcase2014 \
        --weights=runs/audioset_xdc --workdir=runs/audioset_xdc_dcase2014
    xdc finetune --config=configs/finetune_dcase.py:train=fc_only \
        --data=data/dcase2014 --weights=runs/audioset_xdc \
        --workdir=runs/audioset_xdc_dcase2014_fc_only

Segments of 60 s make a record of each recording, so that each has 60 test clips. No
audio encoder was released: the weights are a run of `xdc pretrain`. The paper's table
has a linear SVM on this set (unverified), see `xdc tables`; this is finetuning. From
scratch there is no encoder to be careful with: `optimizer.lr_body=0.02`.

TPU v5e-8: minutes, 72,000 clips of sound alone (estimate, not run). Unverified: clips
of 2 s as 100 x 40 log-mel, and 60 of them per recording in testing (counts as in
CrissCross [R of theirs]), the test set. The optimizer is the recipe of GDT and SeLaVi
for video [R of theirs], here without any evidence for audio: the defaults of
xdc_jax/finetune_config.py. Of each recording, 60 clips are drawn in an epoch, a
stand-in.
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = finetune_config()
    config.modality = "audio"
    config.audio_model.name = "audio_resnet18"
    config.clip.audio_duration_s = 2.0
    config.clips_per_record = 60
    config.test_clips = 60
    return parse_arg(config, arg)
