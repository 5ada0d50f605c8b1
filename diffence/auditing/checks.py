"""What a reader of an audit must be told: samples that are too few, not apart, or different without the model."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffence import metrics

__all__ = ["blind_difference", "different_labels", "duplicates", "few_samples"]

_SURE = 3.0  # standard errors, or the matching p value, before a warning is given: 1 in 700 audits gets it by chance
_POOL = 4


def duplicates(members: NDArray[Any], nonmembers: NDArray[Any]) -> list[str]:
    """Warnings about images that occur in both groups, or twice in one."""
    seen = [[_digest(image) for image in group] for group in (members, nonmembers)]
    warnings = []
    shared = len(set(seen[0]) & set(seen[1]))
    if shared:
        warnings.append(f"{shared} images are members and non-members at once: no attack can be right about them.")
    for name, digests in zip(("members", "non-members"), seen, strict=True):
        again = len(digests) - len(set(digests))
        if again:
            warnings.append(
                f"{again} of the {name} occur more than once: attacks may be fitted on copies of what they judge."
            )
    return warnings


def _digest(image: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def few_samples(members: int, nonmembers: int) -> list[str]:
    """Warnings about what so few evaluated samples cannot show."""
    warnings = []
    if min(members, nonmembers) < 100:
        half = metrics.hanley_mcneil(0.5, members, nonmembers)
        warnings.append(
            f"Only {members} members and {nonmembers} non-members were evaluated: an AUC of 0.5 has an interval of "
            f"about ±{half:.2f}."
        )
    if nonmembers <= 1000:
        warnings.append(
            f"With {nonmembers} non-members, a false-positive rate below 0.1 % means none at all: the TPR there rests "
            "on the surest one or two of them."
        )
    return warnings


def different_labels(members: NDArray[np.int64], nonmembers: NDArray[np.int64], classes: int) -> list[str]:
    """A warning where the classes' shares differ by more than chance (chi-squared test)."""
    counts = np.stack([np.bincount(labels, minlength=classes) for labels in (members, nonmembers)])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return []
    if stats.chi2_contingency(counts).pvalue > 2 * stats.norm.sf(_SURE):
        return []
    return [
        "Members and non-members have their classes in other shares: what tells the classes apart tells these groups "
        "apart, without any leak."
    ]


def blind_difference(
    known: tuple[NDArray[Any], NDArray[Any]], evaluated: tuple[NDArray[Any], NDArray[Any]]
) -> list[str]:
    """A warning where members and non-members can be told apart from their pixels alone.

    A logistic regression on coarse pictures and channel deviations, fitted on `known` (members, non-members) and judged
    on `evaluated`: blind baselines of this kind beat many published attacks on badly split data (Das, Zhang, Tramer,
    2024). Images are (n, C, H, W).
    """
    features, truth = _pixels(known)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(features, truth)
    scores = model.decision_function(_pixels(evaluated)[0])
    count = len(evaluated[0])
    auc = metrics.auc(scores[:count], scores[count:])
    half = metrics.hanley_mcneil(0.5, count, len(scores) - count) / 1.96
    if auc - _SURE * half <= 0.5:
        return []
    return [
        f"Members and non-members differ without the model: their pixels alone give an AUC of {auc:.2f}. They are not "
        "of one distribution, and every attack may profit from that."
    ]


def _pixels(groups: tuple[NDArray[Any], NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    features = []
    for images in groups:
        scale = 255.0 if images.dtype == np.uint8 else 1.0
        _, _, height, width = images.shape
        rows = np.array_split(np.arange(height), min(_POOL, height))
        columns = np.array_split(np.arange(width), min(_POOL, width))
        coarse = [images[:, :, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(2, 3)) for r in rows for c in columns]
        features.append(np.concatenate([*coarse, images.std(axis=(2, 3))], axis=1) / scale)
    return np.concatenate(features), np.repeat([1, 0], [len(group) for group in groups])
