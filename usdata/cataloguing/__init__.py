"""What is known of each public source of ultrasound: what it holds, who may have it and how, its faults, what of it stands in others.

One YAML file a source in `sources/`, typed and validated here. Only what is known is stated; `unknown`, or null for a number, is a value.
Each entry names where its facts come from. Nothing here downloads: `usdata.pulling` does, where an entry says which files there are.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from usdata.errors import UserError, nearest

ACCESS = {
    "direct": "anybody can download it",
    "form": "on request, by a form or a signed agreement",
    "credentialed": "after training and identification",
    "gallery": "to be looked at on the web, clip by clip",
    "dead": "its links no longer work",
    "never_released": "never released by its owners",
    "unknown": "unknown",
}
REDISTRIBUTION = {
    "yes": "may be passed on",
    "nc": "may be passed on for non-commercial use",
    "nd": "may be passed on unchanged only, non-commercially",
    "no": "may not be passed on",
    "mixed": "differs from file to file",
    "unknown": "unknown",
}


ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Expected(_Part):
    """What a whole copy counts; null = unknown."""

    videos: int | None = Field(default=None, ge=0)
    """Clips, or sequences of images."""
    images: int | None = Field(default=None, ge=0)
    """Single images; for US-4's parts the frames that the paper counts."""
    patients: int | None = Field(default=None, ge=0)
    """People."""
    classes: dict[str, int | None] = Field(default_factory=dict)
    """Class to its count, in the unit that the source counts in."""


class Overlap(_Part):
    """Another source that holds the same scans."""

    source: str
    """Name of the other entry."""
    what: str
    """What stands in both."""


class SourceFile(_Part):
    """A file that `usdata pull` can fetch."""

    urls: list[str] = Field(min_length=1)
    """Where it lies: the first that gives it whole is taken, the others are its mirrors."""
    to: str
    """Where it is put, relative to RAW/<name>."""
    bytes: int | None = Field(default=None, ge=0)
    """Its size; null = unknown."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of its bytes; null = unknown, and then recorded when it is first fetched."""
    unpack: bool = False
    """An archive: its files are put into a folder of its name without the ending, and it is removed."""

    @property
    def stands_as(self) -> str:
        """Where it stands in the end, relative to RAW/<name>: the file, or the folder that it is unpacked into."""
        ending = next((ending for ending in sorted(ARCHIVE_ENDINGS, key=len, reverse=True) if self.to.endswith(ending)), "")
        return self.to.removesuffix(ending) if self.unpack else self.to

    @model_validator(mode="after")
    def _check(self) -> Self:
        path = PurePosixPath(self.to)
        if str(path) != self.to or path.is_absolute() or "\\" in self.to or any(part.startswith(".") for part in path.parts):
            raise ValueError(f"to '{self.to}' is no plain path below the source's folder")
        if self.unpack and not self.to.endswith(ARCHIVE_ENDINGS):
            raise ValueError(f"to '{self.to}' is to be unpacked and has none of the endings {', '.join(ARCHIVE_ENDINGS)}")
        if any(not url.startswith(("https://", "http://")) for url in self.urls):
            raise ValueError(f"urls of '{self.to}' are no http addresses")
        return self


class CatalogEntry(_Part):
    """What is known of a source."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """As in `usdata catalog NAME`; the file's name too."""
    title: str
    """What its authors call it."""
    organs: list[str] = Field(min_length=1)
    """What is imaged."""
    holds: Literal["videos", "image sequences", "images", "volumes", "videos and images"]
    """What a raw item is."""
    description: str
    """A line or two for people."""
    licence: str
    """The licence's name, or 'unknown', or 'mixed'."""
    redistribution: Literal["yes", "nc", "nd", "no", "mixed", "unknown"]
    """Whether copies and frames made of it may be passed on."""
    access: Literal["direct", "form", "credentialed", "gallery", "dead", "never_released", "unknown"]
    """How a person gets it."""
    steps: list[str] = Field(default_factory=list)
    """What a person does to get it."""
    homepage: str | None = None
    """Where it is described."""
    files: list[SourceFile] = Field(default_factory=list)
    """What `usdata pull` fetches; empty where no address is known for certain."""
    citation: str
    """The paper to cite."""
    layout: str
    """How clips, patients and labels are named on disk; 'unknown' where nobody here has seen it."""
    recipe: str | None = None
    """The shipped recipe that builds it."""
    part_of: str | None = None
    """The collection that it is a part of."""
    expected: Expected = Expected()
    """Counts of a whole copy."""
    faults: list[str] = Field(default_factory=list)
    """What is wrong with it."""
    overlaps: list[Overlap] = Field(default_factory=list)
    """Other sources that hold the same scans."""
    facts_from: list[str] = Field(min_length=1)
    """Where the facts of this entry come from."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.access == "form" and not self.steps:
            raise ValueError("access 'form' needs the steps that a person takes")
        if self.homepage is not None and not self.homepage.startswith("https://"):
            raise ValueError(f"homepage '{self.homepage}' is no https address")
        if self.files and self.access != "direct":
            raise ValueError(f"files are for access 'direct', not '{self.access}'")
        places = [place.casefold() for file in self.files for place in {file.to, file.stands_as}]
        if len(set(places)) != len(places) or any(other.startswith(f"{place}/") for place in places for other in places):
            raise ValueError("two files would stand in one place")
        return self


def catalog(name: str | None = None) -> list[CatalogEntry]:
    """The entries, sorted by name; one of them where a name is given.

    Raises:
        UserError: There is no entry of that name.
    """
    entries = _entries()
    if name is None:
        return list(entries.values())
    if name not in entries:
        raise UserError(name, "is not in the catalogue", nearest(name, entries))
    return [entries[name]]


def entry_of(source: str, layout: str | None, recipe: str | None, sources: int) -> tuple[CatalogEntry | None, str | None]:
    """What is known of a recipe's source, and by what it was found: name, layout, recipe, or the beginning of its name (a guess).

    Args:
        source: Its name.
        layout: Its layout.
        recipe: The recipe's name.
        sources: Of the recipe; only where it is the one does the recipe's name tell.
    """
    entries = {entry.name: entry for entry in catalog()}
    if source in entries:
        return entries[source], "name"
    if layout is not None and layout in entries:
        return entries[layout], "layout"
    of_recipe = [entry for entry in entries.values() if recipe is not None and sources == 1 and recipe in (entry.recipe, entry.name)]
    if len(of_recipe) == 1:
        return of_recipe[0], "recipe"
    longest = max((name for name in entries if source.startswith(f"{name}-")), key=len, default=None)
    return (None, None) if longest is None else (entries[longest], "beginning")


@lru_cache(maxsize=1)
def _entries() -> dict[str, CatalogEntry]:
    folder = Path(str(resources.files("usdata"))) / "cataloguing" / "sources"
    return {path.stem: load_entry(path) for path in sorted(folder.glob("*.yaml"))}


def load_entry(path: Path) -> CatalogEntry:
    """One entry from its file.

    Raises:
        UserError: It is no YAML, breaks the schema, or its name is not the file's.
    """
    try:
        entry = CatalogEntry.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError, OSError) as error:
        raise UserError(path, f"is no entry of the catalogue ({' '.join(str(error).split())[:300]})", "mend the file") from None
    if entry.name != path.stem:
        raise UserError(path, f"is named for another source than '{entry.name}'", "rename the file")
    return entry
