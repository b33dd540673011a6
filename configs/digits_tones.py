r"""The demonstration: moving handwritten digits paired with telephone-keypad tones.

    xdc prepare --dataset=digits_tones --out=runs/digits_tones
    xdc pretrain --config=configs/digits_tones.py --data=runs/digits_tones \
        --workdir=runs/demo_xdc
"""

from ml_collections import ConfigDict

from xdc_jax.config import parse_arg, pretrain_config


def get_config(arg: str | None = None) -> ConfigDict:
    config = pretrain_config()
    config.clips_per_record = 1
    config.dtype = "float32"
    config.clip.update(
        num_frames=4,
        fps=5.0,
        short_side=24,
        crop_size=24,
        random_crop=False,
        flip=False,
        audio_duration_s=0.8,
        mel_frames=64,
        window_ms=25.0,
    )
    config.video_normalization = "clip"
    for model in (config.video_model, config.audio_model):
        model.width, model.stage_sizes = 8, (1, 1, 1, 1)
    config.clustering.update(k_video=40, k_audio=40, k_joint=40, whiten_dim=32)
    config.update(iterations=4, epochs=5, batch_size=32, held_out=0.0)
    config.optimizer.update(lr_video=0.4, lr_audio=0.4, warmup_epochs=0.5)
    config.probe_every_iteration = True
    return parse_arg(config, arg)
