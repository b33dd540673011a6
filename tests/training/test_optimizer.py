import jax.numpy as jnp
import numpy as np
import pytest

from xdc_jax.config import pretrain_config
from xdc_jax.training import optimizer


def test_updates_equal_pytorch_nesterov_with_decay_on_weights_only():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    config = pretrain_config().optimizer
    config.weight_decay = 0.1
    params = {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}
    params = {name: value.astype(np.float32) for name, value in params.items()}
    reference = {name: torch.tensor(value.copy()) for name, value in params.items()}
    sgd = torch.optim.SGD(
        [
            {"params": [reference["kernel"]], "weight_decay": 0.1},
            {"params": [reference["bias"]], "weight_decay": 0.0},
        ],
        lr=1.0,
        momentum=config.momentum,
        nesterov=True,
    )
    transform = optimizer.make(config)
    params = {name: jnp.asarray(value) for name, value in params.items()}
    state = transform.init(params)
    for lr in (0.3, 0.2, 0.1, 0.1):
        grads = {
            name: rng.normal(size=value.shape).astype(np.float32)
            for name, value in params.items()
        }
        updates, state = transform.update(grads, state, params)
        params = {name: params[name] - lr * updates[name] for name in params}
        for group in sgd.param_groups:
            group["lr"] = lr
        for name, tensor in reference.items():
            tensor.grad = torch.tensor(grads[name])
        sgd.step()
    for name in params:
        np.testing.assert_allclose(params[name], reference[name], rtol=1e-5, atol=1e-6)


def test_cosine_warms_up_linearly_and_ends_near_zero():
    config = pretrain_config().optimizer
    config.warmup_epochs = 2.0
    rate = optimizer.learning_rate(
        config, 0.4, batch_size=128, steps_per_epoch=5, epochs=10
    )
    peak = 0.4 * 128 / 256
    np.testing.assert_allclose(
        [rate(i) for i in range(10)], peak * np.arange(1, 11) / 10, rtol=1e-6
    )
    expected = [peak * (1 + np.cos(np.pi * i / 40)) / 2 for i in range(40)]
    np.testing.assert_allclose(
        [rate(10 + i) for i in range(40)], expected, rtol=1e-5, atol=1e-7
    )


def test_step_schedule_falls_at_its_epochs():
    config = pretrain_config().optimizer
    config.schedule, config.warmup_epochs = "step", 1.0
    config.step_epochs, config.step_factor = (2, 4), 0.1
    rate = optimizer.learning_rate(
        config, 0.256, batch_size=256, steps_per_epoch=4, epochs=6
    )
    by_epoch = [float(rate(4 * epoch + 2)) for epoch in range(6)]
    np.testing.assert_allclose(
        by_epoch, [0.192, 0.256, 0.0256, 0.0256, 0.00256, 0.00256], rtol=1e-5
    )
