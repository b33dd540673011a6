"""The device-side functions of a run, written for one core.

`train_step` and `extract_step` are pure functions of pytrees; `compile_train_step` and
`compile_extract_step` map them over the mesh. The batch is as DESIGN.md, section 4.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt8

from xdc_jax.parallel import DATA_AXIS, map_over_data
from xdc_jax.training.state import EncoderState, Network, TrainState

# Kinetics mean and standard deviation of RGB in [0, 1]. Source: XDC issue #2.
RGB_MEAN = (0.43216, 0.394666, 0.37645)
RGB_STD = (0.22803, 0.22145, 0.216989)

# Two clips of 8x112x112: a CPU then reuses the same memory, still in its caches; 16 at
# once take 1.1 times as long (`benchmarks/extract.py`).
CPU_VALUES_AT_ONCE = 2 * 8 * 112 * 112 * 3

Batch = dict[str, Array]
Rates = dict[str, Float[Array, ""]]  # of the encoder (`body`) and its heads (`head`)
Metrics = dict[str, Float[Array, ""]]


def normalize_kinetics(video: UInt8[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
    """Returns RGB scaled to [0, 1], less the Kinetics mean, by its deviation."""
    mean, std = jnp.asarray(RGB_MEAN), jnp.asarray(RGB_STD)
    return (video.astype(jnp.float32) / 255.0 - mean) / std


def normalize_clip(video: UInt8[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
    """Returns RGB less the mean of each channel of the clip, by its deviation.

    Light and colour of a recording, which tell recordings apart but not what happens in
    them, are gone. A channel that does not vary becomes 0.
    """
    video = video.astype(jnp.float32)
    centred = video - video.mean((1, 2, 3), keepdims=True)
    variance = jnp.square(centred).mean((1, 2, 3), keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1.0)  # + 1: a grey level of 256


NORMALIZATIONS = {"kinetics": normalize_kinetics, "clip": normalize_clip}


def encoder_inputs(network: Network, batch: Batch) -> Float[Array, "b ..."]:
    """Returns what an encoder reads of a batch."""
    inputs = batch[network.modality]
    if network.modality == "audio":
        return inputs
    return NORMALIZATIONS[network.normalization](inputs)


def head_logits(
    head: dict[str, Array], features: Float[Array, "b d"]
) -> Float[Array, "b k"]:
    """Returns the logits of a linear head, in float32 with exact products."""
    return (
        jnp.matmul(features, head["kernel"], precision=jax.lax.Precision.HIGHEST)
        + head["bias"]
    )


def mean_loss(
    head: dict[str, Array], features: Float[Array, "n d"], labels: Int[np.ndarray, " m"]
) -> float:
    """Returns the mean cross-entropy of a head over the rows with a label (>= 0).

    Args:
        head: replicated.
        features: of m rows, then padding; may be spread over processes.
        labels: of the m rows.
    """
    labels = np.pad(labels, (0, len(features) - len(labels)), constant_values=-1)
    return float(_mean_loss(head, features, labels))


@jax.jit
def _mean_loss(head, features, labels):
    sums = _head_sums({"": head}, features, {"": labels}, slice(None))
    loss, _, valid = sums[""]
    return loss / jnp.maximum(valid, 1)


def _head_sums(
    heads: dict[str, Any],
    features: Array,
    labels: dict[str, Array],
    clip_ids: Array | slice,
) -> dict[str, tuple[Array, Array, Array]]:
    """Returns clustering -> sums of loss, correct predictions and labelled clips."""
    sums = {}
    for name, head in heads.items():
        target = labels[name][clip_ids]
        valid = target >= 0
        logits = head_logits(head, features)
        loss = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.maximum(target, 0)
        )
        correct = (logits.argmax(-1) == target) & valid
        sums[name] = (jnp.where(valid, loss, 0.0).sum(), correct.sum(), valid.sum())
    return sums


def train_step(
    state: TrainState,
    batch: Batch,
    labels: dict[str, Int[Array, " n"]],
    learning_rates: dict[str, Rates],
    *,
    networks: dict[str, Network],
    optimizer: optax.GradientTransformation,
    frozen: bool = False,
) -> tuple[TrainState, Metrics]:
    """Does one step of every encoder on this core's part of a batch.

    The loss of an encoder is the cross-entropy of each of its heads, averaged over the
    labelled clips of the whole batch and summed over heads.

    Args:
        state: replicated.
        batch: this core's rows; needs `clip_id` and each encoder's modality.
        labels: clustering -> pseudo-label of each clip id, -1 where it has none.
        learning_rates: encoder name -> rates of this step.
        networks: encoder name -> structure.
        optimizer: see `optimizer.make`.
        frozen: only the heads learn; the encoders are in eval mode.

    Returns:
        The new state, and per encoder and head `loss/E/H` and `accuracy/E/H`.
    """

    def loss_fn(trainable, encoder: EncoderState, network: Network):
        params, heads = trainable
        inputs = encoder_inputs(network, batch)
        if frozen:
            params = jax.lax.stop_gradient(params)
        features, batch_stats = network.apply(
            params, encoder.batch_stats, inputs, not frozen
        )
        sums = _head_sums(heads, features, labels, batch["clip_id"])
        # The part of the global mean that this core adds.
        loss, means = 0.0, {}
        for name, (loss_sum, correct, valid) in sums.items():
            count = jnp.maximum(jax.lax.psum(valid, DATA_AXIS), 1)
            loss += loss_sum / count
            means[name] = (loss_sum / count, correct / count)
        return loss, (batch_stats, means)

    encoders, metrics = {}, {}
    for name, encoder in state.encoders.items():
        trainable = (encoder.params, encoder.heads)
        grads, (batch_stats, means) = jax.grad(loss_fn, has_aux=True)(
            trainable, encoder, networks[name]
        )
        grads, means = jax.lax.psum((grads, means), DATA_AXIS)
        # Per-core statistics stay per core within a step; the running ones are shared.
        batch_stats = jax.lax.pmean(batch_stats, DATA_AXIS)
        updates, opt_state = optimizer.update(grads, encoder.opt_state, trainable)
        rates = learning_rates[name]
        updates = (
            _times(-rates["body"], updates[0]),
            _times(-rates["head"], updates[1]),
        )
        params, heads = optax.apply_updates(trainable, updates)
        if frozen:
            params, batch_stats = encoder.params, encoder.batch_stats
        encoders[name] = EncoderState(params, batch_stats, heads, opt_state)
        for target, (loss, accuracy) in means.items():
            metrics[f"loss/{name}/{target}"] = loss
            metrics[f"accuracy/{name}/{target}"] = accuracy
    return TrainState(state.step + 1, encoders), metrics


def _times(factor: Float[Array, ""], tree: Any) -> Any:
    return jax.tree.map(lambda array: factor * array, tree)


def extract_step(
    encoders: dict[str, tuple[Any, Any]],
    batch: Batch,
    *,
    networks: dict[str, Network],
    pooled: bool = True,
    values_at_once: int | None = None,
) -> dict[str, Float[Array, "b *n d"]]:
    """Returns encoder name -> float32 features of this core's rows, in eval mode.

    Args:
        encoders: encoder name -> (parameters, batch statistics).
        batch: this core's rows.
        networks: encoder name -> structure.
        pooled: average the last map over time and space.
        values_at_once: go through the rows a few at a time, as many as have this many
            input values; default: all at once.
    """

    def features(name: str, rows: Batch) -> Float[Array, "b *n d"]:
        network = networks[name]
        inputs = encoder_inputs(network, rows)
        return network.apply(*encoders[name], inputs, False, pooled)[0]

    def in_parts(name: str) -> Float[Array, "b *n d"]:
        modality = networks[name].modality
        values = batch[modality]
        count = len(values)
        wanted = (values_at_once or values.size) * count // values.size
        rows = max(
            n for n in range(1, count + 1) if n <= max(wanted, 1) and count % n == 0
        )
        if rows == count:
            return features(name, batch)
        parts = values.reshape(count // rows, rows, *values.shape[1:])
        out = jax.lax.map(lambda part: features(name, {modality: part}), parts)
        return out.reshape(count, *out.shape[2:])

    return {name: in_parts(name) for name in networks}


def compile_train_step(
    mesh: Mesh,
    networks: dict[str, Network],
    optimizer: optax.GradientTransformation,
    frozen: bool = False,
) -> Callable:
    """Returns `train_step` jitted over the mesh; the state it is given is donated."""
    step = functools.partial(
        train_step, networks=networks, optimizer=optimizer, frozen=frozen
    )
    return map_over_data(
        step, mesh, (P(), P(DATA_AXIS), P(), P()), (P(), P()), donate=(0,)
    )


def compile_extract_step(
    mesh: Mesh, networks: dict[str, Network], pooled: bool = True
) -> Callable:
    """Returns `extract_step` jitted over the mesh."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    step = functools.partial(
        extract_step,
        networks=networks,
        pooled=pooled,
        values_at_once=CPU_VALUES_AT_ONCE if on_cpu else None,
    )
    return map_over_data(step, mesh, (P(), P(DATA_AXIS)), P(DATA_AXIS))
