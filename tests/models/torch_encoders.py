"""The encoders in PyTorch, written from torchvision and VMZ, and how weights map."""

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from xdc_jax.models.convolution import Conv


def mid_planes(inputs, outputs):
    return (inputs * outputs * 3 * 3 * 3) // (inputs * 3 * 3 + 3 * outputs)


def factored(inputs, middle, outputs, size, spatial_stride, temporal_stride, eps):
    pad = size // 2
    strides = (1, spatial_stride, spatial_stride)
    return nn.Sequential(
        nn.Conv3d(inputs, middle, (1, size, size), strides, (0, pad, pad), bias=False),
        nn.BatchNorm3d(middle, eps=eps),
        nn.ReLU(),
        nn.Conv3d(
            middle, outputs, (3, 1, 1), (temporal_stride, 1, 1), (1, 0, 0), bias=False
        ),
        nn.BatchNorm3d(outputs, eps=eps),
    )


class Block(nn.Module):
    def __init__(self, conv1, conv2, downsample):
        super().__init__()
        self.conv1, self.conv2, self.downsample = conv1, conv2, downsample

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + identity)


def video_encoder(width, stage_sizes, official):
    """Returns (stem and blocks up to the last map) of the variant."""
    eps = 1e-3 if official else 1e-5
    layers = [factored(3, 45 * width // 64, width, 7, 2, 1, eps), nn.ReLU()]
    inputs = width
    for stage, size in enumerate(stage_sizes):
        for index in range(size):
            outputs = width * 2**stage
            stride = 2 if stage > 0 and index == 0 else 1
            first = mid_planes(inputs, outputs)
            second = mid_planes(outputs, outputs) if official else first
            downsample = None
            if stride != 1:
                downsample = nn.Sequential(
                    nn.Conv3d(inputs, outputs, 1, stride, bias=False),
                    nn.BatchNorm3d(outputs, eps=eps),
                )
            layers.append(
                Block(
                    factored(inputs, first, outputs, 3, stride, stride, eps),
                    factored(outputs, second, outputs, 3, 1, 1, eps),
                    downsample,
                )
            )
            inputs = outputs
    return nn.Sequential(*layers)


def audio_block(inputs, outputs, stride, eps):
    def conv(start, stride):
        return nn.Sequential(
            nn.Conv2d(start, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs, eps=eps),
        )

    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False),
            nn.BatchNorm2d(outputs, eps=eps),
        )
    return Block(conv(inputs, stride), conv(outputs, 1), downsample)


def audio_encoder(width, stage_sizes, vmz):
    """Returns (stem and blocks up to the last map) of the variant."""
    eps = 1e-3 if vmz else 1e-5
    if vmz:
        layers = [nn.Conv2d(1, width // 4, 3, 1, 1)]
        layers.append(audio_block(width // 4, width // 2, 2, eps))
        layers += [audio_block(width // 2, width // 2, 1, eps) for _ in range(2)]
        inputs = width // 2
    else:
        layers = [nn.Conv2d(1, width, 7, 2, 3, bias=False)]
        layers += [nn.BatchNorm2d(width, eps=eps), nn.ReLU()]
        inputs = width
    for stage, size in enumerate(stage_sizes):
        for index in range(size):
            outputs = width * 2**stage
            strides = index == 0 and (stage > 0 or vmz)
            layers.append(audio_block(inputs, outputs, 2 if strides else 1, eps))
            inputs = outputs
    return nn.Sequential(*layers)


def randomise(model, seed):
    """Gives every batch norm weights and statistics that differ from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


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
