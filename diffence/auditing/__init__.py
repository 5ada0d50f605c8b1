"""Audits: every attack against one model, what it leaks with intervals, a page to read, and claims that can fail.

report = audit(model_or_fence, (images, labels), (other_images, other_labels))
report.worst; report.frame(); report.to_html("audit.html"); report.assert_auc_at_most(0.60)
"""

from diffence.auditing.answers import read_answers
from diffence.auditing.attack_sets import SETS, attack_set
from diffence.auditing.report import AuditReport, Finding, Worst
from diffence.auditing.run import audit
from diffence.auditing.targets import as_target, load_model

__all__ = ["SETS", "AuditReport", "Finding", "Worst", "as_target", "attack_set", "audit", "load_model", "read_answers"]
