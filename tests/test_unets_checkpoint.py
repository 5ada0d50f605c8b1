"""Diffusion models in files: our own, those of the pytorch-ddpm family, and files that are neither."""

import dataclasses
import pathlib
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from diffence import _core
from diffence.files import save_tensors
from diffence.unets.checkpoint import DiffusionModel, load, save
from diffence.unets.ddpm import DDPMConfig, DDPMUNet, state_shapes
from diffence.unets.pytorch_ddpm import infer_config

SMALL = DDPMConfig((3, 32, 32), channels=32, multipliers=(1, 2), blocks=1, attention=(1,))
State = dict[str, torch.Tensor]


def random_state(config: DDPMConfig, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict((name, torch.randn(shape, generator=generator)) for name, shape in state_shapes(config).items())


def checkpoint(state: State, **others: Any) -> dict[str, Any]:
    """The content of a checkpoint as the pytorch-ddpm scripts write it."""
    optim = {
        "state": {0: {"step": 7, "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999)}],
    }
    common = {"net_model": {}, "sched": {"last_epoch": 7, "_last_lr": [2e-4]}, "optim": optim, "step": 7}
    return {**common, "ema_model": state, **others}


def assert_same(model: DiffusionModel, config: DDPMConfig, state: State) -> None:
    assert model.config == config
    assert model.shape == config.image
    assert model.program.shape == config.image
    assert set(model.program.weights) == set(state)
    for name, array in model.program.weights.items():
        np.testing.assert_array_equal(array, state[name].numpy(), err_msg=name)


def test_released_format_of_the_cifar10_network(tmp_path: pathlib.Path) -> None:
    config = DDPMConfig()
    state = random_state(config)
    path = tmp_path / "ckpt-step800000.pt"
    torch.save(checkpoint(state, x_T=torch.randn(64, 3, 32, 32), step=800_000), path)
    model = load(path)
    assert len(model.program.weights) == 329
    assert_same(model, config, state)
    assert model.max_t == 1000
    np.testing.assert_array_equal(model.alpha_bar, _core.schedule_linear(1000, 1e-4, 0.02))
    assert model.alpha_bar[159] == pytest.approx(0.763626600, abs=1e-8)


@pytest.mark.parametrize("zipped", [True, False])
def test_variants_of_the_family(tmp_path: pathlib.Path, zipped: bool) -> None:
    config = dataclasses.replace(SMALL, image=(3, 24, 16), multipliers=(1, 3, 2), blocks=2, attention=(0, 2), steps=500)
    state = random_state(config)
    parallel = OrderedDict((f"module.{name}", value) for name, value in state.items())
    path = tmp_path / "ckpt.bin"  # found by its content
    torch.save(checkpoint(parallel, x_T=torch.zeros(1, 3, 24, 16)), path, _use_new_zipfile_serialization=zipped)
    assert_same(load(path), config, state)


def test_image_size_without_samples(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save(checkpoint(random_state(SMALL)), path)
    assert load(path).shape == (3, 32, 32)
    assert load(path, image_size=64).shape == (3, 64, 64)
    with pytest.raises(ValueError, match=r"ckpt\.pt: image: expected H and W that divide by 2"):
        load(path, image_size=33)
    torch.save(checkpoint(random_state(SMALL), x_T=torch.zeros(4, 3, 32, 32)), path)
    with pytest.raises(ValueError, match="image_size: the checkpoint is for 32x32 images, got 64"):
        load(path, image_size=64)


def test_half_precision_weights_are_widened(tmp_path: pathlib.Path) -> None:
    state = {name: value.bfloat16() for name, value in random_state(SMALL).items()}
    torch.save(checkpoint(state), tmp_path / "half.pt")
    assert_same(load(tmp_path / "half.pt"), SMALL, {name: value.float() for name, value in state.items()})


def test_own_file_round_trip(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(SMALL, max_t=200, groups=8)
    state = random_state(config)
    save(tmp_path / "a.safetensors", state, config, trained={"steps": 5})
    model = load(tmp_path / "a.safetensors")
    assert_same(model, config, state)
    assert (model.max_t, model.trained) == (200, {"steps": 5})
    assert load(model) is model
    again = DiffusionModel.from_tensors(model.tensors(), model.config.to_dict())
    assert_same(again, config, state)
    assert again.fingerprint == model.fingerprint


def test_module_round_trip(tmp_path: pathlib.Path) -> None:
    network = DDPMUNet(SMALL)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    save(tmp_path / "a.safetensors", network)
    model = load(network)
    with torch.no_grad():
        network.head.weight.add_(1)  # a loaded model does not follow the module
    assert_same(model, SMALL, state)
    assert load(tmp_path / "a.safetensors").fingerprint == model.fingerprint


def test_fingerprint_covers_config_and_weights() -> None:
    state = random_state(SMALL)
    config = SMALL.to_dict()
    prints = {DiffusionModel.from_tensors(state, config).fingerprint}
    prints.add(DiffusionModel.from_tensors(state, {**config, "groups": 16}).fingerprint)
    state["tail.2.bias"] = state["tail.2.bias"].clone()
    state["tail.2.bias"][2] += 1
    prints.add(DiffusionModel.from_tensors(state, config).fingerprint)
    assert len(prints) == 3


def test_only_trained_noise_levels_are_allowed() -> None:
    model = DiffusionModel.from_tensors(random_state(SMALL), {**SMALL.to_dict(), "max_t": 160})
    model.check_T(1)
    model.check_T(160)
    for T in (0, 161):
        with pytest.raises(ValueError, match=rf"^T: expected 1\.\.160.*got {T}"):
            model.check_T(T)


# ---------------------------------------------------------------------------------------------- files that are refused


def test_missing_surplus_and_misshapen_tensors_are_named(tmp_path: pathlib.Path) -> None:
    state = random_state(SMALL)
    del state["head.bias"], state["upblocks.0.shortcut.bias"]
    state["extra"] = torch.zeros(2)
    state["tail.0.weight"] = torch.zeros(5)
    state["tail.2.bias"] = torch.tensor([0.0, float("inf"), 0.0])
    torch.save(checkpoint(state), tmp_path / "ckpt.pt")
    with pytest.raises(ValueError, match=r"ckpt\.pt") as caught:
        load(tmp_path / "ckpt.pt")
    message = str(caught.value)
    assert "2 missing: head.bias, upblocks.0.shortcut.bias;" in message
    assert "1 surplus: extra;" in message
    assert "1 of another shape: tail.0.weight (expected (32,), got (5,));" in message
    assert "1 not finite: tail.2.bias" in message
    with pytest.raises(ValueError, match=r"2 missing: head\.bias"):
        save(tmp_path / "b.safetensors", state, SMALL)
    assert not (tmp_path / "b.safetensors").exists()


def test_long_lists_of_tensors_are_cut(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"329 missing: (\S+, ){3}\.\.\.$"):
        save(tmp_path / "a.safetensors", {}, DDPMConfig())


@pytest.mark.parametrize(
    ("content", "found"),
    [({"state_dict": {}, "epoch": 3}, r"found \['epoch', 'state_dict'\]"), ([1, 2], "found list"),
     ({"ema_model": 3}, r"found \['ema_model'\]"), (torch.zeros(3), "found Tensor"),
     (checkpoint({"weight": torch.zeros(3)}), "no tensor time_embedding.timembedding.0.weight"),
     (checkpoint({"time_embedding.timembedding.0.weight": torch.zeros(3)}), "of 2 dimensions")],
)  # fmt: skip
def test_foreign_torch_files(tmp_path: pathlib.Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth: .*{found}"):
        load(tmp_path / "other.pth")


def test_down_path_that_no_config_describes() -> None:
    state = random_state(SMALL)
    state["downblocks.7.block1.2.weight"] = torch.zeros(64, 64, 3, 3)
    with pytest.raises(ValueError, match=r"widths \[\[32\], \[64, 64\]\]"):
        infer_config(state)


class Harmful:
    """Unpickling runs code of the file's choice; here it would only make a directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.mkdir, (pathlib.Path(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_unsafe_pickles_are_refused(tmp_path: pathlib.Path, zipped: bool) -> None:
    path = tmp_path / "ckpt.pt"
    content = checkpoint(random_state(SMALL), note=Harmful(str(tmp_path / "pwned")))
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"ckpt\.pt: refused .* unpickling"):
        load(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["ours.safetensors", "new.pt", "old.pt"])
def test_truncated_files(tmp_path: pathlib.Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("ours"):
        save(path, random_state(SMALL), SMALL)
    else:
        torch.save(checkpoint(random_state(SMALL)), path, _use_new_zipfile_serialization=name == "new.pt")
    whole = path.read_bytes()
    for size in (0, 1, 3, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{name}: "):
            load(path)


def test_files_of_another_kind(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").write_text("no model at all " * 10)
    (tmp_path / "notes.pt").write_text("no model at all " * 10)
    save_tensors(tmp_path / "fence.safetensors", "fence", {"a": torch.zeros(1)}, {})
    save_tensors(tmp_path / "empty.safetensors", "ddpm", random_state(SMALL), {"model": {}, "trained": {}})
    save_tensors(tmp_path / "null.safetensors", "ddpm", random_state(SMALL), None)
    for name, message in [("notes.txt", "safetensors"), ("notes.pt", "torch file|refused or damaged"),
                          ("fence.safetensors", "holds a fence, expected a ddpm"), ("empty.safetensors", "config"),
                          ("null.safetensors", "config")]:  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name}: .*({message})"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        load(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="diffusion: expected a path, a DDPMUNet or a DiffusionModel, got Linear"):
        load(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="config: expected a DDPMConfig"):
        save(tmp_path / "a.safetensors", random_state(SMALL))
