"""Membership privacy for image classifiers: fence a classifier, attack it, measure what it leaks.

from diffence import Diffence
fence = Diffence(classifier, diffusion="ddpm.safetensors", scenario=1, mean=..., std=...)
fence.fit(members, nonmembers)
logits = fence(images)
"""

from diffence import attacks, classifiers, data, metrics, selection, unets
from diffence.answers import Answer, Explanation, Samples
from diffence.engine import Engine
from diffence.fence import Diffence, NoAgreementError
from diffence.info import environment

__all__ = [
    "Answer",
    "Diffence",
    "Engine",
    "Explanation",
    "NoAgreementError",
    "Samples",
    "attacks",
    "classifiers",
    "data",
    "environment",
    "metrics",
    "selection",
    "unets",
]
__version__ = "0.1.0"
