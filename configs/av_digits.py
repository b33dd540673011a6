r"""Moving handwritten digits (MNIST) paired with spoken digits (FSDD).

    xdc prepare --dataset=av_digits --data_dir=../shared/data/digits --num_test=3000 \
        --short_side=32 --jpeg_quality=95 --out=runs/data/av_digits
    xdc pretrain --config=configs/av_digits.py --data=runs/data/av_digits \
        --workdir=runs/av_digits/xdc

Two CPU cores, about 8 minutes. Linear probe over 3 seeds: video 0.967, audio 0.999
(README.md).
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
        short_side=32,
        crop_size=30,
        random_crop=True,
        flip=False,
        audio_duration_s=0.9,
        mel_frames=90,
        window_ms=25.0,
        freq_mask=6,
        time_mask=8,
    )
    config.video_normalization = "clip"
    config.video_model.update(width=12, stage_sizes=(1, 1, 1, 1))
    config.audio_model.update(width=16, stage_sizes=(1, 1, 1, 1))
    config.clustering.update(k_video=32, k_audio=32, k_joint=32, whiten_dim=64)
    config.update(iterations=5, epochs=4, batch_size=16, held_out=0.0)
    config.optimizer.update(lr_video=0.8, lr_audio=0.8, warmup_epochs=0.5)
    config.probe_every_iteration = True
    return parse_arg(config, arg)
