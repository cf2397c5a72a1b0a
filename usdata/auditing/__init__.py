"""Audit a data set: what is in it, what is wrong with it, and how much of its labels a shortcut could explain.

Comes in: a data set folder. Goes out: statistics and findings, and four files: report.html, report.json, report.md and ATTRIBUTION.md.
Guarantees: the manifest is only read, except for duplicates.parquet, which is renewed where an older version searched; every count is
exact; equal data sets give equal results and equal files.
"""

from __future__ import annotations

import errno
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usdata.auditing.against import against as compared
from usdata.auditing.against import refuse_same
from usdata.auditing.attribution import attribution_text
from usdata.auditing.finding import LEVELS, Finding, check_fail_on
from usdata.auditing.findings import find
from usdata.auditing.markdown import markdown
from usdata.auditing.renewal import with_new_duplicates
from usdata.auditing.report import render, summary
from usdata.auditing.statistics import statistics
from usdata.auditing.tables import prepare
from usdata.auditing.terminal import print_audit
from usdata.console import safe_text, say
from usdata.errors import DataSetError, UserError
from usdata.files import write_text
from usdata.manifest import REPORT_FILES, open_dataset

REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN, ATTRIBUTION = REPORT_FILES
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}  # /proc says that it knows no such file

__all__ = ["LEVELS", "REPORT_HTML", "AuditResult", "Finding", "audit", "check_fail_on", "print_audit", "writable"]


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

    @property
    def files(self) -> list[Path]:
        """The files that were written, the page first."""
        return [] if self.report is None else [self.report.parent / name for name in REPORT_FILES]

    def to_json(self) -> dict[str, Any]:
        """The result as plain values. Paths are left relative to the data set, so that the text can be passed on."""
        return {
            "dataset": self.dataset,
            "worst": self.worst,
            "findings": [finding.to_json() for finding in self.findings],
            "statistics": self.statistics,
            "report": None if self.report is None else self.report.name,
        }


def writable(folder: str | Path) -> bool:
    """Whether files can be written into a folder, or into the nearest one above it that exists."""
    path = Path(folder).absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError as error:
        if error.errno in _FORBIDDEN:
            return False
        raise


def audit(
    dataset: str | Path,
    *,
    against: str | Path | None = None,
    out: str | Path | None = None,
    pictures: bool = True,
    write_report: bool = True,
) -> AuditResult:
    """Count what a data set holds, look for what is wrong with it, and write report.html, report.json, report.md and ATTRIBUTION.md.

    Args:
        dataset: The data set's folder.
        against: Another data set: what of this one stands in it too.
        out: Folder for the files; None: the data set's own. With another one the data set is only read.
        pictures: Look at images: thumbnails, the probe on what surrounds the field of view, images that are missing, the search for
            duplicates where it is old, the same scan in another set. Without it a million frames take less than a minute.
        write_report: Write the files, and renew duplicates.parquet where it is old; without it the folder stays as it is.

    Raises:
        DataSetError: The folder is not a data set, a table of it is missing or unreadable, or it cannot be written.
        UserError: `out` lies inside the data set, or `against` is the data set itself.
    """
    opened = open_dataset(dataset)
    other = None if against is None else open_dataset(against)
    if against is not None:
        refuse_same(opened.folder, Path(against))
    if pictures and not (opened.folder / "images").is_dir() and len(opened.videos):
        say(f"{opened.folder} has no images folder: a manifest without its pictures, audited without them")
        pictures = False
    target = opened.folder if out is None else Path(out)
    if write_report:
        _refuse_target(opened.folder, target)
    if write_report and pictures and target.resolve() == opened.folder.resolve():
        opened = with_new_duplicates(opened)
    tables = prepare(opened)
    counted = statistics(tables, pictures=pictures)
    if other is not None:
        counted["against"] = compared(opened, other, pictures=pictures)
    findings = find(tables, counted, pictures=pictures)
    result = AuditResult(opened.name, opened.folder, counted, findings, target / REPORT_HTML if write_report else None)
    if write_report:
        texts = {
            REPORT_HTML: render(tables, counted, findings, pictures=pictures),
            REPORT_JSON: json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n",
            REPORT_MARKDOWN: markdown(counted, findings, summary(counted, findings)),
            ATTRIBUTION: attribution_text(counted),
        }
        for name, text in texts.items():
            write_text(target / name, text)
    return result


def _refuse_target(folder: Path, target: Path) -> None:
    """Refuse a place for the report before an hour's work, not after it."""
    if folder.resolve() in target.resolve().parents:
        raise UserError(target, "lies inside the data set", "give an --out elsewhere, or none: the files then lie in the data set itself")
    if target.exists() and not target.is_dir():
        raise UserError(target, "is a file, not a folder", "give --out a folder")
    if not writable(target):
        raise DataSetError(target, "cannot be written", "give --out DIR for the report, or --json to print it alone")
