"""Membership privacy for image classifiers: fence a classifier, attack it, measure what it leaks.

from diffence import Diffence
fence = Diffence(classifier, diffusion="ddpm.safetensors", scenario=1, mean=..., std=...)
fence.fit(members, nonmembers)
logits = fence(images)
diffence.audit(fence, (images, labels), (other_images, other_labels)).to_html("audit.html")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffence import attacks, classifiers, data, metrics, selection, unets
    from diffence.answers import Answer, Explanation, Samples
    from diffence.auditing import AuditReport, audit
    from diffence.engine import Engine
    from diffence.fence import Diffence, NoAgreementError
    from diffence.info import environment

# Imported when first used: the pytest plugin and `diffence --help` do not wait for torch.
_HOMES = {
    "Answer": "diffence.answers",
    "AuditReport": "diffence.auditing",
    "Diffence": "diffence.fence",
    "Engine": "diffence.engine",
    "Explanation": "diffence.answers",
    "NoAgreementError": "diffence.fence",
    "Samples": "diffence.answers",
    "audit": "diffence.auditing",
    "environment": "diffence.info",
}
_MODULES = ("attacks", "classifiers", "data", "metrics", "selection", "unets")

__all__ = [
    "Answer",
    "AuditReport",
    "Diffence",
    "Engine",
    "Explanation",
    "NoAgreementError",
    "Samples",
    "attacks",
    "audit",
    "classifiers",
    "data",
    "environment",
    "metrics",
    "selection",
    "unets",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"diffence.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'diffence' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
