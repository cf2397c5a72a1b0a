"""Sets, frames and audits as pieces of HTML for a notebook's cells.

In: an opened set, rows of its frames, or an audit's result. Out: HTML with styles of its own and pictures inside it. Guarantees: whatever
comes from the data is escaped, no script is in it and nothing is loaded from elsewhere, and colours are the notebook's, dark or light.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from usdata.console import safe_text
from usdata.errors import DataSetError, UserError
from usdata.manifest import DataSet

if TYPE_CHECKING:
    from usdata.auditing import AuditResult

STRIP = 12
SHEET = 24
MOST_PICTURES = 240
MOST_ROWS = 20
MOST_COUNTS = 40
HEIGHT = 96
JPEG_QUALITY = 80
LINE = "rgba(128,128,128,.4)"
CARD = f"border:1px solid {LINE};border-radius:6px;padding:12px 16px;max-width:1000px;color:inherit;background:transparent"
CELL = f"padding:2px 12px 2px 0;border-bottom:1px solid {LINE};color:inherit;background:transparent"
# Readable on white and on near-black alike.
LEVEL_COLOURS = {"error": "#d9363e", "warning": "#b7791f", "note": "#2f7fc1"}


@dataclass(frozen=True)
class Html:
    """A piece of HTML that a notebook shows."""

    text: str
    about: str

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.about


def card(dataset: DataSet) -> str:
    """A set at a glance: name, a sentence, counts by source and label, splits and folds, and pictures of clips spread over its groups."""
    from usdata.auditing.contact_sheets import evenly_over_groups

    frames, videos = dataset.frames, dataset.videos
    kept = videos[videos["status"] == "ok"]
    by_label = _counts(frames, [frames["source"], frames["label"].fillna("unlabelled")], ("source", "label"))
    parts = [(f"split {name}", rows) for name, rows in frames.groupby("split")]
    folded = frames.dropna(subset="fold")
    parts += [(f"fold {name}", rows) for name, rows in folded.groupby(folded["fold"].astype("int64"))]
    by_part = _table(("split or fold", "groups", "clips", "frames"), [(name, *_numbers(rows)) for name, rows in parts])
    pictures = _strip(dataset, evenly_over_groups(frames, STRIP)) if len(frames) else ""
    return (
        f'<div style="{CARD}"><div style="font-size:1.2em;font-weight:600">{_text(dataset.name)}</div>'
        f'<div style="margin:4px 0 10px">{_text(_sentence(dataset, kept))}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:8px 40px;align-items:flex-start">{by_label}{by_part}</div>'
        f'{pictures}<div style="margin-top:8px;opacity:.7;font-size:.85em">digest {_text(dataset.digest[:16])}</div></div>'
    )


def sheet(dataset: DataSet, which: Any = None, *, columns: int = 8) -> Html:
    """Small copies of frames, side by side.

    Args:
        dataset: The data set.
        which: As in `images`; None: frames spread evenly over the groups.
        columns: Pictures in a row.

    Raises:
        UserError: `which` names nothing, or `columns` is no number of columns.
    """
    from usdata.auditing.contact_sheets import evenly_over_groups
    from usdata.notebook.images import rows_of

    if columns < 1:
        raise UserError("columns", f"{columns} is no number of columns", "give 1 or more")
    rows = evenly_over_groups(dataset.frames, SHEET) if which is None else rows_of(dataset, which)
    shown = rows.head(MOST_PICTURES)
    more = f'<div style="margin-top:6px">and {len(rows) - len(shown):,} more frames</div>' if len(rows) > len(shown) else ""
    grid = f"display:grid;grid-template-columns:repeat({columns},minmax(0,1fr));gap:6px"
    return Html(f'<div style="{CARD}">{_strip(dataset, shown, grid)}{more}</div>', f"contact sheet of {len(shown):,} frames")


def audit_card(result: AuditResult) -> str:
    """An audit: what the set is and what is wrong with it, then each finding with its first rows and what to do."""
    from usdata.auditing.report import summary

    said = "".join(f'<div style="margin-top:4px">{_text(sentence)}</div>' for sentence in summary(result.statistics, result.findings))
    findings = "".join(
        f'<div style="margin-top:10px"><span style="color:{LEVEL_COLOURS[finding.level]};font-weight:600">{_text(finding.level)}</span> '
        f'{_text(finding.message)} <code style="color:inherit;background:transparent;opacity:.7">{_text(finding.id)}</code>'
        f'<div style="opacity:.8">{_text(finding.advice)}</div>{_rows(finding.rows)}</div>'
        for finding in result.findings
    )
    return f'<div style="{CARD}"><div style="font-size:1.2em;font-weight:600">Audit of {_text(result.dataset)}</div>{said}{findings}</div>'


def _rows(rows: Sequence[str]) -> str:
    if not rows:
        return ""
    shown = "".join(f"<li>{_text(row)}</li>" for row in rows[:MOST_ROWS])
    more = f"<li>and {len(rows) - MOST_ROWS:,} more: in .findings</li>" if len(rows) > MOST_ROWS else ""
    return f"<details><summary>{len(rows):,} row{'' if len(rows) == 1 else 's'}</summary><ul>{shown}{more}</ul></details>"


def _sentence(dataset: DataSet, kept: pd.DataFrame) -> str:
    from usdata.auditing.finding import count

    patients = kept.dropna(subset="patient_id")[["source", "patient_id"]].drop_duplicates()
    sources = sorted(set(kept["source"]))
    named = ", ".join(sources[:6]) + (f" and {len(sources) - 6:,} more" if len(sources) > 6 else "")
    found = len(dataset.videos)
    return (
        f"{count(len(kept), 'clip')} of {count(found, 'file')} found, {count(len(dataset.frames), 'frame')}, in "
        f"{count(kept['group_id'].nunique(), 'group')} with {count(len(patients), 'known patient')}, from {count(len(sources), 'source')}"
        + (f" ({named})" if named else "")
    )


def _counts(frames: pd.DataFrame, keys: list[pd.Series], names: tuple[str, ...]) -> str:
    rows = [(*map(str, key), *_numbers(members)) for key, members in frames.groupby(keys)]
    more = [(f"and {len(rows) - MOST_COUNTS:,} more", *[""] * (len(names) + 2))] if len(rows) > MOST_COUNTS else []
    return _table((*names, "groups", "clips", "frames"), [*rows[:MOST_COUNTS], *more])


def _numbers(frames: pd.DataFrame) -> tuple[str, str, str]:
    return f"{frames['group_id'].nunique():,}", f"{frames['video_id'].nunique():,}", f"{len(frames):,}"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The last three columns hold numbers."""
    rows = list(rows)
    if not rows:
        return ""

    def cells(values: Sequence[str], tag: str) -> str:
        aligned = ("right" if place >= len(names) - 3 else "left" for place in range(len(values)))
        return "".join(
            f'<{tag} style="{CELL};text-align:{side}">{_text(value)}</{tag}>' for value, side in zip(values, aligned, strict=True)
        )

    body = "".join(f'<tr style="background:transparent">{cells(row, "td")}</tr>' for row in rows)
    return f'<table style="border-collapse:collapse;margin:0"><thead><tr>{cells(names, "th")}</tr></thead><tbody>{body}</tbody></table>'


def _strip(dataset: DataSet, rows: pd.DataFrame, style: str = "display:flex;flex-wrap:wrap;gap:6px;margin-top:12px") -> str:
    tiles = []
    for row in rows.to_dict("records"):
        name = f"{row['frame_id']} ({row['label'] if isinstance(row['label'], str) else 'unlabelled'})"
        try:
            look = f"height:{HEIGHT}px;max-width:100%;object-fit:contain"
            picture = f'<img src="{_thumbnail(dataset, row["path"])}" alt="{_text(name)}" style="{look}">'
        except DataSetError as error:
            look = f"display:inline-block;height:{HEIGHT}px;width:{HEIGHT}px;border:1px dashed {LINE};font-size:.75em;overflow:hidden"
            picture = f'<span style="{look}" title="{_text(error)}">{_text(error.reason)}</span>'
        tiles.append(f'<span title="{_text(name)}">{picture}</span>')
    return f'<div style="{style}">{"".join(tiles)}</div>'


def _thumbnail(dataset: DataSet, path: str) -> str:
    """A stored image as a small JPEG in a data URI."""
    import cv2

    from usdata.stored_pixels import stored_pixels

    pixels = stored_pixels(dataset.folder, path)
    scale = 2 * HEIGHT / pixels.shape[0]  # twice what is shown, for screens of fine pixels
    if scale < 1:
        pixels = cv2.resize(pixels, (max(1, round(pixels.shape[1] * scale)), 2 * HEIGHT), interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")


def _text(value: object) -> str:
    """Text for an element or an attribute, with nothing in it that could be markup or steer."""
    return escape(safe_text(str(value)), quote=True)
