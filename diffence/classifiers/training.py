"""Training a classifier until it is done, whatever interrupts it."""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffence import data
from diffence.classifiers.base import Classifier
from diffence.classifiers.inputs import Images, Inputs, Labels, Values, accuracy, class_labels, device_of, predict
from diffence.classifiers.registry import NETWORKS, build, load, save
from diffence.files import load_tensors, save_tensors
from diffence.progress import tqdm
from diffence.training import Interrupts, bf16_helps

__all__ = ["add_arguments", "run", "train"]

_STATE_KIND = "classifier training state"


def train(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    epochs: int,
    seed: int,
    mean: Values,
    std: Values,
    lr: float = 1e-3,
    batch: int = 128,
    weight_decay: float = 1e-6,
    out: str | os.PathLike[str] | None = None,
    validation: tuple[Images, Labels] | None = None,
    augment: bool = False,
    progress: bool = True,
    bf16: bool | None = None,
    channels_last: bool = True,
    save_every: float = 30.0,
    notes: Mapping[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place with cross-entropy and Adam (amsgrad) at a constant rate; the last epoch is kept.

    images: uint8 or floating point in [0, 1], (n, C, H, W). labels: integers (n,) in 0..classes-1.
    mean, std: normalisation, one value or one a channel, in units of [0, 1] images.
    seed: of the order of the images, the augmentation and dropout; global generators are left as they were.
    out: where the trained network goes (safetensors with its config and `notes`). Until then the training's state is
        saved to `<out>.state`, every `save_every` seconds and at Ctrl-C; the same call goes on from there, to the
        same weights as if nothing had happened (on one CPU in float32: the same bits). It is removed at the end. A
        call for a finished `out` of the same training loads its weights and returns its history.
    validation: (images, labels) whose accuracy is noted after every epoch. Nothing is chosen by it.
    augment: a random flip, and a shift by up to an eighth of the size with the edge pixels repeated.
    bf16: forward and backward under bfloat16 autocast; None does so where it is faster (CUDA, and processors with
        AVX512-BF16 or AMX). channels_last: the memory layout of weights and activations.

    Returns one dict an epoch: epoch (from 1), seconds, loss and accuracy over its batches as they were trained on,
    and validation_accuracy where `validation` is given. The model is left in evaluation mode.
    Raises FloatingPointError when the loss becomes NaN or infinite; TypeError or ValueError for arguments that do not
    fit, also when `<out>.state` belongs to another training; KeyboardInterrupt after the state is written.
    """
    for name, whole, least in (("epochs", epochs, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if not isinstance(whole, int) or whole < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {whole!r}")
    if not (0 < lr < np.inf and 0 <= weight_decay < np.inf):
        raise ValueError(
            f"expected lr > 0 and weight_decay >= 0, both finite, got lr={lr}, weight_decay={weight_decay}"
        )
    if out is not None and not isinstance(model, Classifier):
        raise TypeError(f"model: only a network of diffence.classifiers.build can be saved, got {type(model).__name__}")
    device = device_of(model)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    inputs = Inputs(images, mean, std, device, layout)
    classes = predict(model, images[:1], mean=mean, std=std).shape[1]
    targets = class_labels(labels, len(inputs), classes)
    recipe = {
        "epochs": epochs,
        "seed": seed,
        "lr": lr,
        "batch": batch,
        "weight_decay": weight_decay,
        "augment": augment,
        "bf16": bf16_helps(device) if bf16 is None else bf16,
        "images": len(inputs),
        "data": inputs.digest(targets),
    }
    model.to(memory_format=layout)  # type: ignore[call-overload]
    training = _Training(model, inputs, targets, recipe)
    check = None if validation is None else functools.partial(accuracy, model, *validation, mean=mean, std=std)
    if not isinstance(model, Classifier) or out is None:
        training.run(check, progress)
        return training.history
    finished = _finished(pathlib.Path(out), model, recipe)
    if finished is not None:
        return finished
    state = pathlib.Path(f"{os.fspath(out)}.state")
    if state.exists():
        training.restore(state)
    training.run(check, progress, state, save_every)
    save(out, model, mean=mean, std=std, trained={**(notes or {}), **recipe, "history": training.history})
    state.unlink(missing_ok=True)
    return training.history


def _finished(out: pathlib.Path, model: Classifier, recipe: dict[str, Any]) -> list[dict[str, float]] | None:
    """The history of this very training if `out` holds its end, with the weights put into `model`; else None."""
    if not out.exists():
        return None
    weights, config = load(out)
    trained = config["trained"]
    if weights.config != model.config or any(trained.get(key) != value for key, value in recipe.items()):
        return None
    model.load_state_dict(weights.state_dict())
    model.eval()
    history: list[dict[str, float]] = trained["history"]
    return history


class _Training:
    """A training that can be put down and taken up between any two steps.

    All that is random comes from (seed, epoch, 0) for the order and (seed, epoch, 1 + step) inside a step, so the
    weights, Adam's moments and the number of the next step are the whole state.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, targets: Tensor, recipe: dict[str, Any]) -> None:
        self.model, self.inputs, self.recipe = model, inputs, recipe
        self.targets = targets.to(inputs.device)
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=recipe["lr"], weight_decay=recipe["weight_decay"], amsgrad=True
        )
        self.ends = [*range(recipe["batch"], len(inputs), recipe["batch"]), len(inputs)]
        if len(self.ends) > 1 and self.ends[-1] - self.ends[-2] == 1:
            del self.ends[-2]  # Batch norm knows no variance of a single value: the last image joins the batch before.
        self.epoch = self.step = 0
        self.running = {"loss": 0.0, "accuracy": 0.0, "seconds": 0.0}
        self.history: list[dict[str, float]] = []

    def run(
        self,
        check: Callable[[], float] | None,
        progress: bool,
        state: pathlib.Path | None = None,
        save_every: float = 0,
    ) -> None:
        """Do the epochs and steps that are left; `check` gives the validation accuracy."""
        saved = time.monotonic()
        n, epochs = len(self.inputs), self.recipe["epochs"]
        done = self.epoch * n + ([0, *self.ends][self.step])
        cuda = [self.inputs.device] if self.inputs.device.type == "cuda" else []
        self.model.train()
        with (
            Interrupts() as interrupts,
            torch.random.fork_rng(devices=cuda),
            tqdm(total=epochs * n, initial=done, unit="image", unit_scale=True, disable=not progress) as bar,
        ):
            while self.epoch < epochs:
                bar.set_description(f"classifier, epoch {self.epoch + 1}/{epochs}", refresh=False)
                for indices in self._batches():
                    self._learn(indices)
                    bar.update(len(indices))
                    if state is not None and (interrupts.asked or time.monotonic() - saved >= save_every):
                        self.save(state)
                        saved = time.monotonic()
                    if interrupts.asked:
                        kept = "nothing is kept" if state is None else f"the same call goes on from {state}"
                        raise KeyboardInterrupt(f"stopped in epoch {self.epoch + 1}; {kept}")
                self._close_epoch(check)
                last = self.history[-1]
                bar.set_postfix(loss=f"{last['loss']:.4f}", accuracy=f"{last['accuracy']:.4f}", refresh=False)
        self.model.eval()

    def _batches(self) -> Iterator[Tensor]:
        """The batches of this epoch from the current step on."""
        order = self._random(0).random(len(self.inputs)).argsort(kind="stable")
        starts = [0, *self.ends[:-1]]
        for start, end in list(zip(starts, self.ends, strict=True))[self.step :]:
            yield torch.from_numpy(order[start:end]).to(self.inputs.device)

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe["seed"], self.epoch, stream])

    def _learn(self, indices: Tensor) -> None:
        begun = time.perf_counter()
        draws = self._random(1 + self.step)
        dropout_seed = int(draws.integers(2**63))
        torch.default_generator.manual_seed(dropout_seed)
        if self.inputs.device.type == "cuda":
            torch.cuda.manual_seed(dropout_seed)
        images, targets = self.inputs.batch(indices), self.targets[indices]
        if self.recipe["augment"]:
            images = _augment(images, draws)
        with torch.autocast(self.inputs.device.type, torch.bfloat16, enabled=self.recipe["bf16"]):
            logits = self.model(images)
        loss = functional.cross_entropy(logits.float(), targets)
        value = loss.item()
        if not np.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in epoch {self.epoch + 1}, step {self.step + 1}; "
                f"try a learning rate below {self.recipe['lr']}, and check mean and std"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self.running["loss"] += value * len(indices)
        self.running["accuracy"] += int((logits.argmax(1) == targets).sum())
        self.running["seconds"] += time.perf_counter() - begun

    def _close_epoch(self, check: Callable[[], float] | None) -> None:
        n = len(self.inputs)
        self.epoch, self.step = self.epoch + 1, 0
        note = {
            "epoch": self.epoch,
            "loss": self.running["loss"] / n,
            "accuracy": self.running["accuracy"] / n,
            "seconds": self.running["seconds"],
        }
        if check is not None:
            note["validation_accuracy"] = check()
        self.history.append(note)
        self.running = dict.fromkeys(self.running, 0.0)

    def save(self, path: pathlib.Path) -> None:
        """Save the state, whole or not at all."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        place = {"epoch": self.epoch, "step": self.step, "running": self.running, "history": self.history}
        save_tensors(path, _STATE_KIND, tensors, {"recipe": self.recipe, **place})

    def restore(self, path: pathlib.Path) -> None:
        """Go back to the state in `path`; ValueError when it belongs to another training."""
        tensors, config = load_tensors(path, _STATE_KIND)
        other = [key for key, value in self.recipe.items() if config["recipe"].get(key) != value]
        if other:
            raise ValueError(
                f"{path}: the state of another training (other {', '.join(other)}); delete it to start anew, "
                "or give another out"
            )
        model_state: dict[str, Tensor] = {}
        adam_state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part == "model":
                model_state[rest] = tensor
            else:
                index, _, moment = rest.partition(".")
                adam_state.setdefault(int(index), {})[moment] = tensor
        try:
            self.model.load_state_dict(model_state)
        except RuntimeError as error:
            raise ValueError(f"{path}: the state of another network; delete it to start anew: {error}") from error
        parameters = list(self.model.parameters())
        for number, moments in adam_state.items():
            # In the memory layout of the weights, as Adam makes them, so that the arithmetic is the same.
            for moment in moments.keys() - {"step"}:
                moments[moment] = torch.empty_like(parameters[number]).detach().copy_(moments[moment])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": adam_state})
        self.epoch, self.step = config["epoch"], config["step"]
        self.running, self.history = config["running"], config["history"]


def _augment(images: Tensor, draws: np.random.Generator) -> Tensor:
    """Each image flipped with probability 1/2 and shifted by up to an eighth of its height and width."""
    count, _, height, width = images.shape
    rows = np.arange(height) + draws.integers(-(height // 8), height // 8 + 1, (count, 1))
    columns = np.arange(width) + draws.integers(-(width // 8), width // 8 + 1, (count, 1))
    columns = np.where(draws.random((count, 1)) < 0.5, columns, width - 1 - columns)
    device = images.device
    row = torch.from_numpy(rows.clip(0, height - 1)).to(device)[:, :, None]
    column = torch.from_numpy(columns.clip(0, width - 1)).to(device)[:, None, :]
    image = torch.arange(count, device=device)[:, None, None]
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return images.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2).contiguous(memory_format=layout)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `diffence train-classifier`."""
    parser.add_argument(
        "--data", required=True, nargs="+", help='"digits", an .npz, a folder of images, or CIFAR and SVHN as published'
    )
    parser.add_argument("--part", choices=("train", "test", "all"), help="of a CIFAR archive (default: all)")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="file to write, for example net.safetensors")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet_small", help="default %(default)s")
    parser.add_argument("--width", type=int, help="channels of the first layer (resnet_small, convnet)")
    parser.add_argument("--members", type=int, help="train on so many, drawn by --seed, and test on the rest")
    parser.add_argument("--epochs", type=int, default=100, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=128, help="images an update (default %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default %(default)s)")
    parser.add_argument("--weight-decay", type=float, default=1e-6, help="default %(default)s")
    parser.add_argument("--augment", action="store_true", help="flip and shift the images")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where it is faster")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--save-every", type=float, default=30, help="seconds between states (default %(default)s)")
    parser.add_argument("--device", help="default: CUDA where there is one, else the CPU")


def run(arguments: argparse.Namespace) -> None:
    """Train as the options of `add_arguments` say, and print the accuracy."""
    dataset = data.load(arguments.data, **({"part": arguments.part} if arguments.part else {}))
    members, held_out = dataset, None
    if arguments.members is not None:
        splits = data.split(
            dataset.labels, members=arguments.members, known=0, calibration=0, target=0, seed=arguments.seed
        )
        members, held_out = dataset.take(splits.members), dataset.take(splits.nonmembers)
    mean, std = data.normalisation(members.images)
    channels, height, width = dataset.shape
    options = {} if arguments.width is None else {"width": arguments.width}
    model = build(
        arguments.network,
        classes=dataset.classes,
        channels=channels,
        image=(height, width),
        seed=arguments.seed,
        **options,
    ).to(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    train(
        model,
        members.images,
        members.labels,
        epochs=arguments.epochs,
        seed=arguments.seed,
        mean=mean,
        std=std,
        lr=arguments.lr,
        batch=arguments.batch,
        weight_decay=arguments.weight_decay,
        out=arguments.out,
        augment=arguments.augment,
        bf16=arguments.bf16,
        save_every=arguments.save_every,
        notes={"dataset": dataset.name, "members": arguments.members},
    )
    for name, part in (("trained on", members), ("held out", held_out)):
        if part is not None:
            share = accuracy(model, part.images, part.labels, mean=mean, std=std)
            print(f"{len(part)} images {name}: accuracy {share:.4f}")
    print(f"written: {arguments.out}; mean {mean}, std {std}")
