"""Membership-inference attacks on arrays: outputs of a model in, scores out. One attack a file, one protocol (base.py).

known, targets = (Outputs(logits, labels), ...), ...
found = evaluate(Loss(), *known, *targets, seed=0)
found.metrics["auc"]                 # value, low, high, n
compare(found_behind_the_fence, found)["auc_change"]
"""

from diffence.attacks.base import Attack, MetricAttack, Outputs
from diffence.attacks.confidence import Confidence
from diffence.attacks.correctness import Correctness
from diffence.attacks.entropy import Entropy
from diffence.attacks.evaluate import Evaluation, compare, evaluate, pool, standard_attacks
from diffence.attacks.loss import Loss
from diffence.attacks.modified_entropy import ModifiedEntropy
from diffence.attacks.nn import NN
from diffence.attacks.target import Target

__all__ = [
    "NN",
    "Attack",
    "Confidence",
    "Correctness",
    "Entropy",
    "Evaluation",
    "Loss",
    "MetricAttack",
    "ModifiedEntropy",
    "Outputs",
    "Target",
    "compare",
    "evaluate",
    "pool",
    "standard_attacks",
]
