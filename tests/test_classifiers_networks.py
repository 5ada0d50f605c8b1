"""The networks: published names and sizes, any image size, seeded weights; saving and loading them."""

from __future__ import annotations

import pathlib

import pytest
import torch

from diffence import classifiers
from diffence.files import load_tensors, save_tensors


def build(name: str = "convnet", **changes: object) -> classifiers.Classifier:
    return classifiers.build(name, **{"classes": 10, "channels": 3, "image": (32, 32), **changes})  # type: ignore[arg-type]


def published_resnet18(classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published CIFAR checkpoints of ResNet-18."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(prefix: str, width: int) -> None:
        shapes.update({f"{prefix}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{prefix}.num_batches_tracked"] = ()

    shapes["conv1.0.weight"] = (64, 3, 3, 3)
    norm("conv1.1", 64)
    before = 64
    for stage, width in ((2, 64), (3, 128), (4, 256), (5, 512)):
        for block in (0, 1):
            prefix = f"conv{stage}_x.{block}"
            shapes[f"{prefix}.residual_function.0.weight"] = (width, before, 3, 3)
            norm(f"{prefix}.residual_function.1", width)
            shapes[f"{prefix}.residual_function.3.weight"] = (width, width, 3, 3)
            norm(f"{prefix}.residual_function.4", width)
            if before != width:
                shapes[f"{prefix}.shortcut.0.weight"] = (width, before, 1, 1)
                norm(f"{prefix}.shortcut.1", width)
            before = width
    shapes["fc.weight"], shapes["fc.bias"] = (classes, 512), (classes,)
    return shapes


@pytest.mark.parametrize(("classes", "parameters"), [(10, 11_173_962), (100, 11_220_132)])
def test_resnet18_is_the_published_one(classes: int, parameters: int) -> None:
    model = build("resnet18", classes=classes)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == published_resnet18(classes)
    assert len(found) == 122
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_resnet18_halves_the_size_three_times() -> None:
    model = build("resnet18").eval()
    sizes = []
    for stage in (model.conv1, model.conv2_x, model.conv3_x, model.conv4_x, model.conv5_x):
        stage.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[1:])))
    model(torch.zeros(1, 3, 32, 32))
    assert sizes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_resnet_small_has_six_convolutions_on_its_way() -> None:
    model = build("resnet_small", width=16)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 4 and p.shape[-1] == 3]
    assert shapes == [
        (16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("name", list(classifiers.NETWORKS))
@pytest.mark.parametrize(("channels", "image"), [(1, (8, 8)), (3, (32, 32)), (4, (7, 13)), (1, (1, 2))])
def test_any_image_gives_logits_and_gradients(name: str, channels: int, image: tuple[int, int]) -> None:
    model = build(name, classes=7, channels=channels, image=image)
    logits = model(torch.rand(3, channels, *image, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (3, 7)
    assert (logits < 0).any()
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", list(classifiers.NETWORKS))
def test_weights_come_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    assert torch.equal(torch.rand(3), expected)
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    assert not torch.equal(one.fc.weight, other.fc.weight)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet19", {}, "name: .*resnet18.*resnet19"),
        ("convnet", {"classes": 1}, "classes: .* 2, got 1"),
        ("convnet", {"channels": 0}, "channels"),
        ("convnet", {"image": (0, 8)}, "image height"),
        ("convnet", {"image": (3, 8, 8)}, r"image: .*\(3, 8, 8\)"),
        ("resnet_small", {"width": 0}, "width"),
        ("resnet18", {"width": 8}, "options of resnet18"),
    ],
)
def test_build_refuses(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


def test_saved_and_loaded_it_answers_the_same(tmp_path: pathlib.Path) -> None:
    model = build("resnet_small", width=4, image=(9, 6))
    for _ in range(3):  # so that the running statistics are not those of a new network
        model(torch.rand(8, 3, 9, 6, generator=torch.Generator().manual_seed(1)))
    model.to(memory_format=torch.channels_last)
    classifiers.save(tmp_path / "a.safetensors", model, mean=0.5, std=(0.2, 0.3, 0.4), trained={"epochs": 3})
    loaded, config = classifiers.load(tmp_path / "a.safetensors")
    assert not loaded.training
    assert config == {
        "name": "resnet_small", "classes": 10, "channels": 3, "image": [9, 6], "seed": 0, "width": 4,
        "mean": [0.5] * 3, "std": [0.2, 0.3, 0.4], "trained": {"epochs": 3},
    }  # fmt: skip
    images = torch.rand(4, 3, 9, 6, generator=torch.Generator().manual_seed(2))
    model.to(memory_format=torch.contiguous_format).eval()
    assert torch.equal(loaded(images), model(images))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_save_refuses(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match=r"model: .*Linear"):
        classifiers.save(tmp_path / "a", torch.nn.Linear(1, 2), mean=0, std=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"std: .*positive"):
        classifiers.save(tmp_path / "a", build(), mean=0, std=0)
    with pytest.raises(ValueError, match=r"mean: .*3, one a channel"):
        classifiers.save(tmp_path / "a", build(), mean=(0, 0), std=1)
    with pytest.raises(ValueError, match=r"mean: .*divide by 255"):
        classifiers.save(tmp_path / "a", build(), mean=127, std=1)
    assert not list(tmp_path.iterdir())


def test_load_refuses(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"a.safetensors"):
        classifiers.load(path)
    classifiers.save(path, build(), mean=0, std=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.safetensors: not a readable"):
        classifiers.load(path)
    path.write_bytes(whole)
    tensors, config = load_tensors(path, "classifier")
    for changed in (
        {**config, "classes": 11},
        {**config, "name": "other"},
        {"name": "convnet"},
        {**config, "depth": 2},
    ):
        save_tensors(path, "classifier", tensors, changed)
        with pytest.raises(ValueError, match=r"a.safetensors: its tensors and its config"):
            classifiers.load(path)
    save_tensors(path, "ddpm", tensors, config)
    with pytest.raises(ValueError, match="holds a ddpm, expected a classifier"):
        classifiers.load(path)
