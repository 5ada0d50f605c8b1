"""Attack, measure, compare: fitted on known samples, evaluated on others, every figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffence import metrics
from diffence.attacks.base import Attack, Outputs
from diffence.attacks.confidence import Confidence
from diffence.attacks.correctness import Correctness
from diffence.attacks.entropy import Entropy
from diffence.attacks.loss import Loss
from diffence.attacks.modified_entropy import ModifiedEntropy
from diffence.attacks.nn import NN
from diffence.metrics import Estimate

__all__ = ["Evaluation", "compare", "evaluate", "pool", "standard_attacks"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one attack says of the targets, and how right it is. Pairs of arrays are (of members, of non-members).

    scores: float64, larger = more likely a member. decisions: bool, True = called a member. labels: true labels, or
    None where they were not given. repeats: which classifier answered for the sample, all 0 unless `pool` made this;
    across: see there. seed, resamples: of the bootstrap.
    """

    attack: str
    scores: tuple[NDArray[np.float64], NDArray[np.float64]]
    decisions: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    labels: tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]
    repeats: tuple[NDArray[np.int64], NDArray[np.int64]]
    across: bool
    seed: int
    resamples: int

    @cached_property
    def metrics(self) -> dict[str, Estimate]:
        """Name -> Estimate (value, low, high, n), n = members + non-members; computed when first asked for.

        "auc"; "balanced_accuracy", of the decisions; "balanced_accuracy_oracle", with the best threshold for these very
        samples; "tpr_at_fpr" and "tnr_at_fnr", at 0.1 %, strict.
        """

        def figures(
            pair: tuple[NDArray[Any], NDArray[Any]], statistics: Sequence[metrics.Statistic]
        ) -> dict[str, Estimate]:
            return metrics.bootstrap(
                *pair,
                statistics,
                seed=self.seed,
                resamples=self.resamples,
                groups=self.repeats,
                pooled=self.across,
            )

        # The AUC of decisions, which have two values, is their balanced accuracy.
        accuracy = figures(self.decisions, ("auc",))["auc"]
        return {"balanced_accuracy": accuracy, **figures(self.scores, metrics.STATISTICS)}


def standard_attacks(seed: int) -> list[Attack]:
    """The first set: correctness, loss, confidence, entropy, modified entropy, and the NN attack with this seed."""
    return [Correctness(), Loss(), Confidence(), Entropy(), ModifiedEntropy(), NN(seed=seed)]


def evaluate(
    attack: Attack,
    known_members: Outputs,
    known_nonmembers: Outputs,
    target_members: Outputs,
    target_nonmembers: Outputs,
    *,
    seed: int,
    resamples: int = 1000,
) -> Evaluation:
    """Fit `attack` on the known samples and evaluate it on the targets.

    The known and the target samples must be other samples, answered by the same model in the same way. The attack is
    fitted in place; it sees the targets before it scores them only if it is one that says so (`sees_targets`). seed,
    resamples: of the bootstrap; give the same to all that are to be compared.
    """
    targets = (target_members, target_nonmembers)
    attack.fit(known_members, known_nonmembers, targets=targets if attack.sees_targets else None)
    return Evaluation(
        attack=attack.name,
        scores=(attack.score(target_members), attack.score(target_nonmembers)),
        decisions=(attack.predict(target_members), attack.predict(target_nonmembers)),
        labels=(target_members.labels, target_nonmembers.labels),
        repeats=(np.zeros(len(target_members), np.int64), np.zeros(len(target_nonmembers), np.int64)),
        across=False,
        seed=seed,
        resamples=resamples,
    )


def pool(evaluations: Sequence[Evaluation], *, across: bool = False) -> Evaluation:
    """One evaluation of an attack from its evaluations on several classifiers (repeats), each on its own samples.

    The attack was fitted to each classifier apart, and scores of two classifiers have no common scale. So the AUC is
    the share of right pairs among all pairs (member, non-member) of one classifier: the mean of the repeats' AUCs,
    weighted by their numbers of pairs. across=True counts pairs of two classifiers too, which tends to understate the
    attack. Decisions are kept as each repeat's own threshold made them. The oracle accuracy and the rates at 0.1 % use
    one threshold for all repeats: one each, picked on few samples, would flatter the attack, and 0.1 % of a few hundred
    non-members is none. The bootstrap resamples within each repeat.
    """
    if not evaluations:
        raise ValueError("evaluations: expected at least one, got none")
    names = list(dict.fromkeys(evaluation.attack for evaluation in evaluations))
    if len(names) > 1:
        raise ValueError(f"evaluations: expected one attack, got {', '.join(names)}")

    def joined(side: int, field: str) -> Any:
        return np.concatenate([getattr(evaluation, field)[side] for evaluation in evaluations])

    labelled = all(own is not None for evaluation in evaluations for own in evaluation.labels)
    firsts = np.cumsum([0] + [int(evaluation.repeats[0].max()) + 1 for evaluation in evaluations])
    repeats = [
        np.concatenate([first + own.repeats[side] for first, own in zip(firsts, evaluations, strict=False)])
        for side in (0, 1)
    ]
    return Evaluation(
        attack=names[0],
        scores=(joined(0, "scores"), joined(1, "scores")),
        decisions=(joined(0, "decisions"), joined(1, "decisions")),
        labels=(joined(0, "labels"), joined(1, "labels")) if labelled else (None, None),
        repeats=(repeats[0], repeats[1]),
        across=across,
        seed=evaluations[0].seed,
        resamples=evaluations[0].resamples,
    )


def compare(defended: Evaluation, undefended: Evaluation) -> dict[str, Estimate]:
    """defended - undefended of each figure with its interval, as "auc_change" and so on; negative: less leaks.

    Both evaluations are of the same samples in the same order, and each resample takes the same samples from both; the
    attacks may differ. Seed and number of resamples are those of `undefended`. An interval on one side of 0 says that
    the difference is not the chance of these samples. It does not tell how another training run would come out.
    """
    for side, group in enumerate(("members", "nonmembers")):
        if not np.array_equal(defended.repeats[side], undefended.repeats[side]):
            raise ValueError(
                f"defended, undefended: expected the same target {group} in the same order, "
                f"got {len(defended.repeats[side])} and {len(undefended.repeats[side])} or other repeats"
            )
        ours, theirs = defended.labels[side], undefended.labels[side]
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            raise ValueError(f"defended, undefended: the true labels of the target {group} differ; other samples?")
    if defended.across != undefended.across:
        raise ValueError("defended, undefended: pooled in two ways (across)")

    def changes(field: str, statistics: Sequence[metrics.Statistic]) -> dict[str, Estimate]:
        return metrics.paired_bootstrap(
            getattr(defended, field),
            getattr(undefended, field),
            statistics,
            seed=undefended.seed,
            resamples=undefended.resamples,
            groups=undefended.repeats,
            pooled=undefended.across,
        )

    accuracy = changes("decisions", ("auc",))["auc"]
    found = {"balanced_accuracy": accuracy, **changes("scores", metrics.STATISTICS)}
    return {f"{name}_change": change for name, change in found.items()}
