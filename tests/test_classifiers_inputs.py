"""Asking a classifier: normalisation, batches, modes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffence.classifiers import accuracy, build, predict

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 2, 6, 6), np.uint8)
NORM = {"mean": (0.4, 0.6), "std": (0.2, 0.3)}


class Sums(torch.nn.Module):
    """Logits that show what came in: the mean of each channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        assert not self.training
        return images.mean((2, 3))


def test_uint8_and_float_and_tensors_are_the_same() -> None:
    wanted = ((IMAGES / 255).mean((2, 3)) - NORM["mean"]) / NORM["std"]
    floats = (IMAGES / 255).astype(np.float32)
    turned = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for images in (IMAGES, floats, torch.from_numpy(IMAGES), torch.from_numpy(floats).double(), turned):
        for batch in (1, 3, 10, 256):
            logits = predict(Sums(), images, batch=batch, **NORM)
            assert logits.dtype == torch.float32
            np.testing.assert_allclose(logits, wanted, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back(training: bool) -> None:
    model = build("convnet", classes=3, channels=2, image=(6, 6)).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict(model, IMAGES, **NORM)
    assert model.training is training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    with pytest.raises(ValueError, match="images"):
        predict(model, IMAGES[0], **NORM)
    assert model.training is training


def test_accuracy_is_the_share_of_right_answers() -> None:
    right = predict(Sums(), IMAGES, **NORM).argmax(1)
    labels = right.clone()
    labels[:3] = 1 - labels[:3]
    assert accuracy(Sums(), IMAGES, right, **NORM) == 1
    assert accuracy(Sums(), IMAGES, labels.numpy().astype(np.uint8), **NORM) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("images", "changes", "error", "message"),
    [
        (IMAGES.astype(np.int64), {}, TypeError, "images: .*int64"),
        (IMAGES.astype(np.float32), {}, ValueError, r"images: .*0\.\.255"),
        (IMAGES[:0], {}, ValueError, "images: .*empty"),
        (np.full((1, 2, 6, 6), np.nan, np.float32), {}, ValueError, "images: .*NaN"),
        (IMAGES, {"mean": (0.1, 0.2, 0.3)}, ValueError, "mean: .*2, one a channel"),
        (IMAGES, {"std": (0.1, 0)}, ValueError, "std: .*positive"),
        (IMAGES, {"mean": float("nan")}, ValueError, "mean: .*finite"),
        (IMAGES, {"mean": 120}, ValueError, "mean: .*255"),
        (IMAGES, {"batch": 0}, ValueError, "batch: .*got 0"),
    ],
)
def test_predict_refuses(images: np.ndarray, changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        predict(Sums(), images, **{**NORM, **changes})


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(10), TypeError, "labels: .*float64"),
        (np.zeros(9, int), ValueError, r"labels: .*\(10,\)"),
        (np.full(10, 2), ValueError, r"labels: .*0\.\.1.*got 2\.\.2"),
        (np.full(10, -1), ValueError, r"labels: .*got -1\.\.-1"),
    ],
)
def test_accuracy_refuses(labels: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        accuracy(Sums(), IMAGES, labels, **NORM)
