"""Who is a member and who is not, and which of them the attacker, the defender and the evaluation may see."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Splits", "repeats", "split"]

Indices = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Splits:
    """Index arrays (int64) into one data set.

    members: the training set; nonmembers: images held out from it. Inside each, three disjoint parts: known_* (what
    the attacker fits on), calibration_* (what the defender fits its interval on) and target_* (what is evaluated).
    """

    members: Indices
    nonmembers: Indices
    known_members: Indices
    known_nonmembers: Indices
    calibration_members: Indices
    calibration_nonmembers: Indices
    target_members: Indices
    target_nonmembers: Indices
    seed: int


def split(
    labels_or_n: ArrayLike | int,
    *,
    members: int,
    known: int,
    calibration: int,
    target: int,
    seed: int,
    stratify: bool = True,
) -> Splits:
    """Draw `members` images for training and hold out all others.

    known, calibration and target count the images of each part among the members, and as many again among the
    non-members. The draw of the members depends on `members`, `seed` and `stratify` only, not on the other sizes.

    labels_or_n: the labels (n,), or n itself, which draws without regard to classes.
    stratify: keep the share of every class in every part, up to one or two images of a class.
    Raises ValueError that shows the arithmetic when the sizes do not fit.
    """
    return repeats(
        labels_or_n,
        count=1,
        members=members,
        known=known,
        calibration=calibration,
        target=target,
        seed=seed,
        stratify=stratify,
    )[0]


def repeats(
    labels_or_n: ArrayLike | int,
    *,
    count: int,
    members: int,
    known: int,
    calibration: int,
    target: int,
    seed: int,
    stratify: bool = True,
) -> list[Splits]:
    """`count` splits of one data set for as many classifiers, whose scores may be pooled.

    No image occurs in two of them: the members of all splits are disjoint, and so are their non-members, which come
    from the images that no split trains on. So a diffusion model may be trained on the members of all splits
    together, and every image counts once in the pool. The other arguments are those of `split`.
    """
    sizes = {"members": members, "known": known, "calibration": calibration, "target": target}
    for name, value in {"count": count, "seed": seed, **sizes}.items():
        least = 1 if name in ("count", "members") else 0
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    order = _order(labels_or_n, seed, stratify)
    used = known + calibration + target
    sum_text = f"known {known} + calibration {calibration} + target {target} = {used}"
    if used > members:
        raise ValueError(f"{sum_text} images of the members, but there are only members {members}")
    held_out = len(order) - count * members
    share = held_out // count
    if held_out < count or used > share:
        times = f" in each of {count} splits" if count > 1 else ""
        raise ValueError(
            f"{sum_text} images of the non-members{times}, but {len(order)} images - {count} x members {members} "
            f"leave {max(share, 0)}"
        )
    pools = order[count * members :]
    result = []
    for index in range(count):
        own = order[index * members : (index + 1) * members]
        other = pools[index * share : (index + 1) * share]
        a, b, c = known, known + calibration, used
        result.append(Splits(own, other, own[:a], other[:a], own[a:b], other[a:b], own[b:c], other[b:c], seed))
    return result


def _order(labels_or_n: ArrayLike | int, seed: int, stratify: bool) -> Indices:
    """A random order of all images in which, stratified, every contiguous block has the classes in proportion."""
    given = np.asarray(labels_or_n)
    if given.dtype.kind not in "iu" or given.ndim > 1 or (given.ndim == 0 and given < 1) or given.size == 0:
        raise ValueError(f"labels_or_n: expected integer labels (n,) or a number n of at least 1, got {labels_or_n!r}")
    n = int(given) if given.ndim == 0 else len(given)
    rng = np.random.default_rng(seed)
    shuffled = np.argsort(rng.random(n), kind="stable")
    if given.ndim == 0 or not stratify:
        return shuffled
    # The j-th of a class with m images goes to a random place in [j/m, (j+1)/m): the classes are spread evenly.
    place, jitter = np.empty(n), rng.random(n)
    for label in np.unique(given):
        inside = shuffled[given[shuffled] == label]
        place[inside] = (np.arange(len(inside)) + jitter[inside]) / len(inside)
    return np.argsort(place, kind="stable")
