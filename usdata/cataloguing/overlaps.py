"""What the catalogue knows of scans that stand in two sources: hints for a search, which names each that was hit or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from usdata.cataloguing import catalog


@dataclass(frozen=True)
class KnownOverlap:
    """Two sources of which one is known to hold scans of the other.

    Attributes:
        a: A source of the first set, as its recipe names it.
        b: Of the second.
        what: What stands in both, as the catalogue says.
    """

    a: str
    b: str
    what: str


def known_overlaps(sources_a: Iterable[str], sources_b: Iterable[str] | None = None) -> list[KnownOverlap]:
    """What is known of the sources of two sets, by their names.

    A recipe's source 'pocus-lung' is taken for the catalogue's 'pocus'.

    Args:
        sources_a: Of the first set.
        sources_b: Of the second; None: those of the first among themselves, each two once.
    """
    names = sorted((entry.name for entry in catalog()), key=len, reverse=True)

    def entry_of(source: str) -> str | None:
        return next((name for name in names if source == name or source.startswith(f"{name}-")), None)

    told = {(entry.name, overlap.source): overlap.what for entry in catalog() for overlap in entry.overlaps}
    found = []
    for a in sorted(set(sources_a)):
        for b in sorted(set(sources_a if sources_b is None else sources_b)):
            if sources_b is None and b <= a:
                continue
            one, other = entry_of(a), entry_of(b)
            what = None if one is None or other is None else told.get((one, other), told.get((other, one)))
            if what is not None:
                found.append(KnownOverlap(a, b, what))
    return found
