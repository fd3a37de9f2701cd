"""The ResNets of He et al. 2016 (section 4.2) for small images: 16-32-64 channels, 6n + 2 layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.grow = channels - channels_in
        stride = 2 if self.grow else 1
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.grow:
            # Option A: every second pixel, new channels filled with zeros on both sides.
            before = self.grow // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.grow - before))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A network from images (N, 3, H, W) to features (N, 64), of 6n + 2 layers."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        assert not rest, "a CIFAR ResNet has 6n+2 layers"
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks)
        self.layer2 = self._stage(16, 32, blocks)
        self.layer3 = self._stage(32, 64, blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(
            BasicBlock(channels_in, channels), *(BasicBlock(channels, channels) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean(dim=(2, 3))
