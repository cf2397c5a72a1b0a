"""Where images of the manifest lie, and which of them are missing."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from usdata.console import progress
from usdata.manifest import is_inside


def image_path(folder: Path, relative: str) -> Path | None:
    """Where an image of the manifest lies, or None if its path leaves the folder."""
    return folder / relative if is_inside(relative) else None


def missing_images(folder: Path, paths: Iterable[str]) -> list[str]:
    """Those of some paths of the manifest that are no file in the data set, in their order; each folder is listed once."""
    paths = list(paths)
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    gone = set()
    for relative in paths:
        if image_path(folder, relative) is None:
            gone.add(relative)
        else:
            parent, _, name = relative.rpartition("/")
            wanted[parent].append(name)
    with progress("looking for images", len(paths), "images") as advance:
        for parent, names in wanted.items():
            there = _files(folder / parent)
            gone |= {f"{parent}/{name}" if parent else name for name in names if name not in there}
            advance(len(names))
    return [relative for relative in paths if relative in gone]


def _files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
