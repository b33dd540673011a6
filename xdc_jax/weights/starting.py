"""The weights that finetuning starts from, and whether they fit its config."""

import logging
from typing import Any

from ml_collections import ConfigDict

from xdc_jax.errors import UserError
from xdc_jax.weights import layout
from xdc_jax.weights.encoder_dir import SavedEncoder

log = logging.getLogger(__name__)

SCRATCH = "scratch"  # in place of weights: random ones


def model_spec(config: ConfigDict) -> layout.ModelSpec:
    """Returns the structure of the encoder that a config asks for."""
    model = config[f"{config.modality}_model"]
    return layout.ModelSpec(model.name, model.width, tuple(model.stage_sizes))


def check(config: ConfigDict, weights: SavedEncoder | None) -> None:
    """Raises UserError unless weights are of the encoder that the config asks for."""
    if weights is None:
        if config.train == "fc_only":
            log.warning("fc_only on scratch: a classifier on random features")
        return
    found, expected = weights.spec, model_spec(config)
    if found != expected:
        raise UserError(
            f"--weights: found {found.name} of width {found.width} and stages "
            f"{found.stage_sizes}, expected {expected.name}, {expected.width}, "
            f"{expected.stage_sizes} as in "
            f"config.{config.modality}_model; change one of them"
        )
    if config.modality == "video" and weights.normalization != (
        config.video_normalization
    ):
        raise UserError(
            f"--weights: were trained with {weights.normalization!r} normalisation, "
            f"but config.video_normalization is {config.video_normalization!r}; set it "
            f"to {weights.normalization!r}"
        )
    heard = ("audio_duration_s", "mel_frames", "mel_bins", "window_ms")
    seen = ("num_frames", "fps", "short_side", "crop_size")
    for key in heard if config.modality == "audio" else seen:
        before = weights.clip.get(key, config.clip[key])
        if before != config.clip[key]:
            log.warning(
                "--weights: were trained with clip.%s = %s, and are given %s",
                key,
                before,
                config.clip[key],
            )


def name(weights: SavedEncoder | None) -> str:
    """Returns what tells the weights from others."""
    if weights is None:
        return SCRATCH
    return f"{weights.source}, {layout.digest(weights.variables)}"


def pretraining(weights: SavedEncoder | None) -> dict[str, Any]:
    """Returns what rows of results say of where the weights come from."""
    found = {"name": SCRATCH} if weights is None else weights.pretraining
    return {
        "pretraining": found.get("name"),
        "pretraining_seed": found.get("seed"),
        "k_video": found.get("k_video"),
        "k_audio": found.get("k_audio"),
    }
