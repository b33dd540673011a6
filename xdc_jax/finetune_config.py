"""The config of a finetuning job: its keys, what they mean, and how it is checked."""

from ml_collections import ConfigDict

from xdc_jax import config as config_lib
from xdc_jax.errors import UserError


def finetune_config() -> ConfigDict:
    """Returns every key of a finetuning config.

    The values are those of full finetuning on UCF101 with 8 frames at 112 px. The
    optimisation settings of the paper are in its supplement, which is not public: the
    values are a stand-in, the recipe of GDT and SeLaVi for the same network
    (PAPER_FACTS.md, section 5).
    """
    config = ConfigDict()
    config.modality = "video"  # or audio: of the encoder
    config.train = "full"  # or fc_only: the encoder stays as it is, in eval mode
    config.seed = 0
    config.label_fraction = 1.0  # share of the training videos of each class

    # How a clip is cut from a record: the fields of data_pipelines.clips.ClipSpec.
    config.clip = config_lib.pretrain_config().clip
    config.video_normalization = "kinetics"  # [R]; or clip: the clip's own
    config.video_model = config_lib.pretrain_config().video_model
    config.audio_model = config_lib.pretrain_config().audio_model
    config.dtype = "bfloat16"  # of activations; parameters are float32
    config.sync_bn = False  # batch statistics over all devices, not per device

    config.batch_size = 32  # over all devices
    config.epochs = 12
    config.clips_per_record = 10  # clips drawn from each record in an epoch
    config.optimizer = ConfigDict(
        {
            "lr_head": 0.02,  # for 256 clips; scaled linearly with batch_size
            "lr_body": 0.002,  # not used by fc_only
            "momentum": 0.9,  # Nesterov
            "weight_decay": 0.005,  # not on biases and BatchNorm
            "warmup_epochs": 2.0,  # linear
            "schedule": "step",  # or cosine
            "step_epochs": (6, 10),  # for schedule=step: where lr is multiplied by
            "step_factor": 0.05,
        }
    )
    # Clips per test record, evenly spread, and squares of each clip: 1 or 3. Softmax
    # scores are averaged over all clips of a video.
    config.test_clips = 10
    config.test_crops = 1

    config.checkpoint_every_steps = 1000  # and at the end of each epoch
    config.log_every_steps = 50
    return config


def check(config: ConfigDict) -> None:
    """Raises UserError for unknown or missing keys and values that cannot work."""
    config_lib.check_keys(config, finetune_config())
    config_lib.check_values(
        config,
        at_least={
            "batch_size": 1,
            "epochs": 1,
            "clips_per_record": 1,
            "test_clips": 1,
            "checkpoint_every_steps": 1,
            "log_every_steps": 1,
        },
        one_of={
            "modality": ("video", "audio"),
            "train": ("full", "fc_only"),
            "dtype": ("float32", "bfloat16"),
            "video_normalization": ("kinetics", "clip"),
            "optimizer.schedule": ("cosine", "step"),
            "test_crops": (1, 3),
        },
    )
    rates = config.optimizer
    before = config.epochs
    if rates.schedule == "step":
        before = min([before, *rates.step_epochs])
    if rates.warmup_epochs > before or rates.warmup_epochs >= config.epochs:
        raise UserError(
            f"config.optimizer.warmup_epochs is {rates.warmup_epochs}; expected less "
            f"than config.epochs ({config.epochs}), and no more than the first of "
            f"config.optimizer.step_epochs ({tuple(rates.step_epochs)})"
        )
    if not 0 < config.label_fraction <= 1:
        raise UserError(
            f"config.label_fraction is {config.label_fraction}; expected 0 < x <= 1"
        )
