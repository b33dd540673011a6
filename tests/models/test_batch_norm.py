"""Batch norm against PyTorch, per device and synchronised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from xdc_jax.errors import UserError
from xdc_jax.models.batch_norm import BatchNorm


def batch(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * 3 + 5).astype(np.float32)


def test_equals_pytorch_over_steps():
    torch = pytest.importorskip("torch")
    ours = BatchNorm(6, eps=1e-3, momentum=0.1)
    theirs = torch.nn.BatchNorm1d(6, eps=1e-3, momentum=0.1)
    for seed in range(3):
        x = batch((5, 6), seed)
        expected = theirs(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(ours(jnp.asarray(x), True), expected, atol=1e-4)
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, rtol=1e-5)
    np.testing.assert_allclose(ours.var[...], theirs.running_var, rtol=1e-5)
    x = batch((5, 6), seed=9)
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    before = ours.mean[...]
    np.testing.assert_allclose(ours(jnp.asarray(x), False), expected, atol=1e-4)
    assert (ours.mean[...] == before).all()


@pytest.mark.parametrize("check_vma", [True, False])
def test_synchronised_equals_whole_batch(check_vma):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = batch((16, 3, 4)) + np.arange(16).reshape(16, 1, 1).astype(np.float32)
    weights = batch((16, 3, 4), seed=1)

    def step(layer):
        graphdef, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)

        def forward(params, stats, x, weights):
            layer = nnx.merge(graphdef, params, stats, copy=True)
            y = layer(x, True)
            return (y * weights).sum(), (y, nnx.state(layer, nnx.BatchStat))

        return forward, params, stats

    forward, params, stats = step(BatchNorm(4))
    (_, (expected, expected_stats)), expected_grad = jax.value_and_grad(
        forward, argnums=2, has_aux=True
    )(params, stats, x, weights)

    local, params, stats = step(BatchNorm(4, axis_name="data"))

    def mapped(params, stats, x, weights):
        def loss(x):
            value, aux = local(params, stats, x, weights)
            return jax.lax.psum(value, "data"), aux

        (_, (y, stats)), grad = jax.value_and_grad(loss, has_aux=True)(x)
        # Without the check, psum's transpose is psum: the gradient is 8 times as big.
        return y, stats, grad if check_vma else grad / 8

    y, new_stats, grad = jax.jit(
        jax.shard_map(
            mapped,
            mesh=mesh,
            in_specs=(P(), P(), P("data"), P("data")),
            out_specs=(P("data"), P(), P("data")),
            check_vma=check_vma,
        )
    )(params, stats, x, weights)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        new_stats,
        expected_stats,
    )


def test_bfloat16_input_has_float32_statistics():
    layer = BatchNorm(4)
    x = batch((4096, 4))
    y = layer(jnp.asarray(x, jnp.bfloat16), True)
    assert y.dtype == jnp.bfloat16
    assert layer.mean[...].dtype == jnp.float32
    np.testing.assert_allclose(layer.mean[...], 0.1 * x.mean(0), rtol=1e-3)


def test_one_value_per_channel_is_an_error():
    with pytest.raises(UserError, match="found one value per channel"):
        BatchNorm(4)(jnp.ones((1, 1, 1, 1, 4)), True)
