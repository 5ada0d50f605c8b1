"""The audit: what it asks, what it fits on, what it says, and the claims that can be made of it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from test_fence import make_classifier, make_diffusion
from test_report import Page

import diffence
from diffence import metrics
from diffence.attacks import NN, Attack, Confidence, Correctness, Loss, Outputs, RepeatQueries
from diffence.auditing import AuditReport, attack_set, audit
from diffence.data import Dataset
from diffence.fence import Diffence
from diffence.training import one_torch_thread

CLASSES = 4


def answers(n: int, seed: int, sure: float) -> Outputs:
    """Answers that are right more often, and surer, the larger `sure` is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=n)
    logits = rng.normal(size=(n, CLASSES))
    logits[np.arange(n), labels] += sure
    return Outputs(logits, labels)


def quick(members: Any, nonmembers: Any, attacks: Any = "metric", **options: Any) -> AuditReport:
    return audit(options.pop("model", None), members, nonmembers, attacks, progress=False, resamples=200, **options)


LEAKING = answers(400, 1, 4.0), answers(400, 2, 2.0)
EVEN = answers(400, 3, 2.0), answers(400, 4, 2.0)


class Bright(torch.nn.Module):
    """Logits that grow with the image's brightness: a model that 'leaks' whatever is bright."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = images.mean(dim=(1, 2, 3))
        return torch.stack([20 * level, torch.zeros_like(level), torch.zeros_like(level)], dim=1)


def pictures(n: int, seed: int, high: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(high, size=(n, 1, 4, 4), dtype=np.uint8), rng.integers(3, size=n)


# ---- figures -----------------------------------------------------------------------------------------------------


def test_a_leak_is_found_and_every_figure_is_its_metric() -> None:
    report = quick(*LEAKING)
    assert report.worst.auc.low > 0.6
    assert [finding.auc.value for finding in report.findings] == sorted(
        (finding.auc.value for finding in report.findings), reverse=True
    )
    loss = report["loss"]
    scores = loss.evaluation.scores
    assert report.sizes == (200, 200) == (len(scores[0]), len(scores[1]))
    assert loss.auc.value == metrics.auc(*scores)
    assert loss.auc.low < loss.auc.value < loss.auc.high
    assert loss.balanced_accuracy.value == metrics.balanced_accuracy(*loss.evaluation.decisions)
    assert loss.tpr[0.01].value == metrics.tpr_at_fpr(*scores, 0.01)
    assert loss.tpr[0.0].value == metrics.tpr_at_fpr(*scores, 0.0, strict=False)
    assert loss.tnr.value == metrics.tnr_at_fnr(*scores)
    assert loss.tpr[0.01][1:3] == metrics.tpr_interval(*scores, 0.01)
    assert loss.tnr[1:3] == metrics.tnr_interval(*scores)
    assert loss.tpr[0.0][1:3] == metrics.clopper_pearson(round(200 * loss.tpr[0.0].value), 200)
    assert report.gap_floor == report["correctness"].auc
    assert report.accuracy is not None
    assert report.accuracy[0].value == (LEAKING[0].predicted == LEAKING[0].true_labels).mean()
    assert report.ece is not None
    assert report.ece[1] == metrics.ece(LEAKING[1].logits, LEAKING[1].true_labels)


def test_separable_answers_give_one_and_equal_ones_a_half() -> None:
    right, wrong = Outputs([[9.0, 0.0]] * 40, [0] * 40), Outputs([[0.0, 9.0]] * 40, [0] * 40)
    report = quick(right, wrong)
    for name in ("loss", "confidence", "correctness", "modified entropy"):
        assert report[name].auc.value == 1
        assert report[name].tpr[0.001].value == report[name].tnr.value == 1
    assert report.worst.auc.value == pytest.approx(1)
    same = quick(right, right)
    assert {finding.auc[:3] for finding in same.findings} == {(0.5, 0.5, 0.5)}
    assert same.worst.auc[:3] == pytest.approx((0.5, 0.5, 0.5))
    report.assert_auc_at_most(1.0)
    same.assert_auc_at_most(0.51, proven=True)


def test_no_leak_is_no_leak() -> None:
    report = quick(*EVEN)
    assert report.worst.auc.low <= 0.5 <= report.worst.auc.high
    assert "No leak can be shown" in str(report)


def test_the_headline_is_corrected_for_taking_the_largest() -> None:
    report = quick(*EVEN)
    assert report.worst.auc.value <= max(finding.auc.value for finding in report.findings)
    assert report.worst.attack == report.findings[0].attack
    assert report.replicates.shape == (len(report.findings), 200)
    np.testing.assert_allclose(report.replicates.mean(axis=1), report.frame()["auc"], atol=0.01)


def test_the_same_seed_gives_the_same_report_another_one_other_samples() -> None:
    first, again, other = quick(*LEAKING), quick(*LEAKING), quick(*LEAKING, seed=1)
    assert first.frame().equals(again.frame())
    assert first.worst == again.worst
    assert first.samples == again.samples != other.samples
    assert quick(*LEAKING, known=0.4).samples != first.samples
    assert quick(*LEAKING[::-1]).worst.auc.value < 0.5


class Watching(Attack):
    """Remembers what it is fitted on and what it scores."""

    name, needs_labels = "watching", False

    def __init__(self) -> None:
        self.fitted: set[float] = set()
        self.scored: set[float] = set()

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: Any) -> None:
        self.fitted = {*members.logits[:, 0], *nonmembers.logits[:, 0]}
        self.threshold_ = 0.0

    def _score(self, outputs: Outputs) -> np.ndarray:
        self.scored |= {*outputs.logits[:, 0]}
        return outputs.logits[:, 0]


def test_nothing_that_is_judged_was_fitted_on() -> None:
    report = quick(*LEAKING, attacks=[watching := Watching()], known=0.25)
    assert report.sizes == (300, 300)
    assert len(watching.fitted) == 200
    assert len(watching.scored) == 600
    assert not watching.fitted & watching.scored
    assert [finding.attack for finding in report.findings if finding.attack != "watching"] == ["correctness"]


# ---- models ------------------------------------------------------------------------------------------------------


def test_modules_functions_datasets_and_tensors_are_asked_alike() -> None:
    members, nonmembers = pictures(60, 1), pictures(60, 2)
    expected = quick(members, nonmembers, model=Bright().eval())

    def function(images: Any) -> torch.Tensor:
        return Bright()(torch.from_numpy(images))

    sets = [Dataset("x", images, labels, 3) for images, labels in (members, nonmembers)]
    tensors = [(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in (members, nonmembers)]
    for model, groups in ((function, (members, nonmembers)), (Bright().eval(), sets), (Bright().eval(), tensors)):
        report = quick(*groups, model=model)
        assert report.frame().equals(expected.frame())
        assert report.samples == expected.samples
    shifted = quick(members, nonmembers, model=Bright().eval(), mean=[0.2], std=[0.5])
    assert not shifted.frame().equals(expected.frame())

    def softmax(images: Any) -> torch.Tensor:
        return function(images).softmax(1)

    probable = quick(members, nonmembers, model=softmax, kind="probabilities")
    assert probable["loss"].auc.value == pytest.approx(expected["loss"].auc.value)


def test_without_labels_what_needs_them_is_left_out_and_named() -> None:
    report = quick(pictures(60, 1)[0], pictures(60, 2)[0], model=Bright().eval())
    assert [finding.attack for finding in report.findings] == ["entropy"]
    assert any(warning.startswith("Left out, for want of labels: loss") for warning in report.warnings)
    assert report.accuracy is report.ece is report.gap_floor is None
    with pytest.raises(ValueError, match="attacks: loss needs labels"):
        quick(pictures(60, 1)[0], pictures(60, 2)[0], [Loss()], model=Bright().eval())


def test_each_question_is_asked_once_and_of_both_groups_together() -> None:
    calls: list[int] = []

    def count(images: Any) -> torch.Tensor:
        calls.append(len(images))
        return Bright()(torch.from_numpy(images))

    quick(pictures(50, 1), pictures(50, 2), model=count, batch=1000)
    assert calls == [100]
    ladder = RepeatQueries.ladder((1, 2))
    quick(pictures(50, 1), pictures(50, 2), ladder, model=count, batch=1000)
    assert calls == [100] * 4


def test_a_fence_is_asked_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    fence = Diffence(make_classifier(), make_diffusion(), scenario=3, n=3, T=60, key=5)
    images = np.random.default_rng(0).integers(256, size=(48, 1, 8, 8), dtype=np.uint8)
    labels = fence.classify(images).argmax(1).numpy()
    groups = (images[:24], labels[:24]), (images[24:], labels[24:])
    attacks = [Loss(), RepeatQueries(k=1), RepeatQueries(k=4), RepeatQueries(k=4, fresh=True)]
    report = quick(*groups, attacks, model=fence, before=fence.classify)
    one, four = report["repeat (k = 1)"], report["repeat (k = 4)"]
    for side in (0, 1):
        np.testing.assert_array_equal(one.evaluation.scores[side], four.evaluation.scores[side])
    assert report["repeat (fresh, k = 4)"].hypothetical
    assert report.worst.attack != "repeat (fresh, k = 4)"
    assert [note.split(",")[0] for note in report.notes] == [
        "Asked 1 times",
        "Asked 4 times",
        "If the noise were drawn anew for each query",
    ]
    assert "repeating gains nothing" in str(report)
    assert report.before is not None
    assert {finding.attack for finding in report.before.findings} == {
        "loss",
        "repeat (k = 1)",
        "repeat (k = 4)",
        "correctness",
    }
    none = np.mean(~fence.sample(images).match.any(axis=1))
    assert warned(report, "The fallback answered") == bool(none)


def test_what_ifs_do_not_count(tmp_path: pathlib.Path) -> None:
    members, nonmembers = LEAKING

    class WhatIf(Confidence):
        title, hypothetical = "what if", True

    report = quick(members, nonmembers, [WhatIf(), Correctness()])
    assert report.findings[0].attack == "what if"
    assert report.worst.attack == "correctness"
    assert list(report.frame()["counts"]) == [False, True]
    assert "what if *" in str(report)
    report.to_html(tmp_path / "a.html")
    assert "A what-if" in (tmp_path / "a.html").read_text()
    unlabelled = Outputs(members.logits), Outputs(nonmembers.logits)
    with pytest.raises(ValueError, match="all of them are what-ifs"):
        quick(*unlabelled, [WhatIf(top=True)])


def test_attacks_tuned_on_the_judged_samples_are_shown_but_do_not_count() -> None:
    report = quick(*EVEN, [NN(seed=0, selection="oracle", epochs=2), Loss()])
    finding = report["nn (oracle epoch)"]
    assert finding.hypothetical
    assert report.worst.attack in ("loss", "correctness")
    assert warned(report, "nn (oracle epoch) was tuned on the very samples")


def test_the_sets() -> None:
    for name, few in (("metric", 6), ("standard", 10), ("thorough", 14)):
        bare, fenced = attack_set(name), attack_set(name, fenced=True)
        assert len(bare) == few
        assert len(fenced) == few + (0 if name == "metric" else 4)
        names = [attack.name for attack in fenced]
        assert len(set(names)) == len(names)
        assert sum(attack.hypothetical for attack in fenced) == (0 if name == "metric" else 1)
    with pytest.raises(ValueError, match="'metric', 'standard', 'thorough'"):
        attack_set("all")


# ---- warnings ----------------------------------------------------------------------------------------------------


def warned(report: AuditReport, text: str) -> bool:
    return any(text in warning for warning in report.warnings)


def test_warnings_about_samples() -> None:
    model = Bright().eval()
    members, nonmembers = pictures(60, 1), pictures(60, 2)
    plain = quick(members, nonmembers, model=model)
    assert warned(plain, "Only 30 members and 30 non-members")
    assert not warned(plain, "at once")
    assert not warned(plain, "differ without the model")
    assert not warned(plain, "other shares")
    shared = (np.concatenate([nonmembers[0][:59], members[0][:1]]), nonmembers[1])
    assert warned(quick(members, shared, model=model), "1 images are members and non-members at once")
    twice = (np.concatenate([members[0][:58], members[0][:2]]), members[1])
    assert warned(quick(twice, nonmembers, model=model), "2 of the members occur more than once")
    assert warned(quick(members, pictures(60, 2, high=100), model=model), "differ without the model")
    assert warned(quick(members, (nonmembers[0], np.zeros(60, int)), model=model), "classes in other shares")
    many = answers(2400, 1, 1.0), answers(2400, 2, 1.0)
    assert not warned(quick(*many), "false-positive rate below")
    assert warned(quick(*LEAKING), "With 200 non-members, a false-positive rate below 0.1 % means none at all")


def test_warnings_about_attacks() -> None:
    upside_down = quick(*LEAKING[::-1])
    assert warned(upside_down, "'loss' is worse than chance")
    assert not warned(quick(*EVEN), "worse than chance")
    few = quick(LEAKING[0].take(np.arange(60)), LEAKING[1].take(np.arange(60)))
    assert warned(few, "modified entropy per class: a class has only")


def test_what_an_attack_warns_of_is_in_the_report() -> None:
    class Doubting(Loss):
        title = "doubting"

        def _score(self, outputs: Outputs) -> np.ndarray:
            self._warn("half of what it needs is missing")
            return super()._score(outputs)

    with pytest.warns(UserWarning, match="doubting: half"):
        report = quick(*LEAKING, [Doubting()])
    assert report.warnings.count("doubting: half of what it needs is missing") == 1


# ---- claims ------------------------------------------------------------------------------------------------------


def with_auc(low: float, value: float, high: float) -> AuditReport:
    report = quick(*LEAKING)
    return dataclasses.replace(report, worst=report.worst._replace(auc=metrics.Estimate(value, low, high, 400)))


def test_a_limit_fails_only_when_the_data_say_so_and_is_proven_only_when_they_do() -> None:
    report = with_auc(0.61, 0.65, 0.69)
    report.assert_auc_at_most(0.61)
    report.assert_auc_at_most(0.70, proven=True)
    with pytest.raises(AssertionError) as failure:
        report.assert_auc_at_most(0.60)
    said = str(failure.value)
    for part in (report.worst.attack, "0.650", "0.610 to 0.690", "200 members, 200 non-members", "limit of 0.6"):
        assert part in said
    with pytest.raises(AssertionError, match=r"not proven to be below 0\.69"):
        report.assert_auc_at_most(0.69, proven=True)
    for wrong in (0.4, 1.1, float("nan")):
        with pytest.raises(ValueError, match="limit: expected an AUC"):
            report.assert_auc_at_most(wrong)


def test_limits_of_the_true_positive_rate() -> None:
    report = quick(answers(1600, 1, 4.0), answers(1600, 2, 0.5))
    counted = [finding.tpr_ends(0.01, 1 - 0.05 / len(report.findings)) for finding in report.findings]
    lows, highs = zip(*counted, strict=True)
    assert 0.05 < max(lows) < max(highs) < 1
    report.assert_tpr_at_most(max(lows), fpr=0.01)
    with pytest.raises(AssertionError, match=r"the model leaks: the attack .* 800 members, 800 non-members"):
        report.assert_tpr_at_most(max(lows) - 1e-9, fpr=0.01)
    report.assert_tpr_at_most(max(highs) + 1e-9, fpr=0.01, proven=True)
    with pytest.raises(AssertionError, match=r"no proof: .* is not proven to be below"):
        report.assert_tpr_at_most(max(highs), fpr=0.01, proven=True)
    report.assert_tpr_at_most(0.99, fpr=0.0)
    with pytest.raises(AssertionError, match="the model leaks"):
        report.assert_tpr_at_most(0.0, fpr=0.0)
    # A claim that nothing could break is refused, with the number that it would take.
    needed = metrics.nonmembers_needed(0.001, 1 - 0.05 / len(report.findings) / 4)
    with pytest.raises(ValueError, match=rf"with 800 evaluated non-members no attack .* {needed:,}"):
        report.assert_tpr_at_most(0.5)
    report.assert_tpr_at_most(0.99, proven=True)
    with pytest.raises(ValueError, match="fpr: expected one of"):
        report.assert_tpr_at_most(0.1, fpr=0.5)


def test_no_worse_than_a_baseline_in_pairs_and_unpaired(tmp_path: pathlib.Path) -> None:
    members, nonmembers = LEAKING
    milder = Outputs(members.logits - 1.2 * np.eye(CLASSES)[members.true_labels], members.labels), nonmembers
    worse, better = quick(members, nonmembers), quick(*milder)
    better.to_json(tmp_path / "baseline.json")
    for baseline in (tmp_path / "baseline.json", better):
        better.assert_no_worse_than(baseline)
        with pytest.raises(AssertionError, match=r"leaks more than the baseline: .* taken in pairs, is \+0"):
            worse.assert_no_worse_than(baseline)
    worse.assert_no_worse_than(better, tolerance=0.3)
    other = quick(answers(500, 11, 4.0), answers(300, 12, 2.0))
    with pytest.raises(AssertionError, match="of other samples"):
        other.assert_no_worse_than(tmp_path / "baseline.json")
    better.assert_no_worse_than(other)
    # Pairs see what independent samples cannot: the same samples, a little surer.
    little = Outputs(members.logits + 0.15 * np.eye(CLASSES)[members.true_labels], members.labels), nonmembers
    with pytest.raises(AssertionError, match="in pairs"):
        quick(*little).assert_no_worse_than(worse)


@pytest.mark.parametrize(
    "content", ["", "{", "{}", '{"diffence audit": 99}', "[1]", '{"diffence audit": 1, "worst": {}}']
)
def test_damaged_baselines(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(FileNotFoundError, match="to_json"):
        quick(*LEAKING).assert_no_worse_than(path)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"baseline: .* is not an audit saved by to_json"):
        quick(*LEAKING).assert_no_worse_than(path)


def test_before_and_after_are_paired() -> None:
    members, nonmembers = LEAKING
    fenced = tuple(
        Outputs(np.sign(one.logits - one.logits.max(1, keepdims=True) + 1e-9), one.labels) for one in LEAKING
    )
    report = quick(*fenced, before=quick(members, nonmembers))
    assert report.before is not None
    change = report.compare(report.before)
    assert change.loc["strongest", "high"] < 0
    assert change.loc["correctness", "auc change"] == 0
    expected = metrics.paired_bootstrap(
        report["loss"].evaluation.scores, report.before["loss"].evaluation.scores, ("auc",), seed=0, resamples=200
    )["auc"]
    assert tuple(change.loc["loss"]) == expected[:3]
    assert "less than before" in str(report)
    with pytest.raises(ValueError, match="before: expected an audit of the same members"):
        quick(*fenced, before=quick(*LEAKING, seed=3))
    images = quick(
        pictures(60, 1), pictures(60, 2), model=Bright().eval(), before=lambda x: Bright()(torch.from_numpy(x))
    )
    assert images.before is not None
    nothing = images.compare(images.before)
    assert nothing.drop(index="strongest").abs().max().max() == 0
    assert nothing.loc["strongest", "low"] <= nothing.loc["strongest", "auc change"] == 0


# ---- pages and files ---------------------------------------------------------------------------------------------


def test_the_page_says_what_was_found(tmp_path: pathlib.Path) -> None:
    report = quick(*LEAKING, title="<b>digits</b>")
    report.save(tmp_path / "out")
    text = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    page = Page(text)
    words = page.words()
    assert "<b>digits</b>" not in text.replace("&lt;b&gt;", "")
    assert "The model leaks who was in its training set" in words
    assert report.worst.attack in words
    for finding in report.findings:
        assert finding.attack in words
    for warning in report.warnings:
        assert warning in words
    assert "2,995 non-members" in words
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert all(image["alt"] for image in page.named("img"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "audit.html",
        "audit.json",
        "results.csv",
        "results.json",
    ]
    figures = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert figures["attacks"]["loss"]["auc"]["value"] == report["loss"].auc.value
    assert report._repr_html_().startswith("<pre ")
    assert len(repr(report)) < 120
    assert report.worst.attack in repr(report)
    with pytest.raises(KeyError, match="the attacks are"):
        report["lira"]


def test_results_are_tidy() -> None:
    frame = quick(*LEAKING).results.frame()
    assert {"auc", "auc_maximum", "tpr_at_fpr_0.001", "tnr_at_fnr", "train_accuracy", "test_ece"} <= set(
        frame["metric"]
    )
    assert frame["value"].notna().all()


# ---- bad input ---------------------------------------------------------------------------------------------------

PAIR = pictures(20, 1), pictures(20, 2)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None, *PAIR), {}, "model: expected something to ask"),
        ((Bright().eval(), *LEAKING), {}, "model: expected None"),
        ((Bright().eval(), PAIR[0], LEAKING[1]), {}, "images of both, or answers of both"),
        ((Bright(), *PAIR), {}, "training mode"),
        ((3, *PAIR), {}, "model: expected a torch module"),
        ((Bright().eval(), *PAIR, "all"), {}, "attacks: expected one of 'metric'"),
        ((Bright().eval(), *PAIR, [3]), {}, "attacks: expected attacks of diffence.attacks, got int"),
        ((Bright().eval(), *PAIR, [Loss(), Loss()]), {}, "'loss' more than once"),
        ((Bright().eval(), *PAIR), {"known": 0.0}, "known: expected a share"),
        ((Bright().eval(), *PAIR), {"known": float("nan")}, "known: expected a share"),
        ((Bright().eval(), *PAIR), {"seed": -1}, "seed: expected an integer"),
        ((Bright().eval(), *PAIR), {"kind": "scores"}, "kind: expected one of"),
        ((Bright().eval(), *PAIR), {"mean": [0.5]}, "give both or neither"),
        ((Bright().eval(), (PAIR[0][0][:1], PAIR[0][1][:1]), PAIR[1]), {}, "members: 1 samples leave"),
        ((Bright().eval(), (PAIR[0][0][:0], PAIR[0][1][:0]), PAIR[1]), {}, "members: the batch is empty"),
        ((Bright().eval(), (PAIR[0][0], PAIR[0][1][:3]), PAIR[1]), {}, "members: labels: expected shape"),
        ((Bright().eval(), (PAIR[0][0], PAIR[0][1] - 1), PAIR[1]), {}, "members: labels: expected classes from 0"),
        ((Bright().eval(), (PAIR[0][0], PAIR[0][1] + 9), PAIR[1]), {}, "labels: expected classes 0 to 2"),
        ((Bright().eval(), PAIR[0], (PAIR[1][0][:, :, :2], PAIR[1][1])), {}, "nonmembers: expected images"),
        ((Bright().eval(), (PAIR[0][0] / np.nan, PAIR[0][1]), PAIR[1]), {}, "members: image 0 holds NaN"),
        ((Bright().eval(), "digits", PAIR[1]), {}, "members: expected \\(images, labels\\)"),
        (
            (None, Outputs([[0.0, 1.0]] * 9), Outputs([[0.0, 1.0, 2.0]] * 9)),
            {},
            "nonmembers: expected 2 classes, got 3",
        ),
        ((lambda images: np.zeros((1, 3)), *PAIR), {}, "expected an answer for each of"),
    ],
)
def test_what_does_not_fit_is_named(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        audit(*arguments, **{"attacks": "metric", **options} if len(arguments) == 3 else options, progress=False)


def test_the_function_is_the_packages_own() -> None:
    assert diffence.audit is audit
    assert diffence.AuditReport is AuditReport
    assert "audit" in dir(diffence)
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        _ = diffence.audits


def test_torch_gets_its_threads_back_whoever_leaves_last() -> None:
    before = torch.get_num_threads()
    first, second = one_torch_thread(), one_torch_thread()
    assert first.__enter__() == second.__enter__() == before
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before
