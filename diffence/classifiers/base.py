"""What every classifier of this package is: a network from images to logits that knows how it was built."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """(B, C, H, W), normalised by the caller -> logits (B, classes).

    config: the arguments of `build` that make this network again, JSON-serialisable: name, classes, channels,
    image [H, W], seed and the network's own options.
    """

    config: dict[str, Any]
