"""What lies in a source's folder, counted and set beside what a whole copy holds.

In: a folder and what the catalogue expects. Out: files by kind, clips and images, each number that can be compared, and what the source's
recipe would take of it. Guarantees: kinds are told by content, archives are looked into, nothing is decoded and nothing is changed; a
difference is told, never an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from usdata.cataloguing import CatalogEntry
from usdata.errors import UserError
from usdata.pulling.record import LOCK_NAME, RECORD_NAME
from usdata.readers.identify import MEDICAL_KINDS, STILL_KINDS, VIDEO_KINDS


@dataclass(frozen=True)
class Comparison:
    """A number that was counted and what a whole copy has; None = unknown."""

    unit: str
    found: int
    expected: int | None

    @property
    def differs(self) -> bool:
        """Whether both are known and not the same."""
        return self.expected is not None and self.found != self.expected


@dataclass(frozen=True)
class Placed:
    """What lies in a folder.

    Attributes:
        files: How many files, those in archives too.
        kinds: Kind by content to the number of files.
        unreadable: Files that cannot be read or looked into, with the reason.
        comparisons: What was counted beside what is expected.
        layout: What the source's recipe takes of it by its layout, a sentence; None where there is no recipe.
    """

    files: int
    kinds: dict[str, int]
    unreadable: dict[str, str]
    comparisons: list[Comparison]
    layout: str | None = None


def count_placed(entry: CatalogEntry, folder: Path) -> Placed | None:
    """Count what lies in a source's folder; None where there is no such folder or nothing in it."""
    from usdata.layouts import RawFiles

    if not folder.is_dir():
        return None
    found = RawFiles(folder)
    files = [path for path in found.paths if not _is_ours(path)]
    odd = {path: reason for path, reason in sorted(found.odd.items()) if not _is_ours(path)}
    if not files and not odd:
        return None
    kinds = Counter(found[path] for path in files)
    videos = sum(kinds[kind] for kind in VIDEO_KINDS)
    medical = sum(kinds[kind] for kind in MEDICAL_KINDS)
    images = sum(kinds[kind] for kind in STILL_KINDS)
    sequences = len({str(PurePosixPath(path).parent) for path in files if found[path] in STILL_KINDS})
    expected = entry.expected
    if entry.holds == "images":
        comparisons = [Comparison("images", images + medical, expected.images)]
    elif entry.holds == "volumes":
        comparisons = [Comparison("volumes", medical, expected.videos)]
    elif entry.holds == "image sequences":
        comparisons = [Comparison("folders of images", sequences, expected.videos)]
    elif videos + medical:
        comparisons = [Comparison("videos", videos + medical, expected.videos)]
    else:  # clips that their owners published as folders of frames
        comparisons = [Comparison("folders of images", sequences, expected.videos)]
    if entry.holds == "videos and images":
        comparisons.append(Comparison("images", images, expected.images))
    return Placed(len(files), dict(sorted(kinds.items())), odd, comparisons, _taken_by_recipe(entry, folder))


def _taken_by_recipe(entry: CatalogEntry, folder: Path) -> str | None:
    """How many clips the source's recipe finds by its layout: names and folders, and not counts alone."""
    from usdata.layouts import list_videos
    from usdata.recipe_files import load_recipe

    if entry.recipe is None:
        return None
    recipe = load_recipe(entry.recipe)
    own = all(source.root == "." for source in recipe.sources)  # else its sources are folders of RAW, this one among them
    try:
        rows = list_videos(recipe, folder if own else folder.parent)
    except UserError as error:
        return f"the recipe '{entry.recipe}' cannot take it: {error.reason}"
    ours = [row for row in rows if (own or row.path.startswith(f"{folder.name}/")) and not _is_ours(row.path)]
    reasons = Counter(str(row.reason) for row in ours if row.status != "ok")
    left = "".join(f"; {number:,} left out: {reason}" for reason, number in reasons.most_common(2))
    return f"the recipe '{entry.recipe}' takes {sum(row.status == 'ok' for row in ours):,} clips{left}"


def _is_ours(path: str) -> bool:
    """Whether pull itself wrote a file beside the data."""
    parts = PurePosixPath(path).parts
    return parts[-1] in (RECORD_NAME, LOCK_NAME) or any(part.endswith((".part", ".part.json", ".unpacking")) for part in parts)
