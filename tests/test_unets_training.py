"""Training of the DDPM UNet: the recipe, resuming to the bit, and what happens when something goes wrong."""

import argparse
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from diffence import _core
from diffence.files import load_tensors
from diffence.unets import training
from diffence.unets.checkpoint import load
from diffence.unets.ddpm import DDPMConfig, DDPMUNet
from diffence.unets.training import train_diffusion

CONFIG = DDPMConfig((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, dropout=0.2)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 1, 8, 8), dtype=np.uint8)
RECIPE: dict[str, Any] = {"steps": 12, "batch": 4, "warmup": 3, "bf16": False, "checkpoint_every": 3, "progress": False}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same bits again are promised for the same number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.set_num_threads(1)
    return train_diffusion(IMAGES, CONFIG, out=tmp_path_factory.mktemp("whole") / "ddpm", **RECIPE).read_bytes()


def spy(monkeypatch: pytest.MonkeyPatch, action: Callable[[Any], None], after: bool = False) -> None:
    """Call action(training) before (or after) the body of every step."""
    update = training._Training.update

    def watched(self: Any, data: torch.Tensor) -> torch.Tensor:
        if not after:
            action(self)
        result = update(self, data)
        if after:
            action(self)
        return result

    monkeypatch.setattr(training._Training, "update", watched)


def spy_inputs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = DDPMUNet.forward

    def watched(self: DDPMUNet, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x.detach().clone(), t.clone()))
        return forward(self, x, t)

    monkeypatch.setattr(DDPMUNet, "forward", watched)
    return seen


# -------------------------------------------------------------------------------------------------- going on


def test_killed_training_goes_on_to_the_same_bits(tmp_path: pathlib.Path, uninterrupted: bytes) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    script = f"""
        import os, signal, sys
        import numpy as np, torch
        from diffence.unets import training
        from diffence.unets.ddpm import DDPMConfig

        torch.set_num_threads(1)
        update = training._Training.update
        def killed(self, data):
            if self.step == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return update(self, data)
        training._Training.update = killed
        config = DDPMConfig.from_dict({CONFIG.to_dict()!r})
        training.train_diffusion(np.load("images.npy"), config, out="ddpm", **{RECIPE!r})
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ddpm.state", "images.npy"]
    assert len(load_tensors(tmp_path / "ddpm.state", "ddpm-training")[0]["losses"]) == 6
    torch.rand(3)  # the caller's generator must not matter
    path = train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    assert path.read_bytes() == uninterrupted
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ddpm", "images.npy"]


@pytest.mark.parametrize("step", [4, 11])
def test_interrupt_ends_the_step_keeps_the_state_and_goes_on(
    tmp_path: pathlib.Path, uninterrupted: bytes, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        spy(patch, lambda run: signal.raise_signal(signal.SIGINT) if run.step == step else None)
        with pytest.raises(KeyboardInterrupt, match=rf"stopped after step {step + 1}; the same call .*ddpm\.state"):
            train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in tmp_path.iterdir()] == ["ddpm.state"]
    steps: list[int] = []
    spy(monkeypatch, lambda run: steps.append(run.step))
    assert train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE).read_bytes() == uninterrupted
    assert steps == list(range(step + 1, 12))


def test_second_interrupt_acts_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(run: Any) -> None:
        if run.step == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    spy(monkeypatch, twice)
    with pytest.raises(KeyboardInterrupt):
        train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    assert len(load_tensors(tmp_path / "ddpm.state", "ddpm-training")[0]["losses"]) == 3


def test_finished_file_is_not_trained_again(
    tmp_path: pathlib.Path, uninterrupted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ddpm"
    out.write_bytes(uninterrupted)
    steps: list[int] = []
    spy(monkeypatch, lambda run: steps.append(run.step))
    assert train_diffusion(IMAGES, CONFIG, out=out, **RECIPE) == out
    assert steps == []
    train_diffusion(IMAGES, CONFIG, out=out, **{**RECIPE, "seed": 1})
    assert steps == list(range(12))
    assert out.read_bytes() != uninterrupted


@pytest.mark.parametrize("change", [{"batch": 5}, {"seed": 1}, {"max_t": 7}, {"images": IMAGES[::-1].copy()}])
def test_state_of_another_training_is_refused(
    tmp_path: pathlib.Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spy(patch, lambda run: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    state = (tmp_path / "ddpm.state").read_bytes()
    changed = {"images": IMAGES, **RECIPE, **change}
    name = {"images": "data", "max_t": "config"}.get(next(iter(change)), next(iter(change)))
    with pytest.raises(
        ValueError, match=rf"ddpm\.state: the state of another training: {{'{name}': .* delete the file"
    ):
        train_diffusion(config=CONFIG, out=tmp_path / "ddpm", **changed)
    assert (tmp_path / "ddpm.state").read_bytes() == state


def test_damaged_state_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ddpm.state").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"ddpm\.state: not a readable safetensors file"):
        train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)


# -------------------------------------------------------------------------------------------------- going wrong


def test_full_disk_leaves_the_last_state(
    tmp_path: pathlib.Path, uninterrupted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[pathlib.Path] = []

    def filling(tensors: Any, path: pathlib.Path, **options: Any) -> None:
        writes.append(path)
        if len(writes) == 3:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr("diffence.files.save_file", filling)
        with pytest.raises(OSError, match=r"ddpm\.state: could not be written: .*No space left"):
            train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["ddpm.state"]
    assert len(load_tensors(tmp_path / "ddpm.state", "ddpm-training")[0]["losses"]) == 6
    assert train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE).read_bytes() == uninterrupted


def test_failed_final_write_keeps_the_state(
    tmp_path: pathlib.Path, uninterrupted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(training, "save", full)
        with pytest.raises(OSError, match="No space left"):
            train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["ddpm.state"]
    steps: list[int] = []
    spy(monkeypatch, lambda run: steps.append(run.step))
    assert train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE).read_bytes() == uninterrupted
    assert steps == []


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(run: Any) -> None:
        if run.step == 7:
            with torch.no_grad():
                run.parameters["head.bias"].fill_(float("nan"))

    spy(monkeypatch, poison)
    with pytest.raises(ArithmeticError, match=r"step 8: loss nan, .*kept in .*ddpm\.state"):
        train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **RECIPE)
    tensors, _ = load_tensors(tmp_path / "ddpm.state", "ddpm-training")
    assert len(tensors["losses"]) == 6
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert not (tmp_path / "ddpm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"images": IMAGES[0]}, "images: expected"), ({"images": IMAGES[:0]}, "images: .*empty"),
     ({"images": np.zeros((3, 3, 8, 8), np.uint8)}, "images: expected"), ({"images": IMAGES / 1.0}, "images: expected"),
     ({"images": np.full((2, 1, 8, 8), np.nan)}, "images: .*NaN"), ({"steps": 0}, "steps: expected an integer >= 1"),
     ({"batch": 2.5}, "batch: expected an integer >= 1"), ({"checkpoint_every": 0}, "checkpoint_every: expected"),
     ({"lr": 0.0}, "lr"), ({"clip": -1.0}, "clip"), ({"ema": 1.0}, "ema"), ({"warmup": -1}, "warmup: expected"),
     ({"max_t": 0}, "max_t: expected"), ({"max_t": 1001}, "max_t: expected"), ({"seed": -1}, "seed: expected")],
)  # fmt: skip
def test_wrong_arguments_are_named(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_diffusion(**{"images": IMAGES, "config": CONFIG, "out": tmp_path / "ddpm", **RECIPE, **change})
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize(("max_t", "largest"), [(3, 3), (None, 9), (9, 9), (10, 9)])
def test_time_steps_are_those_a_fence_evaluates(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, max_t: int | None, largest: int
) -> None:
    seen = spy_inputs(monkeypatch)
    config = DDPMConfig((1, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, steps=10)
    recipe = {**RECIPE, "steps": 3, "batch": 100}
    path = train_diffusion(IMAGES, config, out=tmp_path / "ddpm", max_t=max_t, **recipe)
    assert sorted(set(torch.cat([t for _, t in seen]).tolist())) == list(range(largest + 1))
    model = load(path)
    assert model.config.max_t == max_t
    assert model.max_t == (10 if max_t is None else max_t)


def test_forward_process_is_that_of_the_core(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against black images the network sees -sqrt(abar) + sqrt(1 - abar) eps, and eps is its target."""
    seen, targets = spy_inputs(monkeypatch), []
    loss = torch.nn.functional.mse_loss

    def watched(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        targets.append(target.clone())
        return loss(predicted, target)

    monkeypatch.setattr(torch.nn.functional, "mse_loss", watched)
    train_diffusion(np.zeros_like(IMAGES), CONFIG, out=tmp_path / "ddpm", **{**RECIPE, "steps": 1, "batch": 500})
    (x, t), eps = seen[0], targets[0]
    alpha_bar = torch.from_numpy(_core.schedule_linear(1000, 1e-4, 0.02))[t][:, None, None, None]
    torch.testing.assert_close(x, (-alpha_bar.sqrt() + (1 - alpha_bar).sqrt() * eps).float(), atol=1e-6, rtol=0)
    assert abs(eps.mean()) < 0.03
    assert abs(eps.std() - 1) < 0.03


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_images_reach_the_network_on_minus_one_to_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, flip: bool, kind: str
) -> None:
    seen = spy_inputs(monkeypatch)
    config = DDPMConfig((1, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4,
                        beta_first=1e-15, beta_last=1e-15)  # fmt: skip
    image = torch.linspace(0, 255, 64).round().to(torch.uint8).reshape(1, 1, 8, 8)
    given = image if kind == "uint8" else image.float() / 255
    train_diffusion(given, config, out=tmp_path / "ddpm", flip=flip, **{**RECIPE, "steps": 1, "batch": 40})
    plain = image.double() / 127.5 - 1
    same = [bool(torch.allclose(x.double(), plain[0], atol=1e-4)) for x in seen[0][0]]
    mirrored = [bool(torch.allclose(x.double(), plain[0].flip(-1), atol=1e-4)) for x in seen[0][0]]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert (8 < sum(mirrored) < 32) if flip else not any(mirrored)


def test_warm_up_and_average(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    weights: list[torch.Tensor] = []

    def watch(run: Any) -> None:
        rates.append(run.optimizer.param_groups[0]["lr"])
        weights.append(run.parameters["tail.2.weight"].detach().clone())

    initial: list[torch.Tensor] = []
    spy(monkeypatch, lambda run: initial.append(run.parameters["tail.2.weight"].detach().clone()))
    spy(monkeypatch, watch, after=True)
    recipe = {**RECIPE, "steps": 6, "lr": 0.01}
    for ema_warmup, name in ((False, "a"), (True, "b")):
        for seen in (rates, weights, initial):
            seen.clear()
        path = train_diffusion(IMAGES, CONFIG, out=tmp_path / name, ema=0.5, ema_warmup=ema_warmup, **recipe)
        assert rates == pytest.approx([0, 0.01 / 3, 0.02 / 3, 0.01, 0.01, 0.01])
        average = initial[0]
        for n, value in enumerate(weights):
            decay = min(0.5, (1 + n) / (10 + n)) if ema_warmup else 0.5
            average = decay * average + (1 - decay) * value
        torch.testing.assert_close(load(path).tensors()["tail.2.weight"], average, atol=1e-7, rtol=1e-5)


def test_every_image_is_drawn_once_before_any_is_drawn_again() -> None:
    order = torch.cat([training._order(5, 4 * step, 4, 10) for step in range(10)]).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in order.tolist())
    assert len({tuple(epoch) for epoch in order.tolist()}) == 4
    assert sorted(training._order(5, 0, 30, 10).tolist()) == sorted(list(range(10)) * 3)


def test_callers_generator_is_left_alone(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **{**RECIPE, "steps": 2})
    assert torch.equal(torch.rand(4), expected)


def test_training_learns_and_says_how_it_went(tmp_path: pathlib.Path) -> None:
    recipe = {**RECIPE, "steps": 100, "batch": 8, "lr": 5e-3, "warmup": None}
    trained = load(train_diffusion(IMAGES[:1] // 8, CONFIG, out=tmp_path / "ddpm", flip=False, **recipe)).trained
    losses = trained["loss"]
    assert len(losses) == 100
    assert 0.9 < np.mean(losses[:5]) < 1.1
    assert np.mean(losses[-10:]) < 0.5
    assert (trained["steps"], trained["images"], trained["seed"], trained["warmup"]) == (100, 1, 0, 10)
    assert trained["ema_warmup"] is True
    json.dumps(dict(trained))


def test_bfloat16_trains(tmp_path: pathlib.Path) -> None:
    path = train_diffusion(IMAGES, CONFIG, out=tmp_path / "ddpm", **{**RECIPE, "bf16": True})
    assert load(path).trained["bf16"] is True
    assert 0.5 < load(path).trained["loss"][0] < 2


def test_command_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    data = SimpleNamespace(load=lambda name: SimpleNamespace(images=IMAGES) if name == "ours" else None)
    monkeypatch.setitem(sys.modules, "diffence.data", data)
    line = f"--data ours --out {tmp_path}/ddpm --channels 8 --multipliers 1,3 --blocks 1 --attention= --groups 4 "
    line += "--dropout 0 --steps 2 --batch 3 --lr 1e-3 --warmup 1 --ema 0.9 --max-t 50 --no-flip --no-bf16 --seed 4"
    training.run(parser.parse_args(line.split()))
    model = load(tmp_path / "ddpm")
    expected = DDPMConfig((1, 8, 8), channels=8, multipliers=(1, 3), blocks=1, attention=(), groups=4, dropout=0.0)
    assert model.config == DDPMConfig.from_dict({**expected.to_dict(), "max_t": 50})
    wanted = {"steps": 2, "batch": 3, "lr": 1e-3, "warmup": 1, "ema": 0.9, "flip": False, "bf16": False, "seed": 4}
    assert {name: model.trained[name] for name in wanted} == wanted
