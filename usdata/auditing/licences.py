"""Under which licences the clips come, and which of them asks the most.

Comes in: the kept clips. Goes out: rows by licence, the strictest first, and a row for each licence of each source. Guarantees: a licence
whose name is not understood is said to be unknown, never guessed.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

# Strictest first: what a reader of a mixed set must obey.
LICENCE_KINDS = ("nd", "nc", "sa", "by", "public domain")
_ABBREVIATIONS = {"nd", "nc", "sa", "by"}
_SPELT_OUT = {"nd": "no ?deriv", "nc": "non-? ?commercial", "sa": "share-? ?alike|odbl", "public domain": "public domain"}
_PERMISSIVE = {"mit", "bsd", "apache", "mpl", "isc"}
_PUBLIC_DOMAIN = {"cc0", "pddl", "unlicense"}
_ASKS = {
    "by": "name the source",
    "nc": "use it for nothing commercial",
    "nd": "pass it on unchanged only",
    "sa": "pass on what is made of it under the same terms",
}


def licence_kind(licence: str | None) -> str | None:
    """What a licence asks at its strictest, or None where the text is missing or not one we know: then a person has to read it.

    The order, strictest first: no derivatives (nd), non-commercial (nc), share alike (sa), attribution (by), public domain.
    """
    terms = licence_terms(licence) if isinstance(licence, str) else set()
    return next((kind for kind in LICENCE_KINDS if kind in terms), None)


def licence_terms(licence: str) -> set[str]:
    """The terms that a licence's name speaks of, among nd, nc, sa, by and public domain."""
    text = licence.lower()
    words = set(re.findall(r"[a-z]+0?", text))
    # "by" alone is an English word: the abbreviations count only in a Creative Commons name or standing by themselves.
    creative_commons = bool(words & {"cc", "creative"}) or words <= _ABBREVIATIONS
    terms = words & _ABBREVIATIONS if creative_commons else set()
    terms |= {kind for kind, spelling in _SPELT_OUT.items() if re.search(spelling, text)}
    if words & _PERMISSIVE:
        terms.add("by")
    if words & _PUBLIC_DOMAIN:
        terms.add("public domain")
    return terms


def what_it_asks(licence: str | None) -> str:
    """What a licence asks, in words."""
    terms = licence_terms(licence or "") if licence_kind(licence) else set()
    if terms & _ASKS.keys():
        return "; ".join(words for term, words in _ASKS.items() if term in terms)
    return "nothing; naming the source is good custom" if terms else "unknown: read it"


def licence_strictness(licence: str) -> tuple[bool, ...]:
    """A sort key: greater is stricter, and BY-NC-ND is stricter than BY-ND."""
    terms = licence_terms(licence)
    return tuple(kind in terms for kind in LICENCE_KINDS)


def licences(kept: pd.DataFrame) -> list[dict[str, Any]]:
    """Clips and frames by licence, the strictest first and no licence last: {"licence", "kind", "clips", "frames"}."""
    return [{key: row[key] for key in ("licence", "kind", "clips", "frames")} for row in _rows(kept, [])]


def licences_by_source(kept: pd.DataFrame) -> list[dict[str, Any]]:
    """The same for each source: {"source", "licence", "kind", "clips", "frames"}."""
    return [{key: row[key] for key in ("source", "licence", "kind", "clips", "frames")} for row in _rows(kept, ["source"])]


def strictest(rows: list[dict[str, Any]]) -> str | None:
    """The strictest of the licences that are understood; None where none is."""
    return next((row["licence"] for row in rows if row["kind"] is not None), None)


def _rows(kept: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    sums = kept.groupby([*keys, "licence"], dropna=False)["frames"].agg(["size", "sum"]).reset_index()
    rows = []
    for record in sums.to_dict("records"):
        licence = record["licence"] if isinstance(record["licence"], str) else None
        counts: dict[str, Any] = {
            "licence": licence,
            "kind": licence_kind(licence),
            "clips": int(record["size"]),
            "frames": int(record["sum"]),
        }
        rows.append({key: str(record[key]) for key in keys} | counts)
    return sorted(rows, key=lambda row: (*(row[key] for key in keys), *_order(row["licence"])))


def _order(licence: str | None) -> tuple[Any, ...]:
    return (licence is None, [not flag for flag in licence_strictness(licence or "")], licence or "")
