"""Thresholds that an attacker takes from samples whose membership is known, and what labels alone give away."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from diffence.metrics.checks import Floats, Ints, checked_labels, checked_scores


def calibrate_threshold(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """The threshold that an attacker takes from known samples (Song and Mittal, USENIX Security 2021).

    Candidates are all scores, members first, in the order given; the one with the largest
    (share of members >= it + share of non-members < it) / 2 is chosen, the first of equals.
    """
    positive, negative = checked_scores("members", members), checked_scores("nonmembers", nonmembers)
    candidates = np.concatenate([positive, negative])
    tpr = (len(positive) - np.searchsorted(np.sort(positive), candidates, side="left")) / len(positive)
    tnr = np.searchsorted(np.sort(negative), candidates, side="left") / len(negative)
    return float(candidates[np.argmax(tpr + tnr)])


def calibrate_class_thresholds(
    members: ArrayLike, nonmembers: ArrayLike, member_labels: ArrayLike, nonmember_labels: ArrayLike, classes: int
) -> tuple[Floats, Ints]:
    """`calibrate_threshold` in each class -> thresholds (classes,), known samples of each class (classes, 2).

    A class without a known member or without a known non-member gets the threshold of all classes together. The counts
    (members, non-members) say how much each threshold is worth: with ten samples a class it is mostly noise.
    """
    positive, negative = checked_scores("members", members), checked_scores("nonmembers", nonmembers)
    positive_labels = checked_labels("member_labels", member_labels, len(positive), classes)
    negative_labels = checked_labels("nonmember_labels", nonmember_labels, len(negative), classes)
    counts = np.stack([np.bincount(labels, minlength=classes) for labels in (positive_labels, negative_labels)], axis=1)
    thresholds = np.full(classes, calibrate_threshold(positive, negative))
    for label in np.flatnonzero(counts.min(axis=1)):
        thresholds[label] = calibrate_threshold(positive[positive_labels == label], negative[negative_labels == label])
    return thresholds, counts


def gap_floor(train_accuracy: float, test_accuracy: float) -> float:
    """(1 + train accuracy - test accuracy) / 2: what labels alone give away. An attack below adds nothing to them."""
    for name, accuracy in (("train_accuracy", train_accuracy), ("test_accuracy", test_accuracy)):
        if not 0 <= accuracy <= 1:
            raise ValueError(f"{name}: expected a share from 0 to 1, got {accuracy}")
    return (1 + train_accuracy - test_accuracy) / 2
