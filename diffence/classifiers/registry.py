"""Classifiers by name: building one, saving it with what it needs to run again, loading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from diffence.classifiers.base import Classifier
from diffence.classifiers.convnet import ConvNet
from diffence.classifiers.inputs import Values, channel_values
from diffence.classifiers.resnet import ResNet18, SmallResNet
from diffence.files import load_tensors, save_tensors

__all__ = ["NETWORKS", "build", "load", "save"]

NETWORKS: dict[str, Callable[..., Classifier]] = {
    "resnet18": ResNet18,
    "resnet_small": SmallResNet,
    "convnet": ConvNet,
}

_KIND = "classifier"


def build(name: str, *, classes: int, channels: int, image: Sequence[int], seed: int = 0, **options: Any) -> Classifier:
    """A new network `name` of NETWORKS, with random weights drawn from `seed`; global generators are left alone.

    image: (H, W). options: the network's own, such as `width` of "resnet_small" and "convnet".
    """
    if name not in NETWORKS:
        raise ValueError(f"name: expected one of {', '.join(NETWORKS)}, got {name!r}")
    if len(image) != 2:
        raise ValueError(f"image: expected (height, width), got {tuple(image)}")
    height, width = (int(size) for size in image)
    sizes = {"classes": (classes, 2), "channels": (channels, 1), "image height": (height, 1), "image width": (width, 1)}
    sizes |= {key: (value, 1) for key, value in options.items() if key == "width"}
    for argument, (value, least) in sizes.items():
        if value < least:
            raise ValueError(f"{argument}: expected at least {least}, got {value}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = NETWORKS[name](classes, channels, (height, width), **options)
        except TypeError as error:
            raise ValueError(f"options of {name}: {error}") from error
    model.config = {"name": name, "classes": classes, "channels": channels, "image": [height, width], "seed": seed}
    model.config |= options
    return model


def save(
    path: str | os.PathLike[str],
    model: Classifier,
    *,
    mean: Values,
    std: Values,
    trained: Mapping[str, Any] | None = None,
) -> None:
    """Save a network of `build` as safetensors, whole or not at all.

    mean, std: one value a channel in units of [0, 1] images, which the network's inputs were normalised with.
    trained: JSON-serialisable notes on its training.
    """
    if not isinstance(model, Classifier):
        raise TypeError(f"model: expected a network made by diffence.classifiers.build, got {type(model).__name__}")
    channels = model.config["channels"]
    config = {
        **model.config,
        "mean": channel_values(mean, channels, "mean"),
        "std": channel_values(std, channels, "std"),
        "trained": dict(trained or {}),
    }
    save_tensors(path, _KIND, model.state_dict(), config)


def load(path: str | os.PathLike[str]) -> tuple[Classifier, dict[str, Any]]:
    """The network saved at `path`, in evaluation mode, and its config: the arguments of `build`, mean, std, trained.

    Raises FileNotFoundError, or ValueError for a file that is damaged, of another kind, or does not fit the network.
    """
    tensors, config = load_tensors(path, _KIND)
    try:
        model = build(**{key: value for key, value in config.items() if key not in ("mean", "std", "trained")})
        model.load_state_dict(tensors)
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{os.fspath(path)}: its tensors and its config do not make a classifier: {error}") from error
    return model.eval(), config
