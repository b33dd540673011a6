import importlib
from pathlib import Path

import pytest

from data_pipelines.clip_spec import ClipSpec
from xdc_jax import config as config_lib
from xdc_jax import finetune_config
from xdc_jax.errors import UserError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "configs").rglob("*.py")
    if path.stem not in ("__init__", "shared")
)
FINETUNE = [name for name in CONFIGS if name.startswith("configs.finetune_")]
PRETRAIN = [name for name in CONFIGS if name not in FINETUNE]


@pytest.mark.parametrize("name", PRETRAIN)
def test_every_config_is_valid_and_takes_arguments(name):
    get_config = importlib.import_module(name).get_config
    config_lib.check(get_config())
    config = get_config("method=sdc,k=32,optimizer.momentum=0.5")
    config_lib.check(config)
    assert config.method == "sdc"
    assert config.clustering.k_video == config.clustering.k_audio == 32
    assert config.optimizer.momentum == 0.5
    ClipSpec(**config.clip)


@pytest.mark.parametrize("name", FINETUNE)
def test_every_finetuning_config_is_valid_and_takes_arguments(name):
    get_config = importlib.import_module(name).get_config
    finetune_config.check(get_config())
    config = get_config(
        "train=fc_only,clip.num_frames=32,clip.crop_size=224,"
        "clip.short_side=256,label_fraction=0.5"
    )
    finetune_config.check(config)
    assert config.train == "fc_only"
    assert config.label_fraction == 0.5
    spec = ClipSpec(**config.clip)
    assert (spec.num_frames, spec.crop_size, spec.short_side) == (32, 224, 256)


def test_arguments_keep_the_type_of_the_default():
    arg = "sync_bn=true,video_model.stage_sizes=1+2,optimizer.lr_audio=1,seed=7"
    config = config_lib.parse_arg(config_lib.pretrain_config(), arg)
    assert config.sync_bn is True
    assert config.video_model.stage_sizes == (1, 2)
    assert isinstance(config.optimizer.lr_audio, float)
    assert config.seed == 7


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("optimizer.lr_vidoe=1", "did you mean 'optimizer.lr_video'.*Known keys"),
        ("nonsense=1", "unknown config key 'nonsense'"),
        ("k=many", "k_video='many': expected a value like 64"),
        ("sync_bn=maybe", "sync_bn='maybe': expected a value like False"),
        ("method", "'method': expected key=value"),
    ],
)
def test_bad_arguments_are_errors_that_help(arg, message):
    with pytest.raises(UserError, match=message):
        config_lib.parse_arg(config_lib.pretrain_config(), arg)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("method=moco", "config.method is 'moco'; expected one of sdc, mdc"),
        ("batch_size=0", "config.batch_size is 0; expected at least 1"),
        ("k=0", "config.clustering.k_video is 0"),
        ("dtype=float16", "config.dtype is 'float16'"),
        ("held_out=1", "config.held_out is 1.0"),
        ("held_out=0,patience=2", "config.patience needs held-out clips"),
        ("optimizer.schedule=linear", "config.optimizer.schedule is 'linear'"),
    ],
)
def test_values_that_cannot_work_are_errors(arg, message):
    config = config_lib.parse_arg(config_lib.pretrain_config(), arg)
    with pytest.raises(UserError, match=message):
        config_lib.check(config)


def test_keys_missing_or_unknown_in_a_file_are_errors():
    config = config_lib.pretrain_config()
    config.optimizer.nesterov = True
    with pytest.raises(UserError, match=r"unknown config key 'optimizer\.nesterov'"):
        config_lib.check(config)
    config = config_lib.pretrain_config()
    del config.clip.fps
    with pytest.raises(UserError, match=r"config\.clip\.fps is missing"):
        config_lib.check(config)
