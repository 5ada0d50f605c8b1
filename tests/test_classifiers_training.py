"""Training a classifier: it learns, it is reproducible, and whatever stops it, it goes on to the same bits."""

from __future__ import annotations

import argparse
import os
import pathlib
import signal
from typing import Any

import numpy as np
import pytest
import torch

from diffence import classifiers
from diffence.classifiers import training
from diffence.classifiers.inputs import Inputs
from diffence.classifiers.training import train
from diffence.files import load_tensors

RNG = np.random.default_rng(0)
LABELS = np.arange(50) % 3
# The class is the channel that is brighter than the others.
IMAGES = RNG.integers(0, 160, (50, 3, 8, 8), np.uint8)
IMAGES[np.arange(50), LABELS] += 80
RECIPE: dict[str, Any] = {
    "epochs": 4, "seed": 7, "mean": 0.4, "std": (0.2, 0.25, 0.3), "batch": 16, "progress": False, "bf16": False
}  # fmt: skip


def build(name: str = "resnet_small", seed: int = 0) -> classifiers.Classifier:
    # With 4 channels oneDNN (torch 2.13, AVX2) writes outside its memory in the backward pass.
    return classifiers.build(name, classes=3, channels=3, image=(8, 8), width=8, seed=seed)


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for (name, tensor), again in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(tensor, again), name


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, stop: Any) -> None:
    """Let `stop` happen inside the step of that number, counted over all epochs from 1."""
    learn, count = training._Training._learn, iter(range(1, 10**6))

    def learn_or_stop(self: Any, indices: torch.Tensor) -> None:
        learn(self, indices)
        if next(count) == step:
            stop()

    monkeypatch.setattr(training._Training, "_learn", learn_or_stop)


def fail() -> None:
    raise OSError("the machine goes down")


@pytest.mark.parametrize("name", ["resnet_small", "convnet"])
@pytest.mark.parametrize("augment", [False, True])
def test_learns_what_can_be_separated(name: str, augment: bool) -> None:
    model = build(name)
    history = train(model, IMAGES, LABELS, **{**RECIPE, "epochs": 25, "lr": 1e-2}, augment=augment)
    norm = {"mean": RECIPE["mean"], "std": RECIPE["std"]}
    assert classifiers.accuracy(model, IMAGES, LABELS, **norm) == 1
    assert not model.training
    assert [note["epoch"] for note in history] == list(range(1, 26))
    assert history[-1]["accuracy"] > 0.95
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert all(note["seconds"] > 0 for note in history)


def test_batches_and_history_of_every_epoch() -> None:
    model = build()
    sizes: list[int] = []
    model.register_forward_hook(lambda module, given, logits: sizes.append(len(logits)))
    history = train(model, IMAGES, LABELS, **RECIPE, validation=(IMAGES[:9], LABELS[:9]))
    assert sizes == [1, *([16, 16, 16, 2, 9] * 4)]  # a look at the classes, then the batches and the validation
    share = classifiers.accuracy(model, IMAGES[:9], LABELS[:9], mean=RECIPE["mean"], std=RECIPE["std"])
    assert [note["epoch"] for note in history] == [1, 2, 3, 4]
    assert history[-1]["validation_accuracy"] == share
    # With a rate of nearly nothing and one batch, the loss is that of the network as it came.
    model = build().train()
    logits = model((torch.from_numpy(IMAGES) / 255 - 0.4) / torch.tensor(RECIPE["std"]).reshape(3, 1, 1))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS)).item()
    right = (logits.argmax(1).numpy() == LABELS).mean()
    (note,) = train(build(), IMAGES, LABELS, **{**RECIPE, "epochs": 1, "batch": 50, "lr": 1e-12})
    assert note["loss"] == pytest.approx(loss, rel=1e-5)
    assert note["accuracy"] == right


def test_a_last_single_image_joins_the_batch_before() -> None:
    sizes = []
    model = build()
    model.register_forward_hook(lambda module, given, logits: sizes.append(len(logits)) if module.training else None)
    train(model, IMAGES[:49], LABELS[:49], **{**RECIPE, "epochs": 1})
    assert sizes == [16, 16, 17]
    sizes.clear()
    train(model, IMAGES[:1], LABELS[:1], **{**RECIPE, "epochs": 1})
    assert sizes == [1]


def test_every_epoch_has_every_image_once_in_an_order_of_its_own() -> None:
    inputs = Inputs(IMAGES, 0, 1, torch.device("cpu"))
    recipe = {"batch": 16, "lr": 1, "weight_decay": 0, "seed": 3}
    state = training._Training(build(), inputs, torch.from_numpy(LABELS), recipe)
    orders = []
    for state.epoch in range(3):
        orders.append(torch.cat(list(state._batches())))
        assert orders[-1].sort().values.tolist() == list(range(50))
    assert orders[0].tolist() != list(range(50))
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[1], orders[2])


def test_same_seed_same_bits_and_global_generators_untouched() -> None:
    models = []
    for global_seed, recipe in ((1, RECIPE), (2, RECIPE), (1, {**RECIPE, "seed": 8})):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        models.append(build())
        train(models[-1], IMAGES, LABELS, **recipe)
        assert torch.equal(torch.get_rng_state(), before[0])
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert_same(models[0], models[1])
    assert not torch.equal(models[0].fc.weight, models[2].fc.weight)


class WithDropout(classifiers.Classifier):
    """A network that draws random numbers of torch's own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build()
        self.drop = torch.nn.Dropout(0.5)
        self.config = {**self.inner.config, "name": "dropout"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(self.drop(images))


@pytest.mark.parametrize("step", [1, 5, 7, 16])  # 5: with an epoch done but not closed
@pytest.mark.parametrize("kind", ["plain", "augment", "dropout"])
def test_goes_on_to_the_same_bits(
    step: int, kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**RECIPE, "augment": kind == "augment", "save_every": 0, "validation": (IMAGES, LABELS)}
    make = WithDropout if kind == "dropout" else build
    whole = make()
    wanted = train(whole, IMAGES, LABELS, **recipe)
    out = tmp_path / "net.safetensors"
    with monkeypatch.context() as patch:
        stop_at(patch, step, fail)
        with pytest.raises(OSError, match="goes down"):
            train(make(), IMAGES, LABELS, **recipe, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors.state"] * (step > 1)
    steps = []
    resumed = make()
    resumed.register_forward_hook(lambda module, given, logits: steps.append(1) if module.training else None)
    history = train(resumed, IMAGES, LABELS, **recipe, out=out)
    assert len(steps) == 16 - (step - 1)
    assert_same(resumed, whole)
    for note, other in zip(history, wanted, strict=True):
        assert {**note, "seconds": 0} == {**other, "seconds": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_state_is_saved_by_time(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10**6, 10))
    monkeypatch.setattr(training.time, "monotonic", lambda: next(seconds))
    saves = []
    monkeypatch.setattr(training._Training, "save", lambda self, path: saves.append((self.epoch, self.step)))
    train(build(), IMAGES, LABELS, **RECIPE, out=tmp_path / "a", save_every=25)
    assert len(saves) in range(4, 9)  # 16 steps of at least 10 s each


def test_ctrl_c_keeps_the_step_that_was_under_way(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build()
    train(whole, IMAGES, LABELS, **RECIPE)
    out = tmp_path / "net.safetensors"
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_at(patch, 7, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match=r"epoch 2; the same call goes on from .*net\.safetensors\.state"):
            train(build(), IMAGES, LABELS, **RECIPE, out=out)
    assert signal.getsignal(signal.SIGINT) is handler
    _, config = load_tensors(f"{out}.state", "classifier training state")
    assert (config["epoch"], config["step"]) == (1, 3)
    resumed = build(seed=99)  # whose own weights do not matter
    resumed.config = build().config
    train(resumed, IMAGES, LABELS, **RECIPE, out=out)
    assert_same(resumed, whole)
    with monkeypatch.context() as patch:
        stop_at(patch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="nothing is kept"):
            train(build(), IMAGES, LABELS, **RECIPE)


def test_the_state_of_another_training_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a"
    with monkeypatch.context() as patch:
        stop_at(patch, 2, fail)
        with pytest.raises(OSError, match="goes down"):
            train(build(), IMAGES, LABELS, **RECIPE, out=out, save_every=0)
    state = out.with_suffix(".state")
    before = state.read_bytes()
    for changes, names in (({"lr": 0.1, "seed": 1}, "seed, lr"), ({"mean": 0.5}, "data")):
        with pytest.raises(ValueError, match=rf"a\.state: the state of another training \(other {names}\)"):
            train(build(), IMAGES, LABELS, **{**RECIPE, **changes}, out=out)
    for images, labels in ((IMAGES ^ 1, LABELS), (IMAGES, (LABELS + 1) % 3)):
        with pytest.raises(ValueError, match="other data"):
            train(build(), images, labels, **RECIPE, out=out)
    with pytest.raises(ValueError, match="other network"):
        train(build("convnet"), IMAGES, LABELS, **RECIPE, out=out)
    assert state.read_bytes() == before
    state.write_bytes(before[:-50])
    with pytest.raises(ValueError, match=r"a\.state: not a readable"):
        train(build(), IMAGES, LABELS, **RECIPE, out=out)


def test_a_finished_training_is_not_done_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a"
    first, again = build(), build()
    history = train(first, IMAGES, LABELS, **RECIPE, out=out, notes={"why": "test"})
    loaded, config = classifiers.load(out)
    assert_same(loaded, first)
    assert config["trained"]["why"] == "test"
    assert config["trained"]["history"] == history
    assert (config["mean"], config["std"]) == ([0.4] * 3, [0.2, 0.25, 0.3])
    with monkeypatch.context() as patch:
        stop_at(patch, 1, fail)
        assert train(again, IMAGES, LABELS, **RECIPE, out=out) == history
        assert not again.training
        assert_same(again, first)
        with pytest.raises(OSError, match="goes down"):
            train(build(), IMAGES, LABELS, **{**RECIPE, "epochs": 5}, out=out)


def test_a_loss_that_is_no_number_stops_it(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        FloatingPointError, match=r"loss is (nan|inf) in epoch \d, step \d; try a learning rate below 1e\+30"
    ):
        train(build(), IMAGES, LABELS, **RECIPE, lr=1e30, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_augmented_images_are_flipped_and_shifted_copies() -> None:
    images = torch.from_numpy(RNG.random((400, 2, 16, 8)).astype(np.float32))
    got = training._augment(images, np.random.default_rng(1))
    seen = set()
    padded = torch.nn.functional.pad(images, (1, 1, 2, 2), mode="replicate")
    for index in range(len(images)):
        matches = [
            (flip, down, right)
            for flip in (False, True)
            for down in range(5)
            for right in range(3)
            if torch.equal(
                got[index],
                (lambda crop, flip: crop.flip(2) if flip else crop)(
                    padded[index, :, down : down + 16, right : right + 8], flip
                ),
            )
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 30
    turned = training._augment(images.contiguous(memory_format=torch.channels_last), np.random.default_rng(1))
    assert torch.equal(turned, got)
    assert turned.is_contiguous(memory_format=torch.channels_last)


def test_options_that_change_only_speed() -> None:
    losses = {}
    for name, changes in {"plain": {}, "nchw": {"channels_last": False}, "bf16": {"bf16": True}}.items():
        losses[name] = train(build(), IMAGES, LABELS, **{**RECIPE, **changes})[0]["loss"]
    assert losses["nchw"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.05)
    assert losses["bf16"] != losses["plain"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": LABELS.astype(np.float32)}, TypeError, "labels: .*float32"),
        ({"labels": LABELS + 1}, ValueError, r"labels: .*0\.\.2.*got 1\.\.3"),
        ({"labels": LABELS[:-1]}, ValueError, r"labels: .*\(50,\)"),
        ({"images": IMAGES[:, :1]}, ValueError, "std"),
        ({"images": IMAGES.astype(np.float32)}, ValueError, "images"),
        ({"epochs": 0}, ValueError, "epochs: .*got 0"),
        ({"batch": 1.5}, ValueError, "batch: .*got 1.5"),
        ({"seed": -1}, ValueError, "seed"),
        ({"lr": 0}, ValueError, "lr > 0"),
        ({"lr": float("nan")}, ValueError, "lr=nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay=-1"),
    ],
)
def test_refuses(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(build(), **{"images": IMAGES, "labels": LABELS, **RECIPE, **changes})


def test_only_networks_that_can_be_built_again_are_saved(tmp_path: pathlib.Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    with pytest.raises(TypeError, match=r"diffence\.classifiers\.build can be saved, got Sequential"):
        train(model, IMAGES, LABELS, **RECIPE, out=tmp_path / "a")
    assert len(train(model, IMAGES, LABELS, **RECIPE)) == 4


def test_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "mine.npz", images=IMAGES.transpose(0, 2, 3, 1), labels=LABELS)
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    out = tmp_path / "net.safetensors"
    words = f"--data {tmp_path / 'mine.npz'} --out {out} --members 40 --network resnet_small --width 8 --epochs 2"
    training.run(parser.parse_args(words.split()))
    text = capsys.readouterr().out
    assert "40 images trained on: accuracy" in text
    assert "10 images held out: accuracy" in text
    _, config = classifiers.load(out)
    assert (config["classes"], config["image"], config["width"]) == (3, [8, 8], 8)
    assert config["trained"]["images"] == config["trained"]["members"] == 40
    assert config["trained"]["dataset"] == "mine"
