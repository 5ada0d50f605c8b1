"""Reports: the table for a terminal, the figures, and one HTML file that opens without a network.

rows = setting_rows(results.frame())           # from tidy results, or SettingRow by hand
print(text_table(rows))
write("report.html", Report("Digits", rows, attack_rows(results.frame()), roc=curves, phi=samples))
render_audit(AuditPage(...))                   # the page of an audit
"""

from diffence.report.audit_page import audit_headline, audit_table, render_audit
from diffence.report.content import (
    NOT_KNOWN,
    STRONGEST,
    UNDEFENDED,
    AttackRow,
    AuditPage,
    AuditRow,
    Estimate,
    ImageGrid,
    IntervalSearch,
    PhiSample,
    Report,
    RocCurve,
    ScoreSample,
    SettingRow,
    attack_rows,
    setting_name,
    setting_rows,
)
from diffence.report.settings_page import headline, render, write
from diffence.report.text import detail_table, text_table

__all__ = [
    "NOT_KNOWN",
    "STRONGEST",
    "UNDEFENDED",
    "AttackRow",
    "AuditPage",
    "AuditRow",
    "Estimate",
    "ImageGrid",
    "IntervalSearch",
    "PhiSample",
    "Report",
    "RocCurve",
    "ScoreSample",
    "SettingRow",
    "attack_rows",
    "audit_headline",
    "audit_table",
    "detail_table",
    "headline",
    "render",
    "render_audit",
    "setting_name",
    "setting_rows",
    "text_table",
    "write",
]
