"""Whatever somebody wants attacked, as the black box that attacks ask: modules, fences, functions and model files."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import classifiers
from diffence.attacks import Outputs, Target
from diffence.attacks.base import as_array
from diffence.fence import Diffence
from diffence.images import as_images
from diffence.wrapping import Classify, NormStat

__all__ = ["Asked", "Kind", "as_target", "describe", "load_model", "program_of"]

Asked = torch.nn.Module | Callable[[NDArray[np.float32]], ArrayLike | torch.Tensor]
Kind = Literal["logits", "probabilities"]

BATCH = 128


def as_target(
    model: Asked,
    shape: tuple[int, int, int],
    *,
    mean: NormStat = None,
    std: NormStat = None,
    kind: Kind = "logits",
    batch: int | None = None,
) -> Target:
    """`model` as a Target that takes images (n, C, H, W) = (n, *shape), uint8 or float in [0, 1].

    model: a fence, which brings its own normalisation; a module in evaluation mode, images -> logits, any device and
    floating dtype; or any function of float32 images (n, C, H, W) in [0, 1] that returns logits (n, classes).
    mean, std: the module's or function's normalisation, per channel in units of [0, 1]; None to pass [0, 1] through.
    kind: what it returns; probabilities are taken as their logarithms. batch: images asked at once, 128 where None.
    Raises TypeError or ValueError that says what does not fit.
    """
    if isinstance(model, Diffence):
        if mean is not None or std is not None:
            raise ValueError("mean, std: the fence has its own normalisation; leave them out")
        return _of_fence(model)
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected one of {', '.join(get_args(Kind))}, got {kind!r}")
    if isinstance(model, torch.nn.Module):
        classify = Classify(model if kind == "logits" else _Logarithm(model), shape, mean, std, batch or BATCH)

        def ask(images: NDArray[Any]) -> torch.Tensor:
            classify.check_mode()
            return classify(torch.from_numpy(as_images(images, shape)))

        return Target(ask)
    if not callable(model):
        raise TypeError(f"model: expected a torch module, a fence or a function, got {type(model).__name__}")
    batches = _Batches(model, shape, mean, std, batch or BATCH)
    return Target(batches if kind == "logits" else lambda images: Outputs.from_probabilities(batches(images)).logits)


def _of_fence(fence: Diffence) -> Target:
    def labels(images: NDArray[Any]) -> torch.Tensor:
        # Those of the fence, without its work: it shows the classifier's label of the original, always.
        return fence.classify(images).argmax(1)

    keeps = fence.aggregate is None
    return Target(fence, ask_labels=labels if keeps else None, rekey=lambda: _of_fence(fence.rekeyed()))


class _Logarithm(torch.nn.Module):
    """A module that returns probabilities as one that returns logits."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        probabilities: torch.Tensor = self.module(images)
        off = (probabilities.double().sum(dim=1) - 1).abs().max()
        if probabilities.min() < 0 or off > 1e-3:
            raise ValueError(
                "kind: expected probabilities (not negative, rows summing to 1 within 0.001); "
                f"the smallest is {probabilities.min():.6g}, a sum is off by {off:.3g}"
            )
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class _Batches:
    """A function of images, asked in batches of normalised float32."""

    def __init__(
        self, function: Callable[..., Any], shape: tuple[int, int, int], mean: NormStat, std: NormStat, batch: int
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError("mean, std: give both or neither")
        self.function, self.shape, self.batch = function, shape, batch
        self.mean, self.std = (
            np.asarray(default if value is None else value, np.float32).reshape(-1, 1, 1)
            for value, default in ((mean, 0.0), (std, 1.0))
        )

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        scaled = as_images(images, self.shape)
        starts = range(0, len(scaled), self.batch)
        parts = ((scaled[start : start + self.batch] - self.mean) / self.std for start in starts)
        return np.concatenate([as_array(self.function(part)) for part in parts])


def describe(model: Asked) -> dict[str, Any]:
    """What `model` is, for the set-up of a report."""
    if isinstance(model, Diffence):
        options = {name: value for name, value in model.settings().items() if value is not None}
        return {"model": f"fence around {type(model.classifier).__name__}", **options, "noise": "keyed"}
    if isinstance(model, torch.nn.Module):
        facts: dict[str, Any] = {"model": getattr(model, "original_name", type(model).__name__)}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return facts | ({"parameters": parameters} if parameters else {})
    return {"model": getattr(model, "__qualname__", type(model).__name__)}


# ---- model files -------------------------------------------------------------------------------------------------


class _Exported(torch.nn.Module):
    """A program of torch.export as a module. Its mode is that of its tracing: it has no part in `train` and `eval`."""

    def __init__(self, program: torch.export.ExportedProgram, path: str) -> None:
        super().__init__()
        self.original_name = f"exported program {pathlib.Path(path).name}"
        self._run = (program.module(),)  # in a tuple, a module is not a part
        self.program = program
        example = program.example_inputs
        images = example[0][0] if example and example[0] else torch.empty(1)
        self.dtype = images.dtype
        self.batch = None if program.range_constraints else len(images)  # a fixed batch, where no size may vary
        super().train(False)

    def forward(self, images: torch.Tensor) -> Any:
        return self._run[0](images.to(self.dtype))


def program_of(module: torch.nn.Module) -> torch.export.ExportedProgram | None:
    """The exported program that `load_model` made this module of, or None."""
    return module.program if isinstance(module, _Exported) else None


def load_model(path: str | os.PathLike[str]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A classifier from a file, in evaluation mode, and the options of `as_target` that the file knows.

    A .safetensors that diffence saved (brings mean and std), an exported program (.pt2, torch.export.save), else
    TorchScript (torch.jit.save). Nothing is unpickled. Export with the mode set: `model.eval()` first. Raises
    FileNotFoundError, or ValueError for anything else.
    """
    name = os.fspath(path)
    if not pathlib.Path(name).is_file():
        raise FileNotFoundError(f"model: no file {name}")
    if name.endswith(".safetensors"):
        model, config = classifiers.load(name)
        return model, {"mean": config["mean"], "std": config["std"]}
    try:
        if name.endswith(".pt2"):
            exported = _Exported(torch.export.load(name), name)
            return exported, {} if exported.batch is None else {"batch": exported.batch}
        scripted: torch.nn.Module = torch.jit.load(name, map_location="cpu")  # type: ignore[no-untyped-call]
        return scripted.eval(), {}
    except (RuntimeError, ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"model: {name} is neither TorchScript (torch.jit.save) nor an exported program (.pt2, torch.export.save) "
            "nor a classifier of diffence (.safetensors), or it is damaged; a pickled module or state dict is not "
            f"loaded: export it ({str(error).strip().partition('. ')[0]})"
        ) from error
