"""The demonstration: moving handwritten digits paired with telephone-keypad tones.

    xdc prepare --dataset=digits_tones --out=runs/digits_tones
    xdc pretrain --config=configs/digits_tones.py --data=runs/digits_tones \
        --workdir=runs/demo_xdc
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg, pretrain_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = pretrain_config()
    config.dtype = "float32"
    config.clip.update(
        num_frames=6,
        fps=12.5,
        short_side=32,
        crop_size=32,
        random_crop=False,
        flip=False,
        audio_duration_s=0.8,
        mel_frames=64,
        window_ms=32.0,
    )
    for model in (config.video_model, config.audio_model):
        model.width, model.stage_sizes = 8, (1, 1, 1, 1)
    config.clustering.update(k_video=40, k_audio=40, k_joint=40)
    config.iterations, config.epochs, config.batch_size = 4, 3, 64
    config.optimizer.update(lr_video=0.2, lr_audio=0.2)
    config.log_every_steps = 20
    config.probe_every_iteration = True
    return parse_arg(config, arg)
