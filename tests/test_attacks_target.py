"""The black box that attacks ask: it checks every answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffence.attacks import Loss, Outputs, Target

IMAGES = np.random.default_rng(0).integers(256, size=(4, 1, 2, 2), dtype=np.uint8)


def linear(images: Any) -> np.ndarray:
    return np.asarray(images, np.float64).reshape(len(images), 4)[:, :3]


def test_answers_are_float64_whatever_the_model_returns() -> None:
    for ask in (linear, lambda images: torch.from_numpy(linear(images)).float()):
        answers = Target(ask)(IMAGES)
        assert answers.dtype == np.float64
        np.testing.assert_array_equal(answers, linear(IMAGES))
    np.testing.assert_array_equal(Target(linear).labels(IMAGES), linear(IMAGES).argmax(1))
    outputs = Loss().collect(Target(linear), IMAGES, [0, 1, 2, 0])
    assert type(outputs) is Outputs
    np.testing.assert_array_equal(outputs.true_labels, [0, 1, 2, 0])


def test_labels_are_asked_alone_where_that_is_possible() -> None:
    def refuse(images: Any) -> Any:
        raise AssertionError("asked for logits")

    assert Target(refuse, ask_labels=lambda images: np.arange(len(images))).labels(IMAGES).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda images: linear(images)[:-1], "expected an answer for each of 4 images, got 3"),
        (lambda images: linear(images)[:, 0], "target: expected shape"),
        (lambda images: linear(images) * np.nan, "NaN"),
    ],
)
def test_wrong_answers_are_refused(ask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(ask)(IMAGES)


def test_only_keyed_targets_can_be_asked_with_fresh_noise() -> None:
    with pytest.raises(ValueError, match="no secret noise"):
        Target(linear).rekeyed()
    assert Target(linear, rekey=lambda: Target(lambda images: -linear(images))).rekeyed()(IMAGES).max() <= 0
