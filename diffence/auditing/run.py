"""The audit: ask the model once for what all attacks need, fit them on known samples, judge them on the others."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks import AnswerOutputs, Attack, Correctness, Evaluation, Outputs, RepeatQueries, Target, evaluate
from diffence.attacks.base import as_array
from diffence.auditing import checks
from diffence.auditing.asking import KeptAnswers, ask_in_pieces, identity_of
from diffence.auditing.attack_sets import SETS, attack_set
from diffence.auditing.report import AuditReport, Finding, Worst
from diffence.auditing.targets import BATCH, Asked, Kind, as_target, describe
from diffence.data import Dataset
from diffence.fence import Diffence
from diffence.images import as_images
from diffence.metrics import Estimate
from diffence.progress import tqdm
from diffence.results import Results
from diffence.training import one_torch_thread
from diffence.wrapping import NormStat

__all__ = ["Group", "audit"]

Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]  # known and evaluated positions, of each group
Group = Dataset | Outputs | tuple[Any, Any] | NDArray[Any] | torch.Tensor


def audit(
    model: Asked | None,
    members: Group,
    nonmembers: Group,
    attacks: str | Sequence[Attack] = "standard",
    *,
    known: float = 0.5,
    seed: int = 0,
    mean: NormStat = None,
    std: NormStat = None,
    kind: Kind = "logits",
    batch: int | None = None,
    shadows: Any = None,
    before: Asked | AuditReport | None = None,
    resamples: int = 1000,
    title: str = "Membership audit",
    folder: str | os.PathLike[str] | None = None,
    version: str | None = None,
    progress: bool = True,
) -> AuditReport:
    """Attack `model` with `attacks` and say how much it leaks about who was in its training set.

    model: a torch module in evaluation mode, a fence (`Diffence`), or any function of images; None where members and
        nonmembers are answers already.
    members, nonmembers: samples that the model was trained on, and as good as the same but not trained on: (images,
        labels), a Dataset, images alone (attacks that need labels are left out), or `attacks.Outputs` with what the
        model answered. Images are (n, C, H, W), uint8 or float in [0, 1]. Best equally many, of one distribution.
    attacks: "metric", "standard" or "thorough" (see `attack_set`), or attacks of your own; correctness is always among
        them where there are labels, as the floor.
    known: share of each group that attacks are fitted on; the rest is what they are judged on. The seed draws it.
    mean, std, kind, batch: how to ask, see `as_target`. shadows: shadow models (`diffence.shadows.Shadows`) for the
        attacks with shadow models. before: a model, or its audit with the same samples, to compare with in pairs; for a
        fence `fence.classify`, its bare classifier.
    resamples: of the bootstrap. progress: show bars.
    folder: where answers are kept as they come, some 256 images a file, so that an audit that was stopped goes on, and
        one with other attacks asks only what is new. They are found by the images, the model's weights and settings,
        and the versions of diffence and torch. What takes the time of answers (`attacks.Timing`) always asks anew.
    version: stands for what is not seen there, the code of a module's `forward`; a function needs one.

    The headline, `report.worst`, is the largest AUC of all attacks, corrected for taking the largest
    (`metrics.maximum`). Raises ValueError or TypeError that names the argument which does not fit.
    """
    groups = _group("members", members), _group("nonmembers", nonmembers)
    target = _target(model, groups, mean, std, kind, batch)
    labelled = all(group.labels is not None for group in groups)
    pictured = target is not None
    chosen, left_out = _attacks(
        attacks,
        seed=seed,
        labels=labelled,
        images=pictured,
        fenced=isinstance(model, Diffence),
        shadows=shadows,
    )
    splits = _split([len(group) for group in groups], known, seed)
    if before is not None and not isinstance(before, AuditReport):
        same = attacks if isinstance(attacks, str) else [copy.copy(one) for one in attacks if not one.hypothetical]
        before = audit(
            before,
            members,
            nonmembers,
            same,
            known=known,
            seed=seed,
            mean=mean,
            std=std,
            kind=kind,
            batch=batch,
            shadows=shadows,
            resamples=resamples,
            title=f"{title}: before",
            folder=folder,
            version=None if version is None else f"{version}, before",
            progress=progress,
        )
    fallbacks = _Fallbacks(model)
    kept = None
    if folder is not None and model is not None:
        options = {"mean": mean, "std": std, "kind": kind, "batch": batch}
        counts = model.counts if isinstance(model, Diffence) else None
        kept = KeptAnswers(folder, identity_of(model, options, version), counts)
    collected = _collect(chosen, target, groups, kept, batch or BATCH, progress)
    plain = collected["answers"]
    evaluations = _evaluate(chosen, collected, splits, seed, resamples, progress)
    findings, worst, replicates = _figures(chosen, evaluations, seed, resamples)
    sizes = (len(splits[0][1]), len(splits[1][1]))
    warnings = [
        *left_out,
        *_sample_warnings(groups, splits, plain[0].classes),
        *_attack_warnings(chosen, findings),
        *fallbacks.warnings(),
    ]
    setup = _setup(model, plain[0].classes, splits, findings, seed, resamples)
    report = AuditReport(
        title=title,
        findings=findings,
        worst=worst,
        replicates=replicates,
        accuracy=_accuracy(plain) if labelled else None,
        ece=_ece(plain) if labelled else None,
        gap_floor=next((one.auc for one in findings if one.attack == Correctness.name), None),
        sizes=sizes,
        samples=_identity(groups, splits, seed, resamples),
        warnings=warnings,
        notes=_notes(chosen, collected, findings),
        setup=setup,
        seed=seed,
        before=before,
        results=Results(setup),
    )
    if before is not None:
        report.change(before)  # complain about other samples now, not when the page is written
    _tabulate(report)
    return report


# ---- what is given -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Samples:
    """One group: images or answers, and labels where they are known."""

    images: NDArray[Any] | None
    labels: NDArray[np.int64] | None
    outputs: Outputs | None = None

    def __len__(self) -> int:
        return len(self.images) if self.images is not None else len(self.outputs or ())


def _group(name: str, given: Group) -> _Samples:
    if isinstance(given, Outputs):
        return _Samples(None, given.labels, given)
    images: Any
    labels: ArrayLike | torch.Tensor | None = None
    if isinstance(given, Dataset):
        images, labels = given.images, given.labels
    elif isinstance(given, tuple | list) and len(given) == 2:
        images, labels = given
    elif isinstance(given, np.ndarray | torch.Tensor):
        images = given
    else:
        raise TypeError(
            f"{name}: expected (images, labels), a Dataset, images or attacks.Outputs, got {type(given).__name__}"
        )
    array = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images)
    as_images(array[:1] if array.dtype == np.uint8 else array, name=name)
    truth = None if labels is None else metrics.checked_labels(f"{name}: labels", as_array(labels), len(array))
    if truth is not None and truth.min() < 0:
        raise ValueError(f"{name}: labels: expected classes from 0, got {truth.min()}")
    return _Samples(array, truth)


def _target(
    model: Asked | None,
    groups: tuple[_Samples, _Samples],
    mean: NormStat,
    std: NormStat,
    kind: Kind,
    batch: int | None,
) -> Target | None:
    answered = [group.outputs is not None for group in groups]
    if all(answered):
        if model is not None:
            raise ValueError("model: expected None, as members and nonmembers are answers already")
        return None
    if any(answered):
        raise ValueError("members, nonmembers: expected images of both, or answers of both")
    if model is None:
        raise ValueError("model: expected something to ask about the images, got None")
    shapes = [group.images.shape[1:] for group in groups if group.images is not None]
    if shapes[0] != shapes[1]:
        raise ValueError(f"nonmembers: expected images {shapes[0]} as the members', got {shapes[1]}")
    channels, height, width = shapes[0]
    return as_target(model, (channels, height, width), mean=mean, std=std, kind=kind, batch=batch)


def _attacks(
    attacks: str | Sequence[Attack], *, seed: int, shadows: Any, **given: bool
) -> tuple[list[Attack], list[str]]:
    """The attacks to run, and what is to be said about those of a named set that cannot be."""
    if isinstance(attacks, str):
        if attacks not in SETS:
            raise ValueError(f"attacks: expected one of {', '.join(map(repr, SETS))} or attacks, got {attacks!r}")
        chosen = attack_set(attacks, seed=seed, fenced=given["fenced"], shadows=shadows)
    else:
        chosen = list(attacks)
        for attack in chosen:
            if not isinstance(attack, Attack):
                raise TypeError(f"attacks: expected attacks of diffence.attacks, got {type(attack).__name__}")
    named = isinstance(attacks, str)
    kept, warnings = [], []
    for attack in chosen:
        missing = []
        if attack.needs_labels and not given["labels"]:
            missing.append("labels")
        if attack.requires is not Outputs and not given["images"]:
            missing.append("a model to ask")
        if not missing:
            kept.append(attack)
        elif not named:
            raise ValueError(f"attacks: {attack.name} needs {' and '.join(missing)}")
        else:
            warnings.append(f"Left out, for want of {' and '.join(missing)}: {attack.name}.")
    if given["labels"] and not any(isinstance(attack, Correctness) for attack in kept):
        kept.append(Correctness())
    names = [attack.name for attack in kept]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"attacks: expected different names, got {twice[0]!r} more than once")
    if not kept:
        raise ValueError("attacks: none is left; " + " ".join(warnings))
    return kept, warnings


def _split(sizes: Sequence[int], known: float, seed: int) -> Splits:
    """For each group the positions of the known and of the evaluated samples."""
    if not 0 < known < 1:
        raise ValueError(f"known: expected a share between 0 and 1, got {known}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: expected an integer of at least 0, got {seed!r}")
    splits = []
    rng = np.random.default_rng(seed)
    for name, n in zip(("members", "nonmembers"), sizes, strict=True):
        count = round(known * n)
        if not 0 < count < n:
            raise ValueError(
                f"{name}: {n} samples leave {count} known and {n - count} evaluated at known={known:g}; give more"
            )
        order = rng.permutation(n)
        splits.append((order[:count], order[count:]))
    return splits


def _identity(
    groups: tuple[_Samples, _Samples],
    splits: Splits,
    seed: int,
    resamples: int,
) -> str:
    """A hash of the evaluated samples in their order, and of what the resamples depend on.

    Of answers it knows labels and numbers only: files of answers to the same samples must have the same order.
    """
    digest = hashlib.sha256(f"{seed} {resamples}".encode())
    for group, (_, evaluated) in zip(groups, splits, strict=True):
        digest.update(evaluated.astype("<i8").tobytes())
        for values in (group.images, group.labels):
            if values is not None:
                digest.update(f"{values.dtype.str} {values.shape}".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


# ---- asking, fitting, judging ------------------------------------------------------------------------------------


def _collect(
    chosen: Sequence[Attack],
    target: Target | None,
    groups: tuple[_Samples, _Samples],
    kept: KeptAnswers | None,
    batch: int,
    progress: bool,
) -> dict[Hashable, tuple[Outputs, Outputs]]:
    """Everything that the attacks ask, once for each kind of question; "answers" is always among them."""
    if target is None:
        members, nonmembers = (group.outputs for group in groups)
        assert members is not None and nonmembers is not None  # noqa: PT018
        if members.classes != nonmembers.classes:
            raise ValueError(f"nonmembers: expected {members.classes} classes, got {nonmembers.classes}")
        return {"answers": (members, nonmembers)}
    wanted: dict[Hashable, Attack] = {"answers": Correctness()}
    for attack in chosen:
        wanted.setdefault(attack.query, attack)
    # Both groups in one call: what drifts while the target is asked must not tell them apart.
    images = np.concatenate([_alike(group.images, groups) for group in groups if group.images is not None])
    labels = [group.labels for group in groups]
    truth = None if labels[0] is None or labels[1] is None else np.concatenate([labels[0], labels[1]])
    first = np.arange(len(images)) < len(groups[0])
    found: dict[Hashable, tuple[Outputs, Outputs]] = {}
    most = {query: attack.most_queries(images[0].size) * len(images) for query, attack in wanted.items()}
    with tqdm(unit="image", desc="ask", total=sum(most.values()), disable=not progress) as bar:
        patient, anew = (ask_in_pieces(target, bar, batch, where) for where in (kept, None))
        for query, attack in wanted.items():
            bar.set_description(f"ask for {'plain answers' if query == 'answers' else attack.name}")
            before = bar.n
            outputs = attack.collect(anew if attack.timed else patient, images, truth)
            bar.total -= most[query] - (bar.n - before)  # so that what is left is what can still come
            found[query] = (outputs.take(first), outputs.take(~first))
    return found


def _alike(images: NDArray[Any], groups: tuple[_Samples, _Samples]) -> NDArray[Any]:
    """uint8 where both groups are, else float32 in [0, 1]."""
    both = all(group.images is not None and group.images.dtype == np.uint8 for group in groups)
    return images if both else as_images(images)


def _evaluate(
    chosen: Sequence[Attack],
    collected: dict[Hashable, tuple[Outputs, Outputs]],
    splits: Splits,
    seed: int,
    resamples: int,
    progress: bool,
) -> list[Evaluation]:
    def one(attack: Attack) -> Evaluation:
        members, nonmembers = collected[attack.query]
        (known_members, evaluated_members), (known_nonmembers, evaluated_nonmembers) = splits
        return evaluate(
            attack,
            members.take(known_members),
            nonmembers.take(known_nonmembers),
            members.take(evaluated_members),
            nonmembers.take(evaluated_nonmembers),
            seed=seed,
            resamples=resamples,
        )

    with one_torch_thread() as threads:
        done = Parallel(n_jobs=threads, backend="threading", return_as="generator")(delayed(one)(a) for a in chosen)
        return list(tqdm(done, "fit and judge", len(chosen), unit="attack", disable=not progress))


def _figures(
    chosen: Sequence[Attack], evaluations: Sequence[Evaluation], seed: int, resamples: int
) -> tuple[list[Finding], Worst, NDArray[np.float64]]:
    """Findings, strongest first; the strongest that counts; the AUC of each that counts in each resample.

    All attacks are resampled together, so that the maximum over them can be.
    """
    pairs: list[tuple[ArrayLike, ArrayLike]] = [evaluation.scores for evaluation in evaluations]
    pairs += [evaluation.decisions for evaluation in evaluations]  # their AUC is their balanced accuracy
    values, replicates = metrics.replicates(pairs, ("auc",), seed=seed, resamples=resamples)
    n = sum(len(side) for side in evaluations[0].scores)
    ends = np.percentile(replicates[:, 0], [2.5, 97.5], axis=1)
    figures = [
        Estimate(float(value), float(low), float(high), n) for value, low, high in zip(values[:, 0], *ends, strict=True)
    ]
    findings = [
        Finding(attack.family, evaluation, auc, accuracy, not _counts(attack))
        for attack, evaluation, auc, accuracy in zip(
            chosen, evaluations, figures[: len(chosen)], figures[len(chosen) :], strict=True
        )
    ]
    counted = [place for place, attack in enumerate(chosen) if _counts(attack)]
    if not counted:
        raise ValueError("attacks: all of them are what-ifs; add one that counts")
    best = max(counted, key=lambda place: values[place, 0])
    largest = metrics.maximum(values[counted, 0], replicates[counted, 0])
    worst = Worst(evaluations[best].attack, Estimate(*largest[:3], n))
    order = sorted(range(len(findings)), key=lambda place: -values[place, 0])
    kept = [place for place in order if place in counted]
    return [findings[place] for place in order], worst, replicates[kept, 0]


def _counts(attack: Attack) -> bool:
    """Whether the headline may rest on it: an attack on this very model, that no attacker needs the answers for."""
    return not (attack.hypothetical or attack.sees_targets)


# ---- what is said ------------------------------------------------------------------------------------------------


def _setup(
    model: Asked | None, classes: int, splits: Splits, findings: Sequence[Finding], seed: int, resamples: int
) -> dict[str, Any]:
    def group(part: tuple[NDArray[np.int64], NDArray[np.int64]]) -> str:
        known, evaluated = map(len, part)
        return f"{known + evaluated:,}: {known:,} known to the attacker, {evaluated:,} evaluated"

    return {
        "asked": {**({} if model is None else describe(model)), "classes": classes},
        "samples": {"members": group(splits[0]), "non-members": group(splits[1])},
        "attacks": ", ".join(finding.attack for finding in findings),
        "conventions": {
            "FPR of 0.1 %": "strictly below",
            "thresholds": "fitted on the known samples",
            "intervals": f"95 %, {resamples} bootstrap resamples; of rates exact, their threshold included",
        },
        "seed": seed,
    }


def _accuracy(plain: tuple[Outputs, Outputs]) -> tuple[Estimate, Estimate]:
    def share(outputs: Outputs) -> Estimate:
        right, n = int((outputs.predicted == outputs.true_labels).sum()), len(outputs)
        return Estimate(right / n, *metrics.clopper_pearson(right, n), n)

    return share(plain[0]), share(plain[1])


def _ece(plain: tuple[Outputs, Outputs]) -> tuple[float, float]:
    first, second = (metrics.ece(outputs.logits, outputs.true_labels) for outputs in plain)
    return first, second


def _sample_warnings(groups: tuple[_Samples, _Samples], splits: Splits, classes: int) -> list[str]:
    (known_members, members), (known_nonmembers, nonmembers) = splits
    warnings = checks.few_samples(len(members), len(nonmembers))
    images = [group.images for group in groups]
    if images[0] is not None and images[1] is not None:
        warnings += checks.duplicates(images[0], images[1])
        warnings += checks.blind_difference(
            (images[0][known_members], images[1][known_nonmembers]), (images[0][members], images[1][nonmembers])
        )
    labels = [group.labels for group in groups]
    if labels[0] is not None and labels[1] is not None:
        warnings += checks.different_labels(labels[0], labels[1], classes)
    return warnings


def _attack_warnings(chosen: Sequence[Attack], findings: Sequence[Finding]) -> list[str]:
    warnings = []
    for finding in findings:
        if finding.auc.high < 0.5:
            warnings.append(
                f"The attack {finding.attack!r} is worse than chance (AUC {finding.auc.value:.3f}, 95 % interval up to "
                f"{finding.auc.high:.3f}): what it takes for a member's sign is a non-member's here."
            )
    for attack in chosen:
        known = getattr(attack, "known_", None)
        if known is not None and known.min() < 10:
            warnings.append(
                f"{attack.name}: a class has only {known.min()} known samples of a group; its threshold is a guess."
            )
        warnings += [f"{attack.name}: {text}" for text in attack.warnings_]
        if attack.sees_targets:
            warnings.append(f"{attack.name} was tuned on the very samples that it is judged on: too good, not counted.")
    return warnings


def _notes(
    chosen: Sequence[Attack], collected: dict[Hashable, tuple[Outputs, Outputs]], findings: Sequence[Finding]
) -> list[str]:
    """What repeated queries gain, in words: it is the question that is asked of a randomised defense."""
    notes = []
    found = {finding.attack: finding.auc for finding in findings}
    for attack in chosen:
        if not isinstance(attack, RepeatQueries):
            continue
        auc = found[attack.name]
        said = f"AUC {auc.value:.3f}, 95 % interval {auc.low:.3f} to {auc.high:.3f}"
        answers = [outputs.answers for outputs in collected[attack.query] if isinstance(outputs, AnswerOutputs)]
        if attack.fresh:
            notes.append(f"If the noise were drawn anew for each query, {attack.k} answers would give: {said}.")
        elif all((one == one[:, :1]).all() for one in answers):
            notes.append(f"Asked {attack.k} times, every image got equal answers: repeating gains nothing ({said}).")
        else:
            notes.append(f"Answers to the same image differ, and {attack.k} of them give: {said}.")
    return notes


class _Fallbacks:
    """How many answers of a fence came from its fallback since this was made."""

    def __init__(self, model: Any) -> None:
        self.fence = model if isinstance(model, Diffence) else None
        self.start = dict(self.fence.counts) if self.fence is not None else {}

    def warnings(self) -> list[str]:
        if self.fence is None:
            return []
        since = {name: count - self.start[name] for name, count in self.fence.counts.items()}
        if not since["fallback"]:
            return []
        shown = "the unprotected original" if self.fence.fallback == "original" else "a draw with two values exchanged"
        return [
            f"The fallback answered {since['fallback']} of {since['images']} questions "
            f"({since['fallback'] / since['images']:.1%}) with {shown}, as no draw kept the label."
        ]


def _tabulate(report: AuditReport) -> None:
    """Every figure as a tidy row."""
    where: dict[str, Any] = {"dataset": "audit", "classifier": "model", "seed": report.seed}
    n = sum(report.sizes)
    report.results.add("auc_maximum", *report.worst.auc, attack=report.worst.attack, **where)
    for finding in report.findings:
        figures = {"auc": finding.auc, "balanced_accuracy": finding.balanced_accuracy, "tnr_at_fnr": finding.tnr}
        figures |= {f"tpr_at_fpr_{fpr:g}": figure for fpr, figure in finding.tpr.items()}
        report.results.add_all(figures, attack=finding.attack, **where)
    of_model: dict[str, Any] = {"accuracy": report.accuracy, "ece": report.ece}
    for name, pair in of_model.items():
        if pair is not None:
            for side, figure in zip(("train", "test"), pair, strict=True):
                found = figure if isinstance(figure, Estimate) else Estimate(figure, np.nan, np.nan, n)
                report.results.add(f"{side}_{name}", *found, **where)
