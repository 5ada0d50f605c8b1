"""The networks that are measured, with weights that make every layer count."""

from __future__ import annotations

import torch

from diffence.unets import DDPMConfig, DDPMUNet

__all__ = ["NETWORKS", "random_unet", "same_architecture"]

NETWORKS: dict[str, DDPMConfig] = {
    "cifar10": DDPMConfig(),
    "c64": DDPMConfig(channels=64),
    "c32": DDPMConfig(channels=32),
    "c32-16": DDPMConfig(image=(3, 16, 16), channels=32, multipliers=(1, 2, 2)),
    # what `diffence demo` trains on the digits
    "demo": DDPMConfig(image=(1, 8, 8), channels=32, multipliers=(1, 2), blocks=1, dropout=0.0, groups=8),
}


def random_unet(config: DDPMConfig, seed: int = 0) -> DDPMUNet:
    """A network in evaluation mode whose weights are random and none of them idle.

    A fresh `DDPMUNet` is nearly the identity: its last convolutions are scaled by 1e-5 and its biases are 0, so a
    wrong layer would hardly show in the output. Here all convolutions start alike, and biases and scales vary.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = DDPMUNet(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue  # the table of time embeddings
            if parameter.ndim > 1:
                torch.nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.1 * noise + (0.0 if name.endswith("bias") else 1.0))
    return model


def same_architecture(first: DDPMConfig, second: DDPMConfig) -> bool:
    """Whether weights of one are weights of the other: equal but for dropout, noise schedule and training range."""
    fields = ("image", "channels", "multipliers", "blocks", "attention", "groups", "steps")
    return all(getattr(first, field) == getattr(second, field) for field in fields)
