"""The NN attack: it learns, it is reproducible, it touches no global state and sees no target that it should not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from test_attacks_scores import random_outputs

from diffence import metrics
from diffence.attacks import NN, Correctness, Outputs
from diffence.attacks import nn as module

KNOWN = random_outputs(160, 1, right=8.0, classes=3), random_outputs(140, 2, right=1.0, classes=3)
TARGETS = random_outputs(200, 3, right=8.0, classes=3), random_outputs(200, 4, right=1.0, classes=3)


def weights(attack: NN) -> torch.Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in attack.network_.parameters()])


@pytest.mark.parametrize("selection", ["held-out", "last", "oracle"])
def test_it_learns(selection: Any) -> None:
    attack = NN(seed=0, selection=selection, epochs=40)
    attack.fit(*KNOWN, targets=TARGETS if selection == "oracle" else None)
    scores = [attack.score(own) for own in TARGETS]
    floor = metrics.auc(*(Correctness().score(own) for own in TARGETS))
    assert floor < 0.85
    assert metrics.auc(*scores) > 0.93  # by the seeds at hand, not by luck: without training it is near 0.5
    assert metrics.balanced_accuracy(*(attack.predict(own) for own in TARGETS)) > 0.85
    assert all(own.dtype == np.float64 and own.shape == (200,) for own in scores)
    np.testing.assert_array_equal(attack.predict(TARGETS[0]), scores[0] >= attack.threshold_)
    assert attack.name == ("nn (oracle epoch)" if selection == "oracle" else "nn")
    assert attack.epoch_ == 40 if selection == "last" else 1 <= attack.epoch_ <= 40


def test_polarity_on_a_separable_case() -> None:
    labels = np.arange(40) % 4
    sure = 9.0 * np.eye(4)[labels]
    members, nonmembers = Outputs(sure, labels), Outputs(0.3 * sure, (labels + 1) % 4)
    attack = NN(seed=0, epochs=100).fit(members, nonmembers)
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert metrics.tnr_at_fnr(*scores) == 1
    assert attack.predict(members).all()
    assert not attack.predict(nonmembers).any()


def test_the_network_is_the_papers() -> None:
    network = module._Network(7, torch.Generator().manual_seed(0))
    shapes = [tuple(parameter.shape) for parameter in network.parameters() if parameter.ndim == 2]
    branches = [(1024, 7), (512, 1024), (64, 512), (128, 7), (64, 128), (7, 1), (64, 7)]
    assert shapes == [*branches, (256, 192), (128, 256), (64, 128), (1, 64)]
    for parameter in network.parameters():
        assert parameter.requires_grad
        assert parameter.dtype == torch.float32
        values = parameter.detach().numpy()
        if values.ndim == 1:
            assert (values == 0).all()
        elif values.size > 1000:
            assert values.std() == pytest.approx(0.01, rel=0.1)
            assert abs(values.mean()) < 0.001


def test_inputs_are_probabilities_label_and_clamped_loss() -> None:
    probabilities, label, loss = module._inputs(Outputs([[0.0, 0.0], [1000.0, 0.0]], [0, 1]))
    np.testing.assert_allclose(probabilities.numpy(), [[0.5, 0.5], [1, 0]])
    np.testing.assert_array_equal(label.numpy(), [[1, 0], [0, 1]])
    np.testing.assert_allclose(loss.numpy(), [[np.log(2)], [-np.log(1e-30)]], rtol=1e-6)


def test_the_seed_decides_and_nothing_else() -> None:
    """Not the global seeds, not a caller's no_grad, inference_mode or default dtype; and none of them is changed."""
    first = NN(seed=5, epochs=2).fit(*KNOWN)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002 - the global state is what is tested
    random.seed(123)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr] # noqa: NPY002
    threads = torch.get_num_threads()
    with torch.inference_mode():
        second = NN(seed=5, epochs=2).fit(*KNOWN)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # type: ignore[index] # noqa: NPY002
    assert torch.get_num_threads() == threads
    torch.set_default_dtype(torch.float64)
    try:
        third = NN(seed=5, epochs=2).fit(*KNOWN)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(weights(first), weights(second))
    assert torch.equal(weights(first), weights(third))
    assert not torch.equal(weights(first), weights(NN(seed=6, epochs=2).fit(*KNOWN)))


def test_the_kept_epoch_is_the_best_of_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in the end are those of the latest epoch with the largest AUC, not the last ones."""
    judged: list[tuple[torch.Tensor, float]] = []
    aucs = iter([0.6, 0.9, 0.9, 0.8])

    def auc(*_: Any) -> float:
        return next(aucs)

    evaluate = module._evaluate

    def spy(network: Any, inputs: Any) -> Any:
        judged.append((torch.cat([own.detach().ravel().clone() for own in network.parameters()]), len(inputs[0])))
        return evaluate(network, inputs)

    monkeypatch.setattr(module.metrics, "auc", auc)
    monkeypatch.setattr(module, "_evaluate", spy)
    attack = NN(seed=1, epochs=4).fit(*KNOWN)
    assert attack.epoch_ == 3
    assert torch.equal(weights(attack), judged[2 * 2][0])  # two judgements an epoch, of members and of non-members
    assert not torch.equal(weights(attack), judged[2 * 1][0])
    assert [size for _, size in judged[:2]] == [160 // 5, 140 // 5]


def test_only_the_oracle_sees_targets() -> None:
    with pytest.raises(ValueError, match=r"^targets: nn must not see the evaluated samples"):
        NN(seed=0, epochs=1).fit(*KNOWN, targets=TARGETS)
    with pytest.raises(ValueError, match=r"^targets: nn \(oracle epoch\) needs the evaluated samples"):
        NN(seed=0, epochs=1, selection="oracle").fit(*KNOWN)
    assert NN(seed=0, selection="oracle").sees_targets
    assert not NN(seed=0).sees_targets


def test_the_held_out_part_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[float]] = {"held": set(), "rest": set()}
    split = module._split

    def spy(known: Any, generator: torch.Generator) -> Any:
        held, rest = split(known, generator)
        for name, part in (("held", held), ("rest", rest)):
            seen[name] = {float(own) for group in part for own in group[2].ravel()}
        return held, rest

    monkeypatch.setattr(module, "_split", spy)
    NN(seed=0, epochs=1).fit(*KNOWN)
    assert len(seen["held"]) == 32 + 28
    assert len(seen["rest"]) == 128 + 112
    assert not seen["held"] & seen["rest"]  # losses are all different here, so they tell samples apart


def test_unequal_and_small_groups_are_used_whole() -> None:
    drawn = module._stream(10, 64, torch.Generator().manual_seed(0))
    indices = torch.cat([next(drawn) for _ in range(5)])
    assert torch.bincount(indices).tolist() == [32] * 10
    known = random_outputs(5, 1, right=6.0), random_outputs(300, 2)
    assert np.isfinite(NN(seed=0, epochs=2).fit(*known).score(known[1])).all()


def test_sure_samples_do_not_tie() -> None:
    """Scores are log odds: their probabilities would nearly all be 1 in float32."""
    attack = NN(seed=0, epochs=1).fit(*KNOWN)
    with torch.no_grad():
        for parameter in attack.network_.parameters():
            parameter *= 8.0
        attack.network_.last.bias.fill_(25.0)
    scores = attack.score(TARGETS[0])
    assert np.unique(scores).size > 100
    assert np.unique(1 / (1 + np.exp(-scores.astype(np.float32)))).size == 1


def test_an_interrupted_fit_leaves_nothing_half_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = NN(seed=0, epochs=2).fit(*KNOWN)
    before, epoch = weights(attack), attack.epoch_

    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.metrics, "auc", interrupt)
    with pytest.raises(KeyboardInterrupt):
        attack.fit(*TARGETS)
    assert torch.equal(weights(attack), before)
    assert attack.epoch_ == epoch


def test_bad_input_is_refused_by_name() -> None:
    few = random_outputs(4, 1, classes=3)
    with pytest.raises(ValueError, match=r"^members: nn holds out a fifth, expected 5 or more; got 4"):
        NN(seed=0).fit(few, KNOWN[1])
    with pytest.raises(ValueError, match=r"^nonmembers: nn holds out a fifth"):
        NN(seed=0).fit(KNOWN[0], few)
    with pytest.raises(ValueError, match=r"^selection: .*'best'"):
        NN(seed=0, selection="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^epochs: "):
        NN(seed=0, epochs=0)
    with pytest.raises(RuntimeError, match=r"^nn: call fit"):
        NN(seed=0).score(KNOWN[0])
    with pytest.raises(ValueError, match=r"^members: nn needs the true labels"):
        NN(seed=0).fit(Outputs(few.logits), few)
