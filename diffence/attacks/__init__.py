"""Membership-inference attacks on arrays: outputs of a model in, scores out. One attack a file, one protocol (base.py).

known, targets = (Outputs(logits, labels), ...), ...
found = evaluate(Loss(), *known, *targets, seed=0)
found.metrics["auc"]                 # value, low, high, n
compare(found_behind_the_fence, found)["auc_change"]
"""

from diffence.attacks.answers import AnswerOutputs
from diffence.attacks.augmentation import Augmentation
from diffence.attacks.base import Attack, MetricAttack, Outputs
from diffence.attacks.boundary import Boundary, BoundaryDistances
from diffence.attacks.calibration import DifficultyCalibration
from diffence.attacks.confidence import Confidence
from diffence.attacks.correctness import Correctness
from diffence.attacks.entropy import Entropy
from diffence.attacks.evaluate import Evaluation, compare, evaluate, pool, standard_attacks
from diffence.attacks.fallback import FallbackDetection
from diffence.attacks.labels import LabelOutputs, VariantLabels
from diffence.attacks.lira import LiRA
from diffence.attacks.loss import Loss
from diffence.attacks.modified_entropy import ModifiedEntropy
from diffence.attacks.near_duplicate import NearDuplicates
from diffence.attacks.nn import NN
from diffence.attacks.noise import NoiseRobustness, NoiseShares
from diffence.attacks.quantile import ImageOutputs, QuantileRegression
from diffence.attacks.repeat import RepeatQueries
from diffence.attacks.rmia import RMIA
from diffence.attacks.salem import Salem
from diffence.attacks.shadow import ShadowOutputs, assign
from diffence.attacks.target import Target
from diffence.attacks.timing import TimedOutputs, Timing

__all__ = [
    "NN",
    "RMIA",
    "AnswerOutputs",
    "Attack",
    "Augmentation",
    "Boundary",
    "BoundaryDistances",
    "Confidence",
    "Correctness",
    "DifficultyCalibration",
    "Entropy",
    "Evaluation",
    "FallbackDetection",
    "ImageOutputs",
    "LabelOutputs",
    "LiRA",
    "Loss",
    "MetricAttack",
    "ModifiedEntropy",
    "NearDuplicates",
    "NoiseRobustness",
    "NoiseShares",
    "Outputs",
    "QuantileRegression",
    "RepeatQueries",
    "Salem",
    "ShadowOutputs",
    "Target",
    "TimedOutputs",
    "Timing",
    "VariantLabels",
    "assign",
    "compare",
    "evaluate",
    "pool",
    "standard_attacks",
]
