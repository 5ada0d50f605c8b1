"""Three convolutions, for very small images such as the 8x8 digits."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from diffence.classifiers.base import Classifier

__all__ = ["ConvNet"]


def _convolution(channels: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class ConvNet(Classifier):
    """Three 3x3 convolutions with batch norm and ReLU, the last two of stride 2, and a linear layer."""

    def __init__(self, classes: int, channels: int, image: tuple[int, int], width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(channels, width, 1),
            *_convolution(width, 2 * width, 2),
            *_convolution(2 * width, 4 * width, 2),
            nn.Flatten(),
        )
        height, across = (-(-size // 4) for size in image)
        self.fc = nn.Linear(4 * width * height * across, classes)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.fc(self.features(images)))
