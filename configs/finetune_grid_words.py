r"""Lip reading and hearing with labels: the words of the GRID corpus, one speaker.

    xdc finetune --config=configs/finetune_grid_words.py --data=runs/data/grid_words \
        --weights=runs/grid_words/xdc_0 --workdir=runs/finetuned/grid_words

The encoders are those of configs/grid_words.py; `modality=audio` for the other one.
A few labels: `label_fraction=0.01,clips_per_record=20`. The classifier alone:
`train=fc_only,optimizer.lr_head=16`. Results are in README.md.
"""

from ml_collections import ConfigDict

from configs import grid_words
from xdc_jax.config import parse_arg
from xdc_jax.finetune_config import finetune_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = small(grid_words.get_config(), finetune_config())
    return parse_arg(config, arg)


def small(pretraining: ConfigDict, config: ConfigDict) -> ConfigDict:
    """Fits a finetuning config to the small encoders of a pretraining config."""
    config.clip = pretraining.clip
    config.video_normalization = pretraining.video_normalization
    config.video_model = pretraining.video_model
    config.audio_model = pretraining.audio_model
    config.dtype = pretraining.dtype
    config.update(epochs=5, clips_per_record=1, batch_size=16, test_clips=1)
    config.optimizer.update(
        lr_head=0.4,
        lr_body=0.4,
        weight_decay=1e-4,
        warmup_epochs=0.5,
        schedule="cosine",
    )
    return config
