"""Encoders: parameter counts, equality with PyTorch, training, dtypes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import TypeCheckError

from xdc_jax.errors import UserError
from xdc_jax.models import registry

PARAMETERS = {
    "r2plus1d_18": 33_165_639,
    "r2plus1d_18_torchvision": 31_300_125,
    "audio_resnet18": 11_170_240,
    "audio_resnet18_vmz": 11_202_528,
}
VIDEO, AUDIO = list(registry.VIDEO_ENCODERS), list(registry.AUDIO_ENCODERS)
SMALL = {"width": 8, "stage_sizes": (1, 2)}


def random_input(name, batch, *, space=None):
    if name in VIDEO:
        shape = (batch, *(space or (8, 32, 32)), 3)
    else:
        shape = (batch, *(space or (100, 40)), 1)
    values = np.random.default_rng(0).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def random_encoder(name, **settings):
    """Returns an encoder with He-scaled random kernels; faster than drawing in JAX."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if leaf.ndim > 1:
            scale = np.sqrt(2 / np.prod(leaf.shape[:-2]) / leaf.shape[-1])
            return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * scale)
        ones = any(name in jax.tree_util.keystr(path) for name in ("scale", "var"))
        return jnp.full(leaf.shape, float(ones), leaf.dtype)

    model = nnx.eval_shape(lambda: registry.create(name, rngs=nnx.Rngs(0), **settings))
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map_with_path(fill, state))


def reference(name, *, width, stage_sizes):
    """Returns our encoder and PyTorch's with the same random weights."""
    torch = pytest.importorskip("torch")
    from tests.models import torch_encoders
    from tests.weights import torch_release

    torch.manual_seed(0)
    if name in VIDEO:
        network = torch_release.VideoResNet(name == VIDEO[0], width, stage_sizes)
    else:
        network = torch_release.AudioResNet(name == AUDIO[1], width, stage_sizes)
    theirs = torch_release.randomised(network, seed=1)
    ours = nnx.eval_shape(
        lambda: registry.create(
            name, width=width, stage_sizes=stage_sizes, rngs=nnx.Rngs(0)
        )
    )
    torch_encoders.load(ours, theirs)
    return ours, theirs


@nnx.jit(static_argnames="train")
def map_and_features(model, x, train):
    return model.feature_map(x, train), model(x, train)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    model = nnx.eval_shape(lambda: registry.create(name, rngs=nnx.Rngs(0)))
    _, params, _ = nnx.split(model, nnx.Param, nnx.BatchStat)
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == PARAMETERS[name]
    assert model.feature_dim == 512


@pytest.mark.parametrize("name", PARAMETERS)
def test_full_width_equals_pytorch(name):
    ours, theirs = reference(name, width=64, stage_sizes=(2, 2, 2, 2))
    import torch

    from tests.models import torch_encoders

    batch, space = (1, (8, 112, 112)) if name in VIDEO else (2, (100, 40))
    x = random_input(name, batch, space=space)
    feature_map, features = map_and_features(ours, x, train=False)
    with torch.no_grad():
        expected_map = theirs.feature_map(torch_encoders.to_torch(x))
        expected = theirs(torch_encoders.to_torch(x))
    shapes = {VIDEO[0]: (1, 7, 7), VIDEO[1]: (1, 7, 7), AUDIO[0]: (7, 3)}
    assert feature_map.shape == (batch, *shapes.get(name, (4, 2)), 512)
    np.testing.assert_allclose(
        feature_map, np.moveaxis(expected_map.numpy(), 1, -1), atol=1e-4
    )
    np.testing.assert_allclose(features, expected, atol=1e-4)


@pytest.mark.parametrize("name", PARAMETERS)
def test_training_equals_pytorch(name):
    ours, theirs = reference(name, **SMALL)
    from tests.models import torch_encoders

    x = random_input(name, 4)
    weights = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)
    graphdef, params, stats = nnx.split(ours, nnx.Param, nnx.BatchStat)

    @jax.jit
    def gradients(params, stats):
        def loss(params):
            model = nnx.merge(graphdef, params, stats, copy=True)
            value = (jnp.asarray(weights) * model(x, True)).sum()
            return value, nnx.state(model, nnx.BatchStat)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, stats), grads = gradients(params, stats)
    features = theirs.train()(torch_encoders.to_torch(x))
    expected = (torch_encoders.torch.from_numpy(weights) * features).sum()
    expected.backward()

    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    updated = nnx.merge(graphdef, params, stats, copy=True)
    for variable, tensor in torch_encoders.variables(updated, theirs):
        np.testing.assert_allclose(variable[...], tensor, rtol=1e-4, atol=1e-5)
    graded = nnx.merge(graphdef, grads, stats, copy=True)
    for variable, tensor in torch_encoders.variables(graded, theirs, grad=True):
        tolerance = 1e-3 * np.abs(tensor).max()
        np.testing.assert_allclose(variable[...], tensor, atol=tolerance)


def test_full_width_training_step():
    name = "r2plus1d_18"
    model = random_encoder(name)
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    x = random_input(name, 1, space=(8, 112, 112))

    @jax.jit
    def step(params, stats):
        def loss(params):
            model = nnx.merge(graphdef, params, stats, copy=True)
            value = jnp.square(model(x, True) - 1.0).mean()
            return value, nnx.state(model, nnx.BatchStat)

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)
        return params, stats, value

    new_params, new_stats, value = step(params, stats)
    assert np.isfinite(value)
    for old, new in zip(
        jax.tree.leaves((params, stats)),
        jax.tree.leaves((new_params, new_stats)),
        strict=True,
    ):
        assert np.isfinite(new).all()
        assert (np.asarray(new) != np.asarray(old)).any()


@pytest.mark.parametrize("name", ["r2plus1d_18", "audio_resnet18_vmz"])
def test_bfloat16_activations(name):
    x = random_input(name, 4)
    half = random_encoder(name, **SMALL, dtype=jnp.bfloat16)
    feature_map, features = map_and_features(half, x, train=True)
    _, expected = map_and_features(random_encoder(name, **SMALL), x, train=True)
    assert feature_map.dtype == jnp.bfloat16
    assert features.dtype == jnp.float32
    for leaf in jax.tree.leaves(nnx.state(half)):
        assert leaf.dtype == jnp.float32
    error = np.linalg.norm(features - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.1


def test_initial_weights():
    def kernel(seed):
        model = registry.create(
            "audio_resnet18", width=32, stage_sizes=(1,), rngs=nnx.Rngs(seed)
        )
        return model.blocks[0].second.conv.kernel[...]

    expected = np.sqrt(2 / (3 * 3 * 32))
    assert abs(kernel(0).std() / expected - 1) < 0.03
    assert (kernel(0) == kernel(0)).all()
    assert (kernel(0) != kernel(1)).all()


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("r2plus1d_18", (2, 8, 16, 3), np.float32),
        ("r2plus1d_18", (2, 3, 8, 16, 16), np.float32),
        ("r2plus1d_18", (2, 8, 16, 16, 3), np.uint8),
        ("audio_resnet18", (2, 100, 40), np.float32),
        ("audio_resnet18", (2, 8, 16, 16, 3), np.float32),
        ("audio_resnet18_vmz", (2, 1, 100, 40), np.float32),
    ],
)
def test_wrong_input_is_named(name, shape, dtype):
    model = random_encoder(name, width=4, stage_sizes=(1,))
    # Where annotations are checked at run time, jaxtyping finds it first.
    with pytest.raises(
        (UserError, TypeCheckError), match=r"input: found|parameter 'x'"
    ):
        model(jnp.zeros(shape, dtype), False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet50"}, "found 'resnet50', expected one of audio_resnet18, "),
        ({"width": 3}, "width: found 3, expected at least 4"),
        ({"stage_sizes": ()}, "stage_sizes: found "),
        ({"stage_sizes": (1, 0)}, "stage_sizes: found "),
    ],
)
def test_registry_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        registry.create(**{"name": "r2plus1d_18", "rngs": nnx.Rngs(0), **arguments})
