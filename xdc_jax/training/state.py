"""What changes during training: parameters, statistics, heads, optimiser state."""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from xdc_jax.clustering.targets import Plan
from xdc_jax.models import registry
from xdc_jax.parallel import DATA_AXIS
from xdc_jax.training import optimizer


@dataclasses.dataclass(frozen=True)
class Network:
    """The structure of one encoder, without its arrays.

    Attributes:
        modality: `video` or `audio`: the key of the batch it reads.
        normalization: of its pictures, a key of `steps.NORMALIZATIONS`.
        graphdef: Flax NNX structure, to be merged with parameters and statistics.
        feature_dim: width of the pooled features.
    """

    modality: str
    normalization: str
    graphdef: nnx.GraphDef
    feature_dim: int

    def apply(
        self,
        params: Any,
        batch_stats: Any,
        inputs: Float[Array, "b ..."],
        train: bool,
        pooled: bool = True,
    ) -> tuple[Float[Array, "b *n d"], Any]:
        """Returns float32 features and batch statistics (updated when `train`).

        Features are the last map, averaged over time and space where `pooled`.
        """
        module = nnx.merge(self.graphdef, params, batch_stats)
        if pooled:
            features = module(inputs, train=train)
        else:
            features = module.feature_map(inputs, train=train).astype(jnp.float32)
        return features, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EncoderState:
    """Everything that training changes in one encoder.

    Attributes:
        params: encoder parameters, nested dicts of float32.
        batch_stats: running means and variances of BatchNorm, nested dicts of float32.
        heads: clustering name -> `{"kernel": [d, k], "bias": [k]}`, float32.
        opt_state: optax state over `(params, heads)`.
    """

    params: Any
    batch_stats: Any
    heads: dict[str, dict[str, Float[Array, "..."]]]
    opt_state: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run.

    Attributes:
        step: training steps done since the run began, int32 scalar.
        encoders: encoder name -> its state.
    """

    step: Int[Array, ""]
    encoders: dict[str, EncoderState]


def stream(seed: int, name: str) -> jax.Array:
    """Returns the random key of a named stream of a run."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def init_head(key: jax.Array, dim: int, classes: int) -> dict[str, Array]:
    """Returns a linear head: weights N(0, 0.01), bias 0, as DeepCluster's."""
    return {
        "kernel": 0.01 * jax.random.normal(key, (dim, classes), jnp.float32),
        "bias": jnp.zeros((classes,), jnp.float32),
    }


def create(config: ConfigDict, plan: Plan) -> tuple[dict[str, Network], TrainState]:
    """Returns the networks of a run and their state at initialisation, without heads.

    Weights are a function of (config.seed, encoder name) alone.
    """
    networks, encoders = {}, {}
    for name, modality in plan.encoders.items():
        networks[name], encoders[name] = create_encoder(
            config, config[f"{modality}_model"], modality, name
        )
    return networks, TrainState(jnp.int32(0), encoders)


def create_encoder(
    config: ConfigDict, model: ConfigDict, modality: str, name: str
) -> tuple[Network, EncoderState]:
    """Returns an encoder at initialisation, without heads.

    Args:
        config: of pretraining or finetuning.
        model: name, width and stage sizes.
        modality: `video` or `audio`.
        name: of the encoder; weights are a function of (config.seed, name) alone.
    """
    module = registry.create(
        model.name,
        width=model.width,
        stage_sizes=tuple(model.stage_sizes),
        dtype=jnp.dtype(config.dtype),
        bn_axis_name=DATA_AXIS if config.sync_bn else None,
        rngs=nnx.Rngs(stream(config.seed, f"init_{name}")),
    )
    graphdef, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    network = Network(
        modality, config.video_normalization, graphdef, module.feature_dim
    )
    params, batch_stats = nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)
    return network, EncoderState(params, batch_stats, {}, None)


def reset_heads(
    state: TrainState,
    networks: dict[str, Network],
    classes: dict[str, dict[str, int]],
    config: ConfigDict,
    iteration: int,
) -> TrainState:
    """Gives every encoder new heads and new optimiser state; keeps the encoder.

    Args:
        state: the state at the end of the iteration before.
        networks: the networks of the run.
        classes: encoder name -> clustering name -> number of classes of that head.
        config: the config of the run.
        iteration: the iteration that begins; heads are a function of (seed, iteration).
    """
    encoders = {}
    for name, encoder in state.encoders.items():
        key = jax.random.fold_in(stream(config.seed, f"heads_{name}"), iteration)
        heads = {
            target: init_head(jax.random.fold_in(key, i), networks[name].feature_dim, n)
            for i, (target, n) in enumerate(classes[name].items())
        }
        opt_state = optimizer.make(config.optimizer).init((encoder.params, heads))
        encoders[name] = dataclasses.replace(encoder, heads=heads, opt_state=opt_state)
    return TrainState(state.step, encoders)
