"""The DDPM UNet: its configuration, the torch reference, and the same network run by the core."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from diffence import Engine, _core
from diffence.unets.checkpoint import load
from diffence.unets.ddpm import DDPMConfig, DDPMUNet, program, state_shapes

CIFAR10 = DDPMConfig()
ODD = {
    "gray 8x8": DDPMConfig((1, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=(), groups=8),
    "12x20": DDPMConfig((3, 12, 20), channels=24, multipliers=(1, 2, 3), blocks=1, attention=(0, 2), groups=12),
    "24x16": DDPMConfig((2, 24, 16), channels=8, multipliers=(2, 1, 3, 2), blocks=2, attention=(1, 3), groups=4),
}


def randomise(model: DDPMUNet, seed: int = 0) -> DDPMUNet:
    """Weights as after training: no layer near zero and no identity norm, so that every operation shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(0.3 * noise + float(bool(re.search(r"(block[12]\.0|norm|tail\.0)\.weight", name))))
    return model.eval()


def pattern() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the checkpoints of the authors' release, written out from its table of blocks."""

    def layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]

    def block(prefix: str, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        if text.startswith("S"):
            yield from layer(f"{prefix}.main", numbers[0], numbers[0], 3, 3)
            return
        i, o = numbers
        yield from layer(f"{prefix}.block1.0", i)
        yield from layer(f"{prefix}.block1.2", o, i, 3, 3)
        yield from layer(f"{prefix}.temb_proj.1", o, 512)
        yield from layer(f"{prefix}.block2.0", o)
        yield from layer(f"{prefix}.block2.3", o, o, 3, 3)
        if i != o:
            yield from layer(f"{prefix}.shortcut", o, i, 1, 1)
        if text.endswith("a"):
            yield from layer(f"{prefix}.attn.group_norm", o)
            for part in ("proj_q", "proj_k", "proj_v", "proj"):
                yield from layer(f"{prefix}.attn.{part}", o, o, 1, 1)

    yield "time_embedding.timembedding.0.weight", (1000, 128)
    yield from layer("time_embedding.timembedding.1", 512, 128)
    yield from layer("time_embedding.timembedding.3", 512, 512)
    yield from layer("head", 128, 3, 3, 3)
    paths = {
        "downblocks": "R128,128 R128,128 S128 R128,256a R256,256a S256 R256,256 R256,256 S256 R256,256 R256,256",
        "middleblocks": "R256,256a R256,256",
        "upblocks": "R512,256 R512,256 R512,256 S256 R512,256 R512,256 R512,256 S256 "
        "R512,256a R512,256a R384,256a S256 R384,128 R256,128 R256,128",
    }
    for path, blocks in paths.items():
        for index, text in enumerate(blocks.split()):
            yield from block(f"{path}.{index}", text)
    yield from layer("tail.0", 128)
    yield from layer("tail.2", 3, 128, 3, 3)


def test_state_dict_of_the_cifar10_network_is_that_of_the_released_checkpoints() -> None:
    expected = list(pattern())
    assert len(expected) == 329
    assert list(state_shapes(CIFAR10).items()) == expected
    model = DDPMUNet(CIFAR10)
    assert [(name, tuple(value.shape)) for name, value in model.state_dict().items()] == expected
    assert sum(value.numel() for value in model.parameters() if value.requires_grad) == 35_746_307
    assert sum(value.numel() for value in model.state_dict().values()) == 35_874_307


def test_time_table_and_initial_weights() -> None:
    torch.manual_seed(0)
    state = DDPMUNet(ODD["12x20"]).state_dict()
    table = state["time_embedding.timembedding.0.weight"].double()
    for t, i in ((0, 3), (1, 0), (17, 5), (999, 11)):
        angle = t * 10000.0 ** (-2 * i / 24)
        assert table[t, 2 * i : 2 * i + 2].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)
    for name, tensor in state.items():
        if tensor.ndim == 1:
            norm = bool(re.search(r"(block[12]\.0|norm|tail\.0)\.weight", name))
            assert torch.equal(tensor, torch.full_like(tensor, float(norm))), name
        elif name != "time_embedding.timembedding.0.weight":
            fan = (tensor.shape[0] + tensor.shape[1]) * tensor[0, 0].numel()
            gain = 1e-5 if name.endswith("block2.3.weight") or name == "tail.2.weight" else 1.0
            bound = gain * math.sqrt(6 / fan)
            assert 0.9 * bound < tensor.abs().max() <= bound, name


def test_config_survives_json_and_rejects_other_fields() -> None:
    config = dataclasses.replace(ODD["24x16"], max_t=250, dropout=0.0)
    fields = json.loads(json.dumps(config.to_dict()))
    assert DDPMConfig.from_dict(fields) == config
    with pytest.raises(ValueError, match="expected the fields"):
        DDPMConfig.from_dict({**fields, "surprise": 1})
    with pytest.raises(ValueError, match="expected the fields"):
        DDPMConfig.from_dict({name: value for name, value in fields.items() if name != "blocks"})
    with pytest.raises(ValueError, match="got NoneType"):
        DDPMConfig.from_dict(None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", (3, 30, 32)), ("image", (3, 32, 20)), ("image", (0, 32, 32)), ("image", (32, 32)), ("image", 32),
        ("channels", 48), ("channels", 0), ("channels", 128.0), ("multipliers", ()), ("multipliers", (1, 0)),
        ("multipliers", (1, 1.5)), ("blocks", 0), ("blocks", True), ("attention", (4,)), ("attention", (-1,)),
        ("dropout", 1.0), ("dropout", float("nan")), ("dropout", None), ("groups", 0), ("steps", 0),
        ("beta_first", 0.0), ("beta_last", 1e-5), ("beta_last", 1.0), ("max_t", 0), ("max_t", 1001), ("max_t", 2.0),
    ],
)  # fmt: skip
def test_config_names_the_wrong_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected .*, got "):
        dataclasses.replace(CIFAR10, **{field: value})


def test_odd_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels: expected an even number"):
        DDPMConfig(channels=15, groups=5)


def test_program_holds_every_tensor_once() -> None:
    model = DDPMUNet(ODD["24x16"])
    made = program(model.config, {name: value.numpy() for name, value in model.state_dict().items()})
    assert sorted(made.weights) == sorted(state_shapes(model.config))
    assert made.shape == (2, 24, 16)


@pytest.mark.parametrize("name", ["CIFAR-10", *ODD])
def test_core_is_as_near_to_float64_as_torch(name: str, isa: str) -> None:
    """Error of the core against float64: as promised, and at most three times that of torch in float32, five with AMX.

    (By torch's most exact convolutions, those of AVX-512 in NCHW: 2.5 and 4.3; in channels_last it is as far off.)
    """
    config = {"CIFAR-10": CIFAR10, **ODD}[name]
    x, t, torch32, torch64 = reference(name)
    made = load(randomise(DDPMUNet(config))).program
    model = _core.Model(made.shape, made.ops, made.epsilons, list(made.weights.items()), isa=isa)
    assert (model.parameters, model.time_steps) == (sum(map(math.prod, state_shapes(config).values())), config.steps)
    eps = _core.Engine(model, batch=2, threads=2).predict(x, t)
    ours, theirs = np.abs(eps - torch64), np.abs(torch32 - torch64)
    assert np.linalg.norm(ours) <= 5e-6 * np.linalg.norm(torch64)
    times = 5 if isa == "amx" else 3
    assert np.mean(ours**2) <= times**2 * np.mean(theirs**2)
    assert ours.max() <= times * theirs.max()


@pytest.mark.parametrize("bf16_isa", [isa for isa, runs in _core.isas("bf16").items() if runs])
@pytest.mark.parametrize("name", ["CIFAR-10", *ODD])
def test_bf16_is_nearly_as_near_to_float64_as_torch_bf16(name: str, bf16_isa: str) -> None:
    """Winograd's transforms round more than a direct convolution; all in all at most 1.5 times torch's error."""
    x, t, _, torch64 = reference(name)
    model = randomise(DDPMUNet({"CIFAR-10": CIFAR10, **ODD}[name]))
    engine = Engine(model, isa=bf16_isa, precision="bf16", batch=2, threads=2)
    ours = np.linalg.norm(engine.predict_noise(x, t) - torch64)
    with torch.no_grad():
        rough = model.bfloat16()(torch.from_numpy(x).bfloat16(), torch.from_numpy(t).long()).double().numpy()
    assert ours <= 1.5 * np.linalg.norm(rough - torch64)


_references: dict[str, tuple[Any, ...]] = {}


def reference(name: str) -> tuple[Any, ...]:
    """Inputs and the outputs of torch in float32 and float64, computed once for all instruction sets."""
    if name not in _references:
        config = {"CIFAR-10": CIFAR10, **ODD}[name]
        generator = torch.Generator().manual_seed(1)
        count = 1 if name == "CIFAR-10" else 3
        x = torch.randn(count, *config.image, generator=generator)
        t = torch.tensor([159, 0, 999][:count])
        model = randomise(DDPMUNet(config))
        with torch.no_grad():
            torch32 = model(x, t).double().numpy()
            torch64 = model.double()(x.double(), t).numpy()
        assert 0.1 < torch64.std() < 10  # an output that the errors can be read against
        _references[name] = (x.numpy(), t.numpy().astype(np.int32), torch32, torch64)
    return _references[name]


def test_every_group_of_tensors_reaches_the_output() -> None:
    """A program that skipped an operation would pass no test if its weights did not matter."""
    config = ODD["12x20"]
    model = randomise(DDPMUNet(config)).double()
    x, t = torch.randn(1, *config.image, dtype=torch.float64), torch.tensor([42])
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    gradients = torch.autograd.grad(model(x, t).square().sum(), list(named.values()))
    without = [name for name, gradient in zip(named, gradients, strict=True) if not gradient.abs().max() > 1e-3]
    # The softmax of the attention does not see the key's bias.
    assert without == [name for name in named if name.endswith("proj_k.bias")]
