"""Which attacks an audit runs when it is asked for them by one word."""

from __future__ import annotations

from typing import Any

from diffence import attacks
from diffence.attacks import Attack

__all__ = ["SETS", "attack_set"]

SETS = ("metric", "standard", "thorough")


def attack_set(name: str, *, seed: int = 0, fenced: bool = False, shadows: Any = None) -> list[Attack]:
    """Fresh attacks of the set `name`, one of SETS.

    "metric": correctness, loss, confidence, entropy, modified entropy, also with a threshold a class: one answer an
        image, seconds. "standard": these, the NN attack, and the label-only attacks by translations, rotations and
        noise (30 more questions an image, for labels alone). "thorough": these, Salem's attack, the distance to the
        decision boundary (up to 1,500 questions an image), quantile regression and timing.
    fenced: adds what is aimed at a fence: repeated and near-duplicate queries, fallback detection, and as a what-if
        repeated queries against fresh noise; "standard" asks a fence 11 times more an image, "thorough" 40 times.
    shadows: shadow models (`diffence.shadows.Shadows`), which add LiRA, RMIA and difficulty calibration to
        "standard" and "thorough".
    """
    if name not in SETS:
        raise ValueError(f"attacks: expected one of {', '.join(map(repr, SETS))}, got {name!r}")
    thorough = name == "thorough"
    chosen: list[Attack] = [
        attacks.Correctness(),
        attacks.Loss(),
        attacks.Confidence(),
        attacks.Entropy(),
        attacks.ModifiedEntropy(),
        attacks.ModifiedEntropy(per_class=True),
    ]
    if name == "metric":
        return chosen
    chosen += [
        attacks.NN(seed=seed),
        attacks.Augmentation("translations"),
        attacks.Augmentation("rotations"),
        attacks.NoiseRobustness(seed=seed, draws=100 if thorough else 16),
    ]
    if thorough:
        chosen += [
            attacks.Salem(seed=seed),
            attacks.Boundary(seed=seed, budget=1500),
            attacks.QuantileRegression(seed=seed),
            attacks.Timing(seed=seed),
        ]
    if fenced:
        repeats, copies = (16, 15) if thorough else (4, 3)
        chosen += [
            attacks.RepeatQueries(k=repeats),
            attacks.RepeatQueries(k=repeats, fresh=True),
            attacks.NearDuplicates(k=copies, seed=seed),
            attacks.FallbackDetection(k=copies, seed=seed),
        ]
    if shadows is not None:
        chosen += [
            attacks.LiRA(shadows=shadows),
            attacks.LiRA(mode="offline", shadows=shadows),
            attacks.RMIA(shadows=shadows),
            attacks.DifficultyCalibration(shadows=shadows),
        ]
    return chosen
