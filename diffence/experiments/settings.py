"""One classifier behind the fence in every setting, attacked in each: what the demo and the benchmarks tabulate.

All settings select from the same draws, and the attacker of a setting is fitted on, and evaluated on, what that setting
shows. So differences between settings are paired, and the network is evaluated once for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from diffence import metrics, report, selection
from diffence.answers import Answer, Samples
from diffence.attacks import Attack, Evaluation, Outputs, compare, evaluate, pool
from diffence.data import Dataset, Splits
from diffence.fence import Diffence
from diffence.metrics import Estimate
from diffence.progress import tqdm
from diffence.report import (
    STRONGEST,
    UNDEFENDED,
    ImageGrid,
    IntervalSearch,
    PhiSample,
    Report,
    RocCurve,
    attack_rows,
    setting_name,
    setting_rows,
)
from diffence.results import Results
from diffence.training import one_torch_thread

__all__ = [
    "SETTINGS",
    "Setting",
    "SettingOutcome",
    "evaluate_settings",
    "image_grid",
    "make_report",
    "pool_outcomes",
    "tabulate",
]

GROUPS = (
    "known_members",
    "known_nonmembers",
    "calibration_members",
    "calibration_nonmembers",
    "target_members",
    "target_nonmembers",
)


@dataclass(frozen=True)
class Setting:
    """A row of the table: `scenario` as the results name it, and the options of Diffence that make it."""

    defense: str
    scenario: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def fenced(self) -> bool:
        return self.defense != UNDEFENDED


SETTINGS = (
    Setting(UNDEFENDED, ""),
    *(Setting("diffence", str(number), (("scenario", number),)) for number in (1, 2, 3)),
    *(Setting("diffence", kind, (("aggregate", kind),)) for kind in ("logits", "probabilities")),
)


@dataclass(frozen=True, eq=False)
class SettingOutcome:
    """What one setting showed for the targets, and what the attacks made of it.

    Pairs of arrays are (of members, of non-members), one entry a target; concatenated over repeats by `pool_outcomes`.
    correct: the shown class is the true one. changed: it is not the classifier's own. fallback: no draw agreed.
    draws: computed in full mode. draws_early: what early stopping would have computed. phi: of what is shown.
    seconds: spent to answer all of the targets. interval: None where the setting has none.
    """

    setting: Setting
    evaluations: dict[str, Evaluation]
    correct: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    changed: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    fallback: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    draws: tuple[NDArray[np.int64], NDArray[np.int64]]
    draws_early: tuple[NDArray[np.int64], NDArray[np.int64]]
    phi: tuple[NDArray[np.float64], NDArray[np.float64]]
    seconds: float
    interval: tuple[float, float] | None = None
    search: dict[str, Any] | None = None

    @property
    def strongest(self) -> str:
        """The attack with the largest AUC."""
        return max(self.evaluations, key=lambda name: self.evaluations[name].metrics["auc"].value)


def evaluate_settings(
    fence: Diffence,
    data: Dataset,
    splits: Splits,
    attacks: Callable[[], Sequence[Attack]],
    *,
    seed: int,
    settings: Sequence[Setting] = SETTINGS,
    resamples: int = 1000,
    progress: bool = True,
    samples: dict[str, Samples] | None = None,
) -> list[SettingOutcome]:
    """Attack the classifier of `fence` bare and behind the fence in each of `settings`.

    fence: gives classifier, diffusion model, n, T, k, mode, key and normalisation; its own scenario does not matter.
    splits: the attacker is fitted on the known part, intervals on the calibration part, figures are of the targets.
    attacks: makes fresh attacks for one setting. samples: what `fence.sample` said of each of `GROUPS`, if known.
    """
    if samples is None:
        samples = {}
        for group in GROUPS:
            indices = getattr(splits, group)
            if len(indices):
                samples[group] = fence.sample(data.images[indices], progress=progress)
    labels = {group: data.labels[getattr(splits, group)] for group in GROUPS}
    target_count = len(labels["target_members"]) + len(labels["target_nonmembers"])
    targets = data.images[np.concatenate([splits.target_members, splits.target_nonmembers])]
    per_image = {True: _seconds_fenced(fence, targets), False: _seconds_bare(fence, targets)}

    def outcome(setting: Setting) -> SettingOutcome:
        fenced = fence.variant(**dict(setting.options)) if setting.fenced else None
        if fenced is not None:
            fenced.fit_samples(samples["calibration_members"], samples["calibration_nonmembers"])
        answers = {group: _answer(fenced, samples[group]) for group in GROUPS if not group.startswith("calibration")}
        outputs = {group: Outputs(answer.logits, labels[group]) for group, answer in answers.items()}
        evaluations = {}
        for attack in attacks():
            evaluations[attack.name] = evaluate(
                attack,
                *(outputs[group] for group in ("known_members", "known_nonmembers")),
                *(outputs[group] for group in ("target_members", "target_nonmembers")),
                seed=seed,
                resamples=resamples,
            )
        both = ("target_members", "target_nonmembers")
        classes = {group: answers[group].logits.argmax(1).cpu().numpy() for group in both}
        return SettingOutcome(
            setting=setting,
            evaluations=evaluations,
            correct=_pair(classes[group] == labels[group] for group in both),
            changed=_pair(classes[group] != samples[group].labels for group in both),
            fallback=_pair(answers[group].outcome == selection.FALLBACK for group in both),
            draws=_pair(samples[group].used if setting.fenced else 0 * samples[group].used for group in both),
            draws_early=_pair(_needed(fenced, samples[group], answers[group]) for group in both),
            phi=_pair(selection.phi(answers[group].logits, fence.mode)[0] for group in both),
            seconds=per_image[setting.fenced] * target_count,
            interval=None if fenced is None else fenced.interval_,
            search=None if fenced is None else fenced.search_,
        )

    with one_torch_thread() as threads:
        parallel = Parallel(n_jobs=threads, backend="threading", return_as="generator")
        done = parallel(delayed(outcome)(setting) for setting in settings)
        return list(tqdm(done, "attack", len(settings), unit="setting", disable=not progress))


def _pair(values: Any) -> Any:
    return tuple(np.asarray(value) for value in values)


def _answer(fenced: Diffence | None, samples: Samples) -> Answer:
    if fenced is not None:
        return fenced.answer(samples)
    none = np.full(len(samples), -1)
    return Answer(samples.original, none.astype(np.int32), none.astype(np.int8))


def _needed(fenced: Diffence | None, samples: Samples, answer: Answer) -> NDArray[np.int64]:
    """Draws that early stopping computes: up to the first inside, else all; all where draws are averaged."""
    if fenced is None:
        return np.zeros(len(samples), np.int64)
    return np.where(answer.outcome == selection.INSIDE, answer.draw + 1, fenced.n).astype(np.int64)


def _seconds_fenced(fence: Diffence, images: NDArray[np.uint8], most: int = 32) -> float:
    """Wall time of one fenced image in full mode, from up to `most` images asked together."""
    timed = fence.variant(scenario=3, aggregate="logits")
    few = images[:most]
    start = time.perf_counter()
    timed(few)
    return (time.perf_counter() - start) / len(few)


def _seconds_bare(fence: Diffence, images: NDArray[np.uint8], most: int = 256) -> float:
    few = images[:most]
    start = time.perf_counter()
    fence.classify(few)
    return (time.perf_counter() - start) / len(few)


def pool_outcomes(repeats: Sequence[Sequence[SettingOutcome]]) -> list[SettingOutcome]:
    """The outcomes of several classifiers as one, setting by setting; scores keep to their classifier (attacks.pool).

    Intervals and searches belong to one classifier each; those of the first repeat are kept, for the figures.
    """
    pooled = []
    for same in zip(*repeats, strict=True):
        joined = {
            name: _pair(np.concatenate([getattr(outcome, name)[side] for outcome in same]) for side in (0, 1))
            for name in ("correct", "changed", "fallback", "draws", "draws_early", "phi")
        }
        evaluations = {name: pool([outcome.evaluations[name] for outcome in same]) for name in same[0].evaluations}
        seconds = sum(outcome.seconds for outcome in same)
        pooled.append(replace(same[0], evaluations=evaluations, seconds=seconds, **joined))
    return pooled


def _share(values: NDArray[np.bool_]) -> Estimate:
    return Estimate(float(values.mean()), *metrics.clopper_pearson(int(values.sum()), len(values)), len(values))


def tabulate(
    outcomes: Sequence[SettingOutcome], results: Results, *, dataset: str, classifier: str, mode: str, seed: int
) -> None:
    """Add every figure of `outcomes` to the tidy `results`; differences are to the first outcome, the undefended."""
    bare = outcomes[0]
    for outcome in outcomes:
        key = {
            "dataset": dataset,
            "classifier": classifier,
            "defense": outcome.setting.defense,
            "scenario": outcome.setting.scenario,
            "mode": mode if outcome.setting.fenced else "",
            "seed": seed,
        }

        def add(metric: str, figure: Estimate | float, n: int, attack: str = "", key: dict[str, Any] = key) -> None:
            found = figure if isinstance(figure, Estimate) else Estimate(figure, float("nan"), float("nan"), n)
            results.add(**key, attack=attack, metric=metric, value=found.value, low=found.low, high=found.high, n=n)

        sizes = [len(values) for values in outcome.correct]
        total = sum(sizes)
        train, test = (_share(values) for values in outcome.correct)
        add("train_accuracy", train, sizes[0])
        add("test_accuracy", test, sizes[1])
        floor = outcome.evaluations["correctness"].metrics["auc"]  # of labels alone: (1 + train - test) / 2
        add("gap_floor", floor, total)
        add("labels_changed", _share(np.concatenate(outcome.changed)), total)
        add("fallback_rate", _share(np.concatenate(outcome.fallback)), total)
        for side, name in enumerate(("members", "nonmembers")):
            add(f"fallback_rate_{name}", _share(outcome.fallback[side]), sizes[side])
        add("draws_used", float(np.concatenate(outcome.draws).mean()), total)
        add("draws_used_early", float(np.concatenate(outcome.draws_early).mean()), total)
        add("ms_per_image", 1000 * outcome.seconds / total, total)
        for name, evaluation in outcome.evaluations.items():
            changes = compare(evaluation, bare.evaluations[name]) if outcome is not bare else {}
            for metric, figure in {**evaluation.metrics, **changes}.items():
                add(metric, figure, total, attack=name)
        if outcome is not bare:
            change = compare(outcome.evaluations[outcome.strongest], bare.evaluations[bare.strongest])["auc_change"]
            add("auc_change", change, total, attack=STRONGEST)


def image_grid(fence: Diffence, images: NDArray[np.uint8], kinds: Sequence[str], draws: int = 8) -> ImageGrid:
    """A few images and their first reconstructions, each with its class; the draw that scenario 3 answers is marked."""
    shown = fence.variant(scenario=3, n=min(draws, fence.n))
    records = shown.explain(images)
    made = shown.engine.reconstruct(images, shown.n, shown.T, shown.k, key=shown.key, mode=shown.mode)
    return ImageGrid(
        originals=images,
        reconstructions=made,
        captions=[f"{kind}, class {record.label}" for kind, record in zip(kinds, records, strict=True)],
        draw_captions=[[f"class {one}" for one in record.predicted] for record in records],
        chosen=[record.draw if record.outcome != "fallback" else -1 for record in records],
    )


def make_report(
    title: str,
    outcomes: Sequence[SettingOutcome],
    results: Results,
    grid: ImageGrid | None,
    notes: Sequence[str] = (),
) -> Report:
    """The report of `outcomes`, whose figures `tabulate` has put into `results`."""
    frame = results.frame()
    bare = outcomes[0]
    names = {id(outcome): setting_name(outcome.setting.defense, outcome.setting.scenario) for outcome in outcomes}
    curves = []
    for attack in dict.fromkeys([bare.strongest, "loss", *(outcome.strongest for outcome in outcomes)]):
        for outcome in outcomes:
            evaluation = outcome.evaluations[attack]
            curve = metrics.roc(*evaluation.scores)
            auc = report.Estimate(*evaluation.metrics["auc"][:3])
            members, nonmembers = (len(scores) for scores in evaluation.scores)
            curves.append(RocCurve(names[id(outcome)], attack, curve.fpr, curve.tpr, members, nonmembers, auc))
    searched = next((outcome for outcome in outcomes if outcome.search is not None), None)
    search = None
    if searched is not None and searched.search is not None:
        found = searched.search
        search = IntervalSearch(found["lows"], found["highs"], found["divergences"], searched.interval)
    return Report(
        title=title,
        settings=setting_rows(frame),
        attacks=attack_rows(frame),
        setup={
            **results.setup,
            "environment": {
                **{name: results.environment[name] for name in ("processor", "isa", "threads", "python")},
                **results.environment["versions"],
            },
            "seconds": {name: round(seconds, 1) for name, seconds in results.times.items()},
        },
        roc=curves,
        phi=[PhiSample(names[id(outcome)], *outcome.phi, interval=outcome.interval) for outcome in outcomes],
        images=grid,
        search=search,
        notes=[*notes, _early_note(outcomes, names)],
    )


def _early_note(outcomes: Sequence[SettingOutcome], names: dict[int, str]) -> str:
    means = [
        f"{np.concatenate(outcome.draws_early).mean():.1f} in {names[id(outcome)]}"
        for outcome in outcomes
        if outcome.interval is not None or outcome.setting.scenario == "3"
    ]
    return (
        'Draws an image that draws="early" would have computed for the same answers: ' + ", ".join(means) + ". "
        "It lets the time of an answer depend on the image, so it is for offline evaluation."
    )
