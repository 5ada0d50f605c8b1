"""How well an attack tells members from non-members, and how sure one can be of that figure.

Everywhere: `members` and `nonmembers` are an attack's scores of the two groups, each of shape (n,), larger = more
likely a member. Members are the positive class, and a sample is called a member when its score >= the threshold.
"""

from __future__ import annotations

from diffence.metrics.analytic import Difference, delong, hanley_mcneil
from diffence.metrics.bounds import EpsilonBound, epsilon_lower_bound, ratio_bound
from diffence.metrics.checks import (
    Floats,
    Groups,
    Ints,
    checked_labels,
    checked_probabilities,
    checked_rows,
    checked_scores,
)
from diffence.metrics.curve import (
    LOW_RATE,
    STATISTICS,
    Roc,
    Statistic,
    auc,
    balanced_accuracy,
    balanced_accuracy_oracle,
    roc,
    tnr_at_fnr,
    tpr_at_fpr,
)
from diffence.metrics.outputs import ece, js_divergence, phi
from diffence.metrics.rates import (
    RateEstimate,
    Share,
    clopper_pearson,
    negative_rate_at,
    nonmembers_needed,
    rate_at,
    tnr_interval,
    tpr_interval,
)
from diffence.metrics.resampling import Estimate, bootstrap, paired_bootstrap, replicates
from diffence.metrics.risk import privacy_risk
from diffence.metrics.several import Maximum, maximum, maximum_change
from diffence.metrics.thresholds import calibrate_class_thresholds, calibrate_threshold, gap_floor

__all__ = [
    "LOW_RATE",
    "STATISTICS",
    "Difference",
    "EpsilonBound",
    "Estimate",
    "Floats",
    "Groups",
    "Ints",
    "Maximum",
    "RateEstimate",
    "Roc",
    "Share",
    "Statistic",
    "auc",
    "balanced_accuracy",
    "balanced_accuracy_oracle",
    "bootstrap",
    "calibrate_class_thresholds",
    "calibrate_threshold",
    "checked_labels",
    "checked_probabilities",
    "checked_rows",
    "checked_scores",
    "clopper_pearson",
    "delong",
    "ece",
    "epsilon_lower_bound",
    "gap_floor",
    "hanley_mcneil",
    "js_divergence",
    "maximum",
    "maximum_change",
    "negative_rate_at",
    "nonmembers_needed",
    "paired_bootstrap",
    "phi",
    "privacy_risk",
    "rate_at",
    "ratio_bound",
    "replicates",
    "roc",
    "tnr_at_fnr",
    "tnr_interval",
    "tpr_at_fpr",
    "tpr_interval",
]
