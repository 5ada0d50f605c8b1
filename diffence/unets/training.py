"""Training of a DDPM UNet after Ho, Jain and Abbeel (2020): Adam, warm-up, clipped gradients, averaged weights."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import pathlib
import time
from functools import lru_cache
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffence import _core
from diffence.files import load_tensors, save_tensors
from diffence.images import as_images
from diffence.progress import tqdm
from diffence.training import Interrupts, bf16_helps
from diffence.unets.checkpoint import save
from diffence.unets.ddpm import DDPMConfig, DDPMUNet

__all__ = ["add_arguments", "run", "train_diffusion"]

_SHORT = 50_000  # steps below which the paper's warm-up and averaging would not have ended
_STATE_KIND = "ddpm-training"
_CURVE = 100  # points of the loss curve that the final file keeps
_ORDER, _STEP = 0, 1  # independent streams of random numbers of one seed


def train_diffusion(
    images: Tensor | NDArray[Any],
    config: DDPMConfig,
    *,
    out: str | PathLike[str],
    steps: int,
    batch: int = 128,
    lr: float = 2e-4,
    warmup: int | None = None,
    clip: float = 1.0,
    ema: float = 0.9999,
    ema_warmup: bool | None = None,
    flip: bool = True,
    max_t: int | None = None,
    seed: int = 0,
    bf16: bool | None = None,
    checkpoint_every: int = 500,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> pathlib.Path:
    """Train a DDPM on `images` and write it to `out` (safetensors with its config inside); returns that path.

    Minimises E |eps - eps_theta(sqrt(abar_t) x + sqrt(1 - abar_t) eps, t)|^2 with x the image on [-1, 1], eps standard
    normal and t uniform (Ho et al. 2020, equation 14). What is saved is the moving average of the weights.

    images: (n, C, H, W) with the config's (C, H, W); uint8, or float in [0, 1].
    steps, batch: number of updates and images in each; every image is drawn once before any is drawn again.
    lr, warmup: Adam's rate, reached linearly from 0 in `warmup` steps; None takes the paper's 5000, but not more than
        a tenth of `steps`.
    clip: largest norm of the gradient.
    ema, ema_warmup: decay of the average; with ema_warmup it is min(ema, (1 + n) / (10 + n)) at step n, so that the
        initial weights do not dominate a short training. None turns it on below 50,000 steps; the paper has it off.
    flip: mirror half of the images left to right; wrong for digits and letters.
    max_t: train only the indices 0..max_t that a fence with T <= max_t evaluates (both of its modes); recorded in the
        file, and a fence with a larger T refuses it. None keeps the config's own, by default all steps.
    seed: fixes the initial weights, the order, the noise and the dropout. A training on the CPU in float32 gives the
        same bits again, on the same machine with the same number of threads, however often it was interrupted.
    bf16: compute the network under bfloat16 autocast; None does so where it is faster (CUDA, and processors with
        AVX512-BF16 or AMX).
    checkpoint_every: the state of the training is written to `out` + ".state" this often, and at Ctrl-C. The same call
        goes on from it; it is removed once `out` is complete. A call for a finished `out` of this recipe returns at
        once.
    device: None takes CUDA where there is one.

    Raises ValueError for wrong arguments, and for a state file of another recipe or other data; ArithmeticError when
    the loss or the gradient is no longer finite (the last state stays); KeyboardInterrupt after the state is written.
    """
    out = pathlib.Path(out)
    if max_t is not None:
        config = dataclasses.replace(config, max_t=max_t)
    whole = {"steps": (steps, 1), "batch": (batch, 1), "checkpoint_every": (checkpoint_every, 1), "seed": (seed, 0)}
    whole["warmup"] = (0 if warmup is None else warmup, 0)
    for name, (value, least) in whole.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    if not (lr > 0 and clip > 0 and 0 <= ema < 1):
        raise ValueError(f"expected lr > 0, clip > 0 and ema in [0, 1), got lr={lr}, clip={clip}, ema={ema}")
    data = _as_data(images, config)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    recipe = {
        "config": config.to_dict(),
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "warmup": min(5000, steps // 10) if warmup is None else warmup,
        "clip": clip,
        "ema": ema,
        "ema_warmup": steps < _SHORT if ema_warmup is None else ema_warmup,
        "flip": flip,
        "seed": seed,
        "bf16": bf16_helps(device) if bf16 is None else bf16,
        "images": len(data),
        "data": hashlib.sha256(data.numpy().data).hexdigest(),
    }
    if _is_finished(out, recipe):
        return out
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), Interrupts() as interrupts:
        torch.manual_seed(_seed(seed, _STEP, 0))
        training = _Training(config, recipe, device)
        state = out.with_name(out.name + ".state")
        if state.exists():
            training.restore(state)
        bar = tqdm(total=steps, initial=training.step, desc=f"diffusion {out.name}", unit="step", disable=not progress)
        with bar:
            _run(training, data, state, checkpoint_every, interrupts, bar)
        weights = {**training.model.state_dict(), **training.average}
    trained = {**recipe, "loss": _curve(training.losses)}
    del trained["config"]
    save(out, weights, config, trained=trained)
    state.unlink(missing_ok=True)
    return out


class _Training:
    """Everything that changes while training, and one step of it."""

    def __init__(self, config: DDPMConfig, recipe: dict[str, Any], device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.step = 0
        self.losses: list[float] = []
        self.model = DDPMUNet(config).to(device).train()
        # What is faster (docs/decisions.md).
        plain = recipe["bf16"] and device.type == "cpu"
        self.layout = torch.contiguous_format if plain else torch.channels_last
        for value in self.model.parameters():
            if value.ndim == 4:
                value.data = value.data.contiguous(memory_format=self.layout)
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=recipe["lr"], fused=True)
        alpha_bar = torch.from_numpy(_core.schedule_linear(config.steps, config.beta_first, config.beta_last))
        self.signal, self.noise = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
        self.indices = config.steps if config.max_t is None else min(config.max_t + 1, config.steps)

    def update(self, data: Tensor) -> Tensor:
        """One update of weights and average; -> (loss, norm of the gradient) on the device.

        Every random number of step n comes from a seed made of the recipe's and n, so a resumed training needs no
        state of a generator; they are drawn on the CPU, so they do not depend on the device.
        """
        recipe, count = self.recipe, self.recipe["batch"]
        torch.manual_seed(_seed(recipe["seed"], _STEP, self.step + 1))
        x = data[_order(recipe["seed"], self.step * count, count, len(data))]
        x = x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x * 2 - 1
        if recipe["flip"]:
            x = torch.where(torch.rand(count, 1, 1, 1) < 0.5, x.flip(-1), x)
        t, eps = torch.randint(self.indices, (count,)), torch.randn(x.shape)
        noised = self.signal[t, None, None, None] * x + self.noise[t, None, None, None] * eps
        for group in self.optimizer.param_groups:
            group["lr"] = recipe["lr"] * min(self.step / recipe["warmup"], 1.0) if recipe["warmup"] else recipe["lr"]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=recipe["bf16"]):
            noised = noised.to(self.device, memory_format=self.layout)
            predicted = self.model(noised, t.to(self.device))
        loss = nn.functional.mse_loss(predicted.float(), eps.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), recipe["clip"])
        self.optimizer.step()
        decay = min(recipe["ema"], (1 + self.step) / (10 + self.step)) if recipe["ema_warmup"] else recipe["ema"]
        with torch.no_grad():
            for name, value in self.parameters.items():
                self.average[name].lerp_(value, 1 - decay)
        self.step += 1
        return torch.stack([loss.detach(), norm.detach()])

    def store(self, path: pathlib.Path) -> None:
        tensors = {"losses": torch.tensor(self.losses, dtype=torch.float32)}
        for name, value in self.parameters.items():
            tensors[f"weight.{name}"] = value
            tensors[f"average.{name}"] = self.average[name]
            for moment, moments in self.optimizer.state[value].items():
                tensors[f"{moment}.{name}"] = moments
        save_tensors(path, _STATE_KIND, tensors, self.recipe)

    def restore(self, path: pathlib.Path) -> None:
        tensors, recipe = load_tensors(path, _STATE_KIND)
        differing = sorted(key for key in self.recipe.keys() | recipe.keys() if self.recipe.get(key) != recipe.get(key))
        if differing:
            there, here = ({key: values.get(key) for key in differing} for values in (recipe, self.recipe))
            raise ValueError(
                f"{path}: the state of another training: {there} there, {here} here; "
                "repeat that call to go on with it, or delete the file to start anew"
            )
        self.losses = tensors["losses"].tolist()
        self.step = len(self.losses)
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(tensors[f"weight.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                # The fused update walks through memory, so moments must lie there as their parameter does.
                self.optimizer.state[value] = {
                    "step": tensors[f"step.{name}"].to(self.device),
                    **{
                        moment: torch.empty_like(value).copy_(tensors[f"{moment}.{name}"])
                        for moment in ("exp_avg", "exp_avg_sq")
                    },
                }


def _run(
    training: _Training, data: Tensor, state: pathlib.Path, every: int, interrupts: Interrupts, bar: tqdm[Any]
) -> None:
    """Steps up to the recipe's; the state is written every so often, and only when all before it was finite."""
    # Reading a loss waits for the device; on a GPU that is done rarely, to keep its queue filled.
    window = 1 if training.device.type == "cpu" else 16
    pending: list[Tensor] = []
    started, first = time.monotonic(), training.step
    while training.step < training.recipe["steps"]:
        pending.append(training.update(data))
        last = training.step == training.recipe["steps"] or interrupts.asked
        due = last or training.step % every == 0
        if not (due or training.step % window == 0):
            continue
        for index, (loss, norm) in enumerate(torch.stack(pending).tolist()):
            if not (np.isfinite(loss) and np.isfinite(norm)):
                at = training.step - len(pending) + index + 1
                kept = f"the state before it is kept in {state}" if state.exists() else "no state was written yet"
                raise ArithmeticError(
                    f"step {at}: loss {loss}, gradient norm {norm}; {kept}. Try a smaller lr, or bf16=False"
                )
            training.losses.append(loss)
        rate = (training.step - first) * training.recipe["batch"] / (time.monotonic() - started)
        bar.set_postfix_str(f"loss {np.mean(training.losses[-100:]):.4f}, {rate:.0f} images/s", refresh=False)
        bar.update(len(pending))
        pending.clear()
        if due:  # at the last step too: then a full disk or Ctrl-C while `out` is written costs nothing
            training.store(state)
        if interrupts.asked:
            raise KeyboardInterrupt(f"stopped after step {training.step}; the same call goes on from {state}")


def _as_data(images: Tensor | NDArray[Any], config: DDPMConfig) -> Tensor:
    data = torch.as_tensor(images)
    if data.dtype == torch.uint8:
        as_images(data[:1], config.image)  # bytes stay bytes: a quarter of the memory, and no value to check
        return data.cpu().contiguous()
    return torch.from_numpy(as_images(data, config.image))


def _seed(seed: int, *stream: int) -> int:
    return int(np.random.SeedSequence((seed, *stream)).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, _ORDER, epoch)))


def _order(seed: int, first: int, batch: int, count: int) -> Tensor:
    """Elements first..first+batch-1 of the endless sequence of shuffled epochs over `count` images."""
    position = torch.arange(first, first + batch)
    epoch, place = position // count, position % count
    return torch.cat(
        [_permutation(seed, e, count)[place[epoch == e]] for e in range(int(epoch[0]), int(epoch[-1]) + 1)]
    )


def _curve(losses: list[float]) -> list[float]:
    return [round(float(part.mean()), 6) for part in np.array_split(np.array(losses), min(_CURVE, len(losses)))]


def _is_finished(out: pathlib.Path, recipe: dict[str, Any]) -> bool:
    if not out.exists():
        return False
    _, note = load_tensors(out, "ddpm")
    trained = dict(note.get("trained") or {})
    trained.pop("loss", None)
    return {**trained, "config": note.get("model")} == recipe


def _integers(text: str) -> tuple[int, ...]:
    """Comma-separated integers; an empty text is an empty tuple."""
    return tuple(int(part) for part in text.split(",") if part.strip())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `diffence train-diffusion`."""
    network, standard = parser.add_argument_group("network"), DDPMConfig()
    parser.add_argument("--data", required=True, help="name of a data set, an .npz file or a folder of images")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="file to write, for example ddpm.safetensors")
    network.add_argument("--channels", type=int, default=standard.channels, help="base width (default %(default)s)")
    network.add_argument(
        "--multipliers", type=_integers, default=standard.multipliers, metavar="M,M,..",
        help="width of each level as a multiple of the base (default 1,2,2,2)",
    )  # fmt: skip
    network.add_argument("--blocks", type=int, default=standard.blocks, help="residual blocks a level (default 2)")
    network.add_argument(
        "--attention", type=_integers, default=standard.attention, metavar="L,L,..",
        help='levels with attention, 0 is the finest (default 1; "" for none)',
    )  # fmt: skip
    network.add_argument("--dropout", type=float, default=standard.dropout, help="default %(default)s")
    network.add_argument("--groups", type=int, default=standard.groups, help="of group norm (default %(default)s)")
    parser.add_argument("--steps", type=int, default=800_000, help="updates (default %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images an update (default %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate (default %(default)s)")
    parser.add_argument("--warmup", type=int, help="steps to reach it (default 5000, at most a tenth of the steps)")
    parser.add_argument("--ema", type=float, default=0.9999, help="decay of the averaged weights (default %(default)s)")
    parser.add_argument("--max-t", type=int, help="train only for fences with T up to this (default: all 1000)")
    parser.add_argument("--no-flip", action="store_true", help="do not mirror images (digits, letters)")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where it is faster")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between states (default %(default)s)")
    parser.add_argument("--device", help="default: CUDA where there is one, else the CPU")


def run(arguments: argparse.Namespace) -> None:
    """Train as the options of `add_arguments` say."""
    from diffence.data import load  # here, so that the other users of this module need no data set

    images = load(arguments.data).images
    config = DDPMConfig(
        image=tuple(images.shape[1:]),
        channels=arguments.channels,
        multipliers=arguments.multipliers,
        blocks=arguments.blocks,
        attention=arguments.attention,
        dropout=arguments.dropout,
        groups=arguments.groups,
    )
    train_diffusion(
        images,
        config,
        out=arguments.out,
        steps=arguments.steps,
        batch=arguments.batch,
        lr=arguments.lr,
        warmup=arguments.warmup,
        ema=arguments.ema,
        flip=not arguments.no_flip,
        max_t=arguments.max_t,
        seed=arguments.seed,
        bf16=arguments.bf16,
        checkpoint_every=arguments.checkpoint_every,
        device=arguments.device,
    )
