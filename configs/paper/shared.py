"""What the pretrainings of the paper's tables have in common.

Batches of 256 are 32 clips on each core of a v5e-8; a user states 32 for the paper, per
GPU or in all is not known (XDC issue #8). Times in the configs are clips / 4,627 per
second. A v5e-8 trains both encoders on so many clips of 8 x 112 x 112, at most, by the
bytes that the compiler counts (README.md, Reading): an estimate, nothing was run.
"""

from ml_collections import ConfigDict

from xdc_jax.config import pretrain_config


def clustered(
    name: str, method: str, *, clips_per_record: int, iterations: int, epochs: int
) -> ConfigDict:
    """Deep clustering, with the values of `pretrain_config` and these.

    Args:
        name: of the encoders in tables of results.
        method: sdc, mdc, cdc or xdc.
        clips_per_record: clips drawn from each record in an epoch.
        iterations: of deep clustering. The paper's number is not known.
        epochs: of each iteration, at most. The paper's number is not known.
    """
    config = pretrain_config()
    config.update(name=name, method=method, clips_per_record=clips_per_record)
    config.update(iterations=iterations, epochs=epochs)
    # An iteration ends when the loss on held-out pseudo-labels saturates [R]; that this
    # means two epochs without progress is a stand-in.
    config.patience = min(2, epochs - 1)
    return config


def supervised(name: str, *, clips_per_record: int) -> ConfigDict:
    """Labels instead of clusters, by VMZ's recipe for Kinetics (its PyTorch port).

    45 epochs of about a million clips, 10 of them warm-up; 0.01 per 32 clips, a tenth
    of it from epochs 20, 30 and 40 on.
    """
    config = pretrain_config()
    config.update(name=name, method="supervised", clips_per_record=clips_per_record)
    config.update(iterations=1, epochs=45, held_out=0.0)
    config.optimizer.update(
        lr_video=0.08,  # for 256 clips
        lr_audio=0.08,
        warmup_epochs=10.0,
        schedule="step",
        step_epochs=(20, 30, 40),
        step_factor=0.1,
    )
    return config
