"""Reports: the table for a terminal, the figures, and one HTML file that opens without a network.

rows = setting_rows(results.frame())           # from tidy results, or SettingRow by hand
print(text_table(rows))
write("report.html", Report("Digits", rows, attack_rows(results.frame()), roc=curves, phi=samples))
"""

from diffence.report.content import (
    STRONGEST,
    UNDEFENDED,
    AttackRow,
    Estimate,
    ImageGrid,
    IntervalSearch,
    PhiSample,
    Report,
    RocCurve,
    SettingRow,
    attack_rows,
    setting_name,
    setting_rows,
)
from diffence.report.html import headline, render, write
from diffence.report.text import detail_table, text_table

__all__ = [
    "STRONGEST",
    "UNDEFENDED",
    "AttackRow",
    "Estimate",
    "ImageGrid",
    "IntervalSearch",
    "PhiSample",
    "Report",
    "RocCurve",
    "SettingRow",
    "attack_rows",
    "detail_table",
    "headline",
    "render",
    "setting_name",
    "setting_rows",
    "text_table",
    "write",
]
