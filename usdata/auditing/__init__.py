"""Audit a data set: what is in it, what is wrong with it, and how much of its labels a shortcut could explain.

Comes in: a data set folder. Goes out: statistics and findings, and one page, SET/report.html. Guarantees: the manifest is only read, except
for duplicates.parquet, which is renewed where an older version searched; every count is exact; equal data sets give equal results
and equal pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usdata.auditing.finding import LEVELS, Finding, check_fail_on
from usdata.auditing.findings import find
from usdata.auditing.renewal import with_new_duplicates
from usdata.auditing.report import render
from usdata.auditing.statistics import prepare, statistics
from usdata.auditing.terminal import print_audit
from usdata.console import safe_text
from usdata.files import write_text
from usdata.manifest import open_dataset

REPORT_HTML = "report.html"

__all__ = ["LEVELS", "REPORT_HTML", "AuditResult", "Finding", "audit", "check_fail_on", "print_audit"]


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        dataset: The data set's name.
        folder: Its folder, as it was given.
        statistics: Everything counted, as plain values (see `usdata.auditing.statistics.statistics`).
        findings: Worst first.
        report: The page that was written, or None.
    """

    dataset: str
    folder: Path
    statistics: dict[str, Any]
    findings: list[Finding]
    report: Path | None

    @property
    def worst(self) -> str | None:
        """The worst level among the findings (note, warning or error); None without findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default=None)

    def __repr__(self) -> str:
        return safe_text(f"<AuditResult of {self.dataset}: {len(self.findings)} findings, the worst: {self.worst}>")

    def _repr_html_(self) -> str:
        from usdata.notebook.cards import audit_card

        return audit_card(self)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values. Paths are left relative to the data set, so that the text can be passed on."""
        return {
            "dataset": self.dataset,
            "worst": self.worst,
            "findings": [finding.to_json() for finding in self.findings],
            "statistics": self.statistics,
            "report": None if self.report is None else self.report.name,
        }


def audit(dataset: str | Path, *, write_report: bool = True) -> AuditResult:
    """Count what a data set holds, look for what is wrong with it, and write SET/report.html.

    Args:
        dataset: The data set's folder.
        write_report: Write the page, and renew duplicates.parquet where it is old; without it the folder stays as it is.

    Raises:
        DataSetError: The folder is not a data set, or a table of it is missing or unreadable.
    """
    opened = open_dataset(dataset)
    if write_report:
        opened = with_new_duplicates(opened)
    tables = prepare(opened)
    counted = statistics(tables)
    findings = find(tables, counted)
    report = None
    if write_report:
        report = opened.folder / REPORT_HTML
        write_text(report, render(tables, counted, findings))
    return AuditResult(dataset=opened.name, folder=opened.folder, statistics=counted, findings=findings, report=report)
