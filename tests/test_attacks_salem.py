"""Salem's attack: top-3 probabilities, without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_attacks_scores import random_outputs

from diffence import metrics
from diffence.attacks import Outputs, Salem
from diffence.attacks import salem as module

KNOWN = random_outputs(160, 1, right=8.0), random_outputs(140, 2, right=1.0)
TARGETS = random_outputs(300, 3, right=8.0), random_outputs(300, 4, right=1.0)


def test_it_learns() -> None:
    attack = Salem(seed=0, epochs=25).fit(*KNOWN)
    scores = [attack.score(own) for own in TARGETS]
    assert metrics.auc(*scores) > 0.85
    assert metrics.balanced_accuracy(*(attack.predict(own) for own in TARGETS)) > 0.75
    assert all(own.shape == (300,) and own.dtype == np.float64 for own in scores)


def test_polarity_on_a_separable_case() -> None:
    sure = 9.0 * np.eye(4)[np.arange(40) % 4]
    members, nonmembers = Outputs(sure), Outputs(0.1 * sure)
    attack = Salem(seed=0).fit(members, nonmembers)
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert metrics.tnr_at_fnr(*scores) == 1
    assert attack.predict(members).all()
    assert not attack.predict(nonmembers).any()


def test_constant_answers_say_nothing() -> None:
    same = Outputs(np.ones((20, 4)))
    scores = Salem(seed=0, epochs=3).fit(same, same).score(same)
    assert metrics.auc(scores[:10], scores[10:]) == 0.5


def test_inputs_are_the_three_largest_in_order() -> None:
    p = [[0.1, 0.4, 0.05, 0.3, 0.15]]
    np.testing.assert_allclose(module._inputs(Outputs.from_probabilities(p)).numpy(), [[0.4, 0.3, 0.15]], rtol=1e-6)
    order = Outputs(KNOWN[0].logits[:, ::-1])
    attack = Salem(seed=0, epochs=1).fit(*KNOWN)
    np.testing.assert_allclose(attack.score(order), attack.score(KNOWN[0]), rtol=1e-5, atol=1e-6)


def test_two_classes() -> None:
    known = Outputs([[5.0, 0]] * 20), Outputs([[0.5, 0]] * 20)
    attack = Salem(seed=0, epochs=20).fit(*known)
    assert attack.network_[0].in_features == 2
    assert metrics.auc(*(attack.score(own) for own in known)) == 1


def test_the_network_is_the_papers() -> None:
    shapes = [tuple(parameter.shape) for parameter in module._network(3, 0).parameters()]
    assert shapes == [(64, 3), (64,), (1, 64), (1,)]


def test_one_shadow_model_teaches_it_about_another() -> None:
    """As the paper has it: fitted to the outputs of a shadow, evaluated on those of the target."""
    shadow = random_outputs(300, 11, right=7.0), random_outputs(300, 12, right=1.0)
    attack = Salem(seed=0, epochs=15).fit(*shadow)
    assert metrics.auc(*(attack.score(own) for own in TARGETS)) > 0.85


def test_the_seed_decides_and_nothing_else() -> None:
    first = Salem(seed=1, epochs=2).fit(*KNOWN).score(TARGETS[0])
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with torch.inference_mode():
        second = Salem(seed=1, epochs=2).fit(*KNOWN).score(TARGETS[0])
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, second)
    assert (first != Salem(seed=2, epochs=2).fit(*KNOWN).score(TARGETS[0])).any()


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^epochs: "):
        Salem(seed=0, epochs=0)
    with pytest.raises(RuntimeError, match=r"^salem: call fit"):
        Salem(seed=0).score(KNOWN[0])
    with pytest.raises(ValueError, match=r"^nonmembers: expected logits of 5 classes, got 4"):
        Salem(seed=0).fit(KNOWN[0], random_outputs(5, 0, classes=4))
