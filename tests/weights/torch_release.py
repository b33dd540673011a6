"""The networks whose weights are converted, in PyTorch, with the names of their files.

Written from torchvision's models/video/resnet.py and the XDC release's
model/r2plus1d_18.py; audio from torchvision's models/resnet.py.
"""

import torch
from torch import nn


def mid_planes(inputs, outputs):
    return (inputs * outputs * 3 * 3 * 3) // (inputs * 3 * 3 + 3 * outputs)


class Conv2Plus1D(nn.Sequential):
    def __init__(self, inputs, outputs, middle, stride, eps):
        super().__init__(
            nn.Conv3d(
                inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False
            ),
            nn.BatchNorm3d(middle, eps=eps),
            nn.ReLU(),
            nn.Conv3d(
                middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False
            ),
        )


class VideoBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, official, eps):
        super().__init__()
        first = mid_planes(inputs, outputs)
        second = mid_planes(outputs, outputs) if official else first
        self.conv1 = nn.Sequential(
            Conv2Plus1D(inputs, outputs, first, stride, eps),
            nn.BatchNorm3d(outputs, eps=eps),
            nn.ReLU(),
        )
        self.conv2 = nn.Sequential(
            Conv2Plus1D(outputs, outputs, second, 1, eps),
            nn.BatchNorm3d(outputs, eps=eps),
        )
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm3d(outputs, eps=eps),
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv2(self.conv1(x)) + shortcut)


class VideoResNet(nn.Module):
    def __init__(self, official, width=64, stage_sizes=(2, 2, 2, 2), classes=None):
        super().__init__()
        eps = 1e-3 if official else 1e-5
        middle = 45 * width // 64
        self.stem = nn.Sequential(
            nn.Conv3d(3, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(middle, eps=eps),
            nn.ReLU(),
            nn.Conv3d(middle, width, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(width, eps=eps),
            nn.ReLU(),
        )
        inputs = width
        for stage, size in enumerate(stage_sizes):
            blocks = []
            for index in range(size):
                stride = 2 if stage > 0 and index == 0 else 1
                outputs = width * 2**stage
                blocks.append(VideoBlock(inputs, outputs, stride, official, eps))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(stage_sizes)
        if classes:
            self.fc = nn.Linear(inputs, classes)

    def feature_map(self, x):
        x = self.stem(x)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x

    def forward(self, x):
        return self.feature_map(x).mean((2, 3, 4))


class AudioBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, eps):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs, eps=eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=eps)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs, eps=eps),
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class AudioResNet(nn.Module):
    def __init__(self, vmz, width=64, stage_sizes=(2, 2, 2, 2)):
        super().__init__()
        eps = 1e-3 if vmz else 1e-5
        self.vmz = vmz
        if vmz:
            self.conv1 = nn.Conv2d(1, width // 4, 3, 1, 1)
            half = width // 2
            self.layer0 = nn.Sequential(
                AudioBlock(width // 4, half, 2, eps),
                AudioBlock(half, half, 1, eps),
                AudioBlock(half, half, 1, eps),
            )
            inputs = half
        else:
            self.conv1 = nn.Conv2d(1, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width, eps=eps)
            inputs = width
        for stage, size in enumerate(stage_sizes):
            blocks = []
            for index in range(size):
                stride = 2 if index == 0 and (stage > 0 or vmz) else 1
                outputs = width * 2**stage
                blocks.append(AudioBlock(inputs, outputs, stride, eps))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(stage_sizes)

    def feature_map(self, x):
        x = self.conv1(x)
        x = self.layer0(x) if self.vmz else torch.relu(self.bn1(x))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x

    def forward(self, x):
        x = self.feature_map(x)
        return x.amax((2, 3)) if self.vmz else x.mean((2, 3))


def randomised(model, seed):
    """Gives every batch norm weights and statistics that differ from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
            module.num_batches_tracked.fill_(
                int(torch.randint(1, 10**6, (), generator=generator))
            )
    return model.eval()
