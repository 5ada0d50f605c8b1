"""How likely each single sample is to be a member, by the share of known members among samples that look alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from diffence.metrics.checks import Floats, Ints, checked_labels, checked_scores


def privacy_risk(
    scores: ArrayLike,
    labels: ArrayLike,
    known_members: ArrayLike,
    known_nonmembers: ArrayLike,
    known_member_labels: ArrayLike,
    known_nonmember_labels: ArrayLike,
    *,
    bins: int = 5,
) -> Floats:
    """P(member | score, class) of each sample (Song and Mittal, USENIX Security 2021), (n,): 0 to 1, larger = likelier.

    All scores are negated losses or modified entropies, at most 0; labels (n,) are the classes. For each class the
    known scores fall into `bins` bins, equally wide on the logarithm of the loss between the smallest positive and the
    largest known one. The risk is the members' part of the mass in the sample's bin, where each group has a mass of 1:
    the prior is one half. Samples beyond the ends belong to the outer bins; a bin without known samples says 0.5, and a
    class without known members or non-members is judged by all classes together.
    """
    asked = _losses("scores", scores)
    classes = checked_labels("labels", labels, len(asked))
    known = (_losses("known_members", known_members), _losses("known_nonmembers", known_nonmembers))
    known_labels = (
        checked_labels("known_member_labels", known_member_labels, len(known[0])),
        checked_labels("known_nonmember_labels", known_nonmember_labels, len(known[1])),
    )
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    risk = np.empty(len(asked))
    for label in np.unique(classes):
        inside = [own[of == label] for own, of in zip(known, known_labels, strict=True)]
        members, nonmembers = inside if min(map(len, inside)) > 0 else known
        here = classes == label
        risk[here] = _shares(asked[here], members, nonmembers, bins)
    return risk


def _losses(name: str, scores: ArrayLike) -> Floats:
    losses: Floats = -checked_scores(name, scores)
    if losses.min() < 0:
        raise ValueError(f"{name}: expected negated losses, at most 0, got up to {-losses.min():.6g}")
    return losses


def _shares(asked: Floats, members: Floats, nonmembers: Floats, bins: int) -> Floats:
    everyone = np.concatenate([members, nonmembers])
    within = everyone[(everyone > 0) & np.isfinite(everyone)]
    # Without a positive loss there is nothing to tell apart: one bin.
    edges = np.geomspace(within.min(), within.max(), bins + 1)[1:-1] if len(within) else np.empty(0)

    def place(losses: Floats) -> Ints:
        return np.searchsorted(edges, losses, side="left")

    masses = [np.bincount(place(own), minlength=bins) / len(own) for own in (members, nonmembers)]
    total = masses[0] + masses[1]
    share = np.divide(masses[0], total, out=np.full(bins, 0.5), where=total > 0)
    return np.asarray(share[place(asked)])
