"""Residual networks: ResNet-18 in its CIFAR form, and a small one for CPUs.

He et al., Deep Residual Learning for Image Recognition, 2016: y = relu(F(x) + shortcut(x)).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from diffence.classifiers.base import Classifier

__all__ = ["ResNet18", "SmallResNet"]


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is the identity where the shapes allow it."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual_function(x) + self.shortcut(x))


class ResNet18(Classifier):
    """ResNet-18 with a 3x3 stem of stride 1 and no pooling before the blocks, for images of about 32x32.

    Its tensors have the names of the published CIFAR checkpoints: 122 of them, 11,173,962 parameters at ten classes.
    """

    def __init__(self, classes: int, channels: int, image: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        self.conv2_x = nn.Sequential(_Block(64, 64, 1), _Block(64, 64, 1))
        self.conv3_x = nn.Sequential(_Block(64, 128, 2), _Block(128, 128, 1))
        self.conv4_x = nn.Sequential(_Block(128, 256, 2), _Block(256, 256, 1))
        self.conv5_x = nn.Sequential(_Block(256, 512, 2), _Block(512, 512, 1))
        self.fc = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv5_x(self.conv4_x(self.conv3_x(self.conv2_x(self.conv1(images)))))
        return cast(Tensor, self.fc(x.mean((2, 3))))


class SmallResNet(Classifier):
    """Three residual blocks, six 3x3 convolutions: `width`, 2 `width` and 4 `width` channels, each at half the size."""

    def __init__(self, classes: int, channels: int, image: tuple[int, int], width: int = 32) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            _Block(channels, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)
        )
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.fc(self.blocks(images).mean((2, 3))))
