"""The config of a pretraining job: its keys, what they mean, and how it is checked."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from xdc_jax.clustering import targets
from xdc_jax.errors import UserError


def pretrain_config() -> ConfigDict:
    """Returns every key of a pretraining config, with the paper-scale values.

    What the paper's sources state is marked [R]; the rest are stand-ins, because the
    supplement with the optimisation settings is not public (the audio shape and the
    batch of 32 are widely quoted but unverified).
    """
    config = ConfigDict()
    config.name = ""  # of the encoders in tables of results; default: the method
    config.method = "xdc"  # a key of clustering.targets.METHODS
    config.same_modality = "video"  # what both encoders of xdc_same see
    config.seed = 0
    config.train_split = "train"
    config.test_split = "test"  # only for the probe; may be absent from the data

    # How a clip is cut from a record: the fields of data_pipelines.clips.ClipSpec.
    config.clip = ConfigDict(
        {
            "num_frames": 8,
            "fps": 30.0,
            "short_side": 128,
            "crop_size": 112,
            "random_crop": True,
            "flip": True,
            "audio_duration_s": 2.0,
            "mel_frames": 100,
            "mel_bins": 40,
            "window_ms": 40.0,
            "freq_mask": 0,
            "time_mask": 0,
        }
    )

    # Training clips that are left out, by the values that `xdc prepare` measured.
    config.filter = ConfigDict(
        {
            "min_motion": 0.0,  # change between pictures, in steps of 8-bit brightness
            "min_level_db": -120.0,  # of full scale; digital silence is at -120
            "min_duration_s": 0.0,
            "duplicates": True,  # whether exact duplicates of earlier clips stay
        }
    )

    # RGB less a mean, by a deviation: `kinetics` [R], or `clip`: the clip's own.
    config.video_normalization = "kinetics"
    config.video_model = ConfigDict(
        {"name": "r2plus1d_18", "width": 64, "stage_sizes": (2, 2, 2, 2)}
    )
    config.audio_model = ConfigDict(
        {"name": "audio_resnet18", "width": 64, "stage_sizes": (2, 2, 2, 2)}
    )
    config.dtype = "bfloat16"  # of activations; parameters are float32
    config.sync_bn = False  # batch statistics over all devices, not per device

    config.clustering = ConfigDict(
        {
            # Clusters per modality. The clusters of one modality label the other's
            # encoder. 128 audio and 64 video clusters on Kinetics [R].
            "k_video": 64,
            "k_audio": 128,
            "k_joint": 128,
            "l2_normalize": True,
            "whiten_dim": 0,  # PCA-whiten to this many dimensions first; 0 = off
            "batch_size": 0,  # mini-batch k-means of this batch size; 0 = full passes
            "max_iters": 100,
            "num_restarts": 1,
            "balanced": False,  # draw clips uniformly over clusters in training
        }
    )

    config.iterations = 5  # of deep clustering; 0 = random encoders
    config.epochs = 10  # of each iteration, at most
    config.patience = 0  # end an iteration after so many epochs without progress
    config.held_out = 0.05  # share of clips whose pseudo-labels are not trained on
    # Clips drawn from each record in an epoch: a record is read once for all of them.
    config.clips_per_record = 8

    config.batch_size = 256  # over all devices
    config.optimizer = ConfigDict(
        {
            "lr_video": 0.08,  # for 256 clips; scaled linearly with batch_size
            "lr_audio": 0.08,
            "momentum": 0.9,  # Nesterov
            "weight_decay": 1e-4,  # not on biases and BatchNorm
            "warmup_epochs": 1.0,  # linear, at the start of each iteration
            "schedule": "cosine",  # or step
            "step_epochs": (4, 8),  # for schedule=step: where lr is multiplied by
            "step_factor": 0.1,
        }
    )

    config.checkpoint_every_steps = 1000  # and at the end of each epoch
    config.log_every_steps = 50
    config.probe_every_iteration = False  # linear probe after each clustering
    return config


SHORTHANDS = {"k": ("clustering.k_video", "clustering.k_audio", "clustering.k_joint")}


def parse_arg(config: ConfigDict, arg: str | None) -> ConfigDict:
    """Applies a config argument such as `method=sdc,k=256` to `config` in place.

    Keys are those of the config, dotted where they nest (`optimizer.momentum=0`), and
    `k`, which sets the number of clusters of every modality.
    """
    for item in filter(None, (arg or "").split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"config argument {item!r}: expected key=value")
        for path in SHORTHANDS.get(key, (key,)):
            _set(config, path, value)
    return config


def _set(config: ConfigDict, path: str, text: str) -> None:
    known = {**flatten(config), **SHORTHANDS}
    if path not in known:
        raise UserError(unknown_key(path, known))
    old = known[path]
    try:
        if isinstance(old, bool):
            value = {"true": True, "false": False}[text.lower()]
        elif isinstance(old, tuple):
            value = tuple(type(old[0])(part) for part in text.split("+"))
        else:
            value = type(old)(text)
    except (KeyError, ValueError):
        raise UserError(
            f"config.{path}={text!r}: expected a value like {old!r}"
        ) from None
    node = config
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns dotted key -> value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unknown_key(key: str, known: dict[str, Any]) -> str:
    """Returns the message for a key that is not among the known ones."""
    near = difflib.get_close_matches(key, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown config key {key!r}{hint} Known keys: {', '.join(sorted(known))}"


def check(config: ConfigDict) -> None:
    """Raises UserError for unknown or missing keys and values that cannot work."""
    check_keys(config, pretrain_config())
    targets.make_plan(config.method, config.same_modality)
    check_values(
        config,
        at_least={
            "batch_size": 1,
            "epochs": 1,
            "iterations": 0,
            "patience": 0,
            "clips_per_record": 1,
            "checkpoint_every_steps": 1,
            "log_every_steps": 1,
            "clustering.k_video": 1,
            "clustering.k_audio": 1,
            "clustering.k_joint": 1,
        },
        one_of={
            "dtype": ("float32", "bfloat16"),
            "video_normalization": ("kinetics", "clip"),
            "optimizer.schedule": ("cosine", "step"),
        },
    )
    if not 0 <= config.held_out < 1:
        raise UserError(f"config.held_out is {config.held_out}; expected 0 <= x < 1")
    if config.patience and not config.held_out:
        raise UserError("config.patience needs held-out clips: set config.held_out > 0")


def check_keys(config: ConfigDict, expected: ConfigDict) -> None:
    """Raises UserError unless a config has the keys of another, and no others."""
    known, found = flatten(expected), flatten(config)
    for key in found:
        if key not in known:
            raise UserError(unknown_key(key, known))
    for key in known:
        if key not in found:
            raise UserError(f"config.{key} is missing; its default is {known[key]!r}")


def check_values(
    config: ConfigDict,
    at_least: Mapping[str, float],
    one_of: Mapping[str, Sequence[Any]],
) -> None:
    """Raises UserError for values below a minimum, or that are none of a choice."""
    found = flatten(config)
    for key, low in at_least.items():
        if found[key] < low:
            raise UserError(f"config.{key} is {found[key]}; expected at least {low}")
    for key, values in one_of.items():
        if found[key] not in values:
            raise UserError(f"config.{key} is {found[key]!r}; expected one of {values}")
