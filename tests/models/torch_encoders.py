"""How weights map between the encoders and `tests.weights.torch_release`."""

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from xdc_jax.models.convolution import Conv


def layers_of(ours):
    """Returns our convolutions and batch norms in the order of `model.modules()`."""

    def pair(conv_norm):
        if conv_norm is None:
            return []
        if hasattr(conv_norm, "spatial"):
            return pair(conv_norm.spatial) + pair(conv_norm.temporal)
        return [conv_norm.conv, conv_norm.norm]

    layers = [ours.stem] if isinstance(ours.stem, Conv) else pair(ours.stem)
    for block in [*getattr(ours, "extra_blocks", ()), *ours.blocks]:
        layers += pair(block.first) + pair(block.second) + pair(block.shortcut)
    return layers


def variables(ours, theirs, *, grad=False):
    """Yields (our variable, their tensor as NumPy in our layout), layer by layer."""
    kinds = nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d
    modules = [m for m in theirs.modules() if isinstance(m, kinds)]
    layers = layers_of(ours)
    assert len(layers) == len(modules)
    for layer, module in zip(layers, modules, strict=True):
        weight = module.weight.grad if grad else module.weight
        weight = weight.detach().numpy()
        if isinstance(layer, Conv):
            yield layer.kernel, np.moveaxis(weight, (0, 1), (-1, -2))
        else:
            yield layer.scale, weight
            if not grad:
                yield layer.mean, module.running_mean.numpy()
                yield layer.var, module.running_var.numpy()
        if module.bias is not None:
            bias = module.bias.grad if grad else module.bias
            yield layer.bias, bias.detach().numpy()


def load(ours, theirs):
    """Copies all weights and statistics of the PyTorch model into ours."""
    for variable, value in variables(ours, theirs):
        assert variable.shape == value.shape
        variable.set_value(jnp.array(value))


def to_torch(x):
    """Channels last, JAX -> channels first, PyTorch.

    Contiguous: PyTorch 2.13 aborts with corrupted memory in the backward pass of the
    vmz audio network when its input is channels-last on CPU.
    """
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())
