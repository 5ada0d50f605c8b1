"""Writes what all engines of a case share: weights, inputs, the results in float64, and the networks of the peers.

    python -m harness.prepare FOLDER < options.json

Options: network (a name of harness.networks.NETWORKS), checkpoint (a file, or null), batch, fenced, draws, T, images,
onnx, openvino (whether those peers need their files), bf16 (whether PyTorch's bf16 error is wanted). Prints one line of
JSON: facts about the network.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffence.unets
from diffence.unets import DDPMConfig, DDPMUNet
from harness.fencing import reconstruct
from harness.layers import layers
from harness.networks import NETWORKS, random_unet
from harness.worker import relative_l2


def _network(options: dict[str, Any]) -> DDPMUNet:
    if options["checkpoint"] is None:
        return random_unet(NETWORKS[options["network"]])
    model = diffence.unets.load(options["checkpoint"])
    network = DDPMUNet(model.config).eval()
    network.load_state_dict(model.tensors())
    return network


def _photographs(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Smooth random images in [0, 1]."""
    coarse = torch.rand(count, shape[0], 4, 4, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bicubic").clamp(0, 1)


def prepare(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Write the files; return facts."""
    network = _network(options)
    network.requires_grad_(False)
    config: DDPMConfig = network.config
    diffence.unets.save(folder / "network.safetensors", network)
    program = diffence.unets.load(network).program
    generator = torch.Generator().manual_seed(1)
    batch = options["batch"]
    x = torch.randn(batch, *config.image, generator=generator)
    t = torch.randint(0, min(160, config.max_t or config.steps), (batch,), generator=generator)
    rows = sorted({0, batch - 1})
    facts: dict[str, Any] = {
        "flop": sum(layer.flop for layer in layers(program)),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "config": config.to_dict(),
    }

    for wanted, write in (("onnx", _write_onnx), ("openvino", _write_openvino)):
        if options[wanted]:
            write(folder, network, x, t)

    exact = DDPMUNet(config).eval().double()
    exact.load_state_dict({name: tensor.double() for name, tensor in network.state_dict().items()})
    exact.requires_grad_(False)
    eps = exact(x[rows].double(), t[rows]).numpy()
    np.savez(folder / "inputs.npz", x=x.numpy(), t=t.numpy(), rows=rows, eps=eps)
    if options["bf16"]:
        rough = DDPMUNet(config).eval().to(torch.bfloat16)
        rough.load_state_dict(network.state_dict())
        facts["bf16_error"] = relative_l2(rough(x[rows].bfloat16(), t[rows]).detach().float(), eps)
    if options["fenced"]:
        _write_fence(folder, exact, config, options)
    return facts


def _write_fence(folder: Path, exact: DDPMUNet, config: DDPMConfig, options: dict[str, Any]) -> None:
    from diffence import _core

    images = _photographs(options["images"], config.image)
    noise = torch.randn(options["draws"], *config.image, generator=torch.Generator().manual_seed(3))
    draws = [0, options["draws"] - 1]
    alpha_bar = _core.schedule_linear(config.steps, config.beta_first, config.beta_last)
    levels = torch.from_numpy(alpha_bar)
    references = {
        kind: reconstruct(exact, levels, images[0].double(), noise[draws].double(), options["T"], kind).numpy()
        for kind in ("paper", "release")
    }
    arrays = {"images": images.numpy(), "noise": noise.numpy(), "draws": np.array(draws), "alpha_bar": alpha_bar}
    np.savez(folder / "fence.npz", **arrays, **references)  # type: ignore[arg-type]


def _write_onnx(folder: Path, network: DDPMUNet, x: torch.Tensor, t: torch.Tensor) -> None:
    torch.onnx.export(
        network,
        (x, t),
        str(folder / "network.onnx"),
        input_names=["x", "t"],
        output_names=["eps"],
        opset_version=18,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _write_openvino(folder: Path, network: DDPMUNet, x: torch.Tensor, t: torch.Tensor) -> None:
    import openvino

    shapes = [openvino.PartialShape(list(tensor.shape)) for tensor in (x, t)]
    model = openvino.convert_model(network, example_input=(x, t), input=shapes)
    openvino.save_model(model, folder / "network.xml", compress_to_fp16=False)


def main() -> None:
    """Standard output carries the facts alone; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    facts = prepare(Path(sys.argv[1]), json.load(sys.stdin))
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
