"""The audit as one HTML page that opens without a network.

Comes in: statistics, findings and the tables. Goes out: the page's text. Guarantees: everything that comes from the data is escaped,
nothing is loaded from elsewhere and a policy in the page forbids it, no path of the machine is in it, it stays under 10 MB, all of it can
be read without its script, and an equal data set gives an equal page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from usdata.auditing import page_parts
from usdata.auditing.charts import histogram, rate_bar, short_number, stacked_bar
from usdata.auditing.clip_table import clip_rows
from usdata.auditing.contact_sheets import Thumbnail, Thumbnailer, evenly_over_groups, first_frames, worst
from usdata.auditing.finding import LEVELS, Finding, count
from usdata.auditing.findings import CONFOUNDED_V, SHORTCUT_P_VALUE, SHORTCUT_POINTS
from usdata.auditing.page_text import breakable, finalize, fitting
from usdata.auditing.summary import clip_parts, frame_parts, summary, verdict
from usdata.auditing.tables import UNLABELLED, Tables

__all__ = ["clip_parts", "frame_parts", "render", "summary", "verdict"]

TEMPLATES = Path(__file__).parent / "page"
THUMBNAILS_PER_LABEL = 24
THUMBNAILS_OF_LABELS = 240
WORST_SHOWN = 14
PAIRS_SHOWN_AS_PICTURES = 6
ROWS_SHOWN = 1000
# Of one list: with all pictures and the clip table, a page of any set stays under 10 MB.
ROWS_BYTES = 80_000


def render(tables: Tables, statistics: dict[str, Any], findings: Sequence[Finding], *, pictures: bool = True) -> str:
    """The page as HTML text.

    Args:
        tables: The data set's tables; its folder is where the pictures are read.
        statistics: What `usdata.auditing.statistics.statistics` counted of them.
        findings: Worst first.
        pictures: Show small copies of stored images; without, no image is read.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    clips = clip_rows(tables.videos)
    labels = tables.labels
    thumbnailer = Thumbnailer(tables.dataset.folder)
    # The pairs and the worst pictures are few; what they leave is for the labels.
    pairs = _pairs(tables, statistics, thumbnailer) if pictures else []
    montages = _montages(tables, thumbnailer) if pictures else []
    sheets, sheets_left = _sheets(tables, thumbnailer) if pictures else ([], 0)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            policy=_policy(style, script),
            style=style,
            script=script,
            contents=[],
            statistics=statistics,
            summary=summary(statistics, findings),
            findings=findings,
            anchors=_anchors(findings),
            levels=[(level, number) for level in reversed(LEVELS) if (number := sum(finding.level == level for finding in findings))],
            clip_parts=clip_parts(statistics["flow"]["clips"]),
            frame_parts=frame_parts(statistics["flow"]["frames"]),
            stages=page_parts.stages(statistics),
            label_bars=page_parts.label_bars(statistics["by_source_label"], labels),
            member_histograms=page_parts.member_histograms(statistics),
            probes=page_parts.probes(statistics),
            acquisition=page_parts.acquisition(statistics, labels),
            acquisition_labels=page_parts.acquisition_labels(labels),
            unknown_facts=page_parts.unknown_facts(statistics),
            labels=labels,
            sheets=sheets,
            sheets_left=sheets_left,
            montages=montages,
            pairs=pairs,
            clips=clips,
            clips_of=len(tables.videos),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters.update(
        number=lambda value: "–" if value is None else short_number(value),
        thousands=lambda value: f"{value:,}",
        percent=lambda value: "–" if value is None else f"{value:.0%}",
        p_value=lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
        breakable=breakable,
        fitting=lambda rows: fitting(rows, ROWS_SHOWN, ROWS_BYTES),
        web_address=_web_address,
    )
    environment.globals.update(
        count=count,
        histogram=histogram,
        rate_bar=rate_bar,
        stacked_bar=stacked_bar,
        confounded_v=CONFOUNDED_V,
        shortcut_points=SHORTCUT_POINTS,
        shortcut_p_value=SHORTCUT_P_VALUE,
        unlabelled=UNLABELLED,
    )
    return environment


def _asset(name: str) -> Markup:
    """A file of ours that goes into the page as it is: it holds nothing from the data."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style and this script by their digests, pictures out of the page itself, and nothing else."""
    digests = [base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _web_address(text: object) -> str:
    """The text if it may stand behind a link, else "": an address can also hold a script."""
    return text if isinstance(text, str) and text.startswith(("https://", "http://")) else ""


def _anchors(findings: Sequence[Finding]) -> list[str]:
    """An anchor for each finding; of several with one id, the later ones are numbered."""
    seen: dict[str, int] = {}
    anchors = []
    for finding in findings:
        seen[finding.id] = seen.get(finding.id, 0) + 1
        anchors.append(f"finding-{finding.id}" + (f"-{seen[finding.id]}" if seen[finding.id] > 1 else ""))
    return anchors


def _sheets(tables: Tables, thumbnailer: Thumbnailer) -> tuple[list[tuple[str, int, list[Thumbnail]]], int]:
    """(label, frames, thumbnails) of each label, and how many labels there was no place for."""
    present = set(tables.frames["label_name"])
    names = [name for name in (*tables.labels, UNLABELLED) if name in present]
    shown = names[:THUMBNAILS_OF_LABELS]
    each = max(1, min(THUMBNAILS_PER_LABEL, THUMBNAILS_OF_LABELS // max(1, len(shown))))
    sheets = []
    for number, name in enumerate(shown):
        frames = tables.frames[tables.frames["label_name"] == name]
        thumbnails = thumbnailer.make(evenly_over_groups(frames, each), share=1 / (len(shown) - number))
        if thumbnails:
            sheets.append((name, len(frames), thumbnails))
    return sheets, len(names) - len(shown)


def _montages(tables: Tables, thumbnailer: Thumbnailer) -> list[tuple[str, str, list[Thumbnail]]]:
    montages = []
    for measure, title, unit in (
        ("quality_sharpness", "The least sharp", "sharpness"),
        ("quality_std", "The least contrast", "contrast"),
    ):
        thumbnails = thumbnailer.make(worst(tables.frames, measure, WORST_SHOWN), measure, share=0.1)
        if thumbnails:
            montages.append((title, unit, thumbnails))
    return montages


def _pairs(tables: Tables, statistics: dict[str, Any], thumbnailer: Thumbnailer) -> list[tuple[dict[str, Any], list[Thumbnail]]]:
    pairs = []
    for row in statistics["duplicates"][:PAIRS_SHOWN_AS_PICTURES]:
        at = [(row["video_id_a"], row["first_frame_a"]), (row["video_id_b"], row["first_frame_b"])]
        thumbnails = thumbnailer.make(first_frames(tables.frames, at), share=0.05)
        if len(thumbnails) == 2:
            pairs.append((row, thumbnails))
    return pairs
