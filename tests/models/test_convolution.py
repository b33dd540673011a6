"""Convolution: the folded lowering is the plain one; which platform gets which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from xdc_jax.models.convolution import convolve, plain_convolution

CASES = [
    ((1, 3, 3), (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    ((1, 7, 7), (1, 2, 2)),
    ((3, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1)),
    ((1, 1, 1), (2, 2, 2)),
    ((3, 3, 3), (2, 2, 2)),
]


def inputs(window, space=(5, 9, 10)):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *space, 3)).astype(np.float32)
    kernel = rng.normal(size=(*window, 3, 4)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel)


def value_and_gradients(function, x, kernel, strides):
    def loss(x, kernel):
        y = function(x, kernel, strides)
        return jnp.sin(y).sum(), y

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(x, kernel)


@pytest.mark.parametrize(("window", "strides"), CASES)
def test_equals_plain_convolution(window, strides):
    x, kernel = inputs(window)
    (_, y), grads = value_and_gradients(convolve, x, kernel, strides)
    (_, expected), expected_grads = value_and_gradients(
        plain_convolution, x, kernel, strides
    )
    space = [-(-n // s) for n, s in zip((5, 9, 10), strides, strict=True)]
    assert y.shape == (2, *space, 4)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, expected_grad, atol=2e-4)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_two_dimensions(strides):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 10, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2),
        torch.from_numpy(kernel).permute(3, 2, 0, 1),
        stride=strides,
        padding=1,
    ).permute(0, 2, 3, 1)
    y = convolve(jnp.asarray(x), jnp.asarray(kernel), strides)
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("window", [(1, 3, 3), (3, 1, 1)])
@pytest.mark.parametrize(("platform", "dimensions"), [("cpu", 4), ("tpu", 5)])
def test_platform_chooses_lowering(window, platform, dimensions):
    x, kernel = inputs(window)
    step = jax.jit(
        jax.grad(lambda k, x: jnp.sin(convolve(x, k, (1, 1, 1))).sum(), argnums=(0, 1))
    )
    text = step.trace(kernel, x).lower(lowering_platforms=(platform,)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) == 3  # forward, gradient of the kernel, gradient of the input
    for line in lines:
        result = line.rsplit("tensor<", 1)[1]
        assert result.count("x") == dimensions


def test_under_shard_map():
    x, kernel = inputs((1, 3, 3))
    x = jnp.tile(x, (4, 1, 1, 1, 1))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradient(kernel, x):
        return jax.grad(lambda k: jnp.sin(convolve(x, k, (1, 2, 2))).sum())(kernel)

    mapped = jax.jit(
        jax.shard_map(
            lambda k, x: jax.lax.psum(gradient(k, x), "data"),
            mesh=mesh,
            in_specs=(P(), P("data")),
            out_specs=P(),
            check_vma=False,
        )
    )
    np.testing.assert_allclose(mapped(kernel, x), gradient(kernel, x), atol=1e-3)
