r"""Finetuning on Kinetics-400, video: trained on split train, tested on val.

    xdc prepare --dataset=kinetics400 --data_dir=~/kinetics400 --out=data/kinetics400
    xdc finetune --config=configs/finetune_kinetics.py --data=data/kinetics400 \
        --weights=r2plus1d_18_xdc_audioset --workdir=runs/audioset_xdc_kinetics400
    xdc finetune --config=configs/finetune_kinetics.py:train=fc_only \
        --data=data/kinetics400 --weights=r2plus1d_18_xdc_audioset \
        --workdir=runs/audioset_xdc_kinetics400_fc_only

For clips of 32 frames at 224 px, videos are prepared with `--short_side=256
--out=data/256/kinetics400`, and the config is

    configs/finetune_kinetics.py:clip.num_frames=32,clip.crop_size=224,clip.short_side=256

A few labels: `label_fraction=0.01`.

TPU v5e-8: at least 3 hours, 43 million clips (estimate, not run; how it is made:
configs/paper/shared.py). The paper has no such result, as far as is known. The recipe
is VMZ's for Kinetics (its PyTorch port) [R of VMZ]: 45 epochs of about a million clips,
10 of them warm-up, 0.01 per 32 clips, a tenth of it from epochs 20, 30 and 40 on.
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = finetune_config()
    config.update(batch_size=256, epochs=45, clips_per_record=4)
    config.optimizer.update(
        lr_head=0.08,  # for 256 clips
        lr_body=0.08,
        weight_decay=1e-4,
        warmup_epochs=10.0,
        step_epochs=(20, 30, 40),
        step_factor=0.1,
    )
    return parse_arg(config, arg)
