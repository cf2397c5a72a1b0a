"""The licences and citations that travel with exported frames.

In: the clips' `licence` as their sources spell it, and the names of their sources. Out: the identifier and the address under which a
licence is known, and what the catalogue says of a source. Guarantees: a spelling that is not known for certain gets neither.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from usdata.cataloguing import CatalogEntry, entry_of
from usdata.manifest import DataSet

ATTRIBUTION = "ATTRIBUTION.md"

# Identifiers that Hugging Face knows, of licences that data come under (huggingface.co/docs/hub/repositories-licenses).
_CREATIVE_COMMONS = {
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
}  # fmt: skip
_OTHERS = {
    "cc0": ("cc0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "cc0-1.0": ("cc0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "mit": ("mit", "https://spdx.org/licenses/MIT.html"),
    "apache-2.0": ("apache-2.0", "https://spdx.org/licenses/Apache-2.0.html"),
    "odbl-1.0": ("odbl", "https://spdx.org/licenses/ODbL-1.0.html"),
    "odc-by-1.0": ("odc-by", "https://spdx.org/licenses/ODC-By-1.0.html"),
    "pddl-1.0": ("pddl", "https://spdx.org/licenses/PDDL-1.0.html"),
}
_CREATIVE_COMMONS_NAME = re.compile(r"cc-(?P<terms>by(?:-nc)?(?:-nd|-sa)?)-(?P<version>[1-4]\.[05])")


@dataclass(frozen=True)
class KnownLicence:
    """A licence that is known for certain.

    Attributes:
        identifier: Hugging Face's; None where it has none.
        url: Where the licence can be read.
    """

    identifier: str | None
    url: str


def known_licence(name: str) -> KnownLicence | None:
    """The licence of a name such as 'CC BY-NC 4.0'; None where the name is not one we know."""
    spelling = re.sub(r"[\s_-]+", "-", name.strip().lower())
    if spelling in _OTHERS:
        return KnownLicence(*_OTHERS[spelling])
    found = _CREATIVE_COMMONS_NAME.fullmatch(spelling)
    if found is None:
        return None
    url = f"https://creativecommons.org/licenses/{found['terms']}/{found['version']}/"
    return KnownLicence(spelling if spelling in _CREATIVE_COMMONS else None, url)


def clips_by_licence(kept: pd.DataFrame) -> dict[str | None, int]:
    """Licence to its number of clips, sorted by name; None, last, where a clip has none.

    Args:
        kept: The rows of videos.parquet that kept frames.
    """
    counts = Counter(None if pd.isna(licence) else str(licence) for licence in kept["licence"])
    return {name: counts[name] for name in sorted(counts, key=lambda name: (name is None, name or ""))}


def known_sources(data: DataSet) -> list[CatalogEntry]:
    """The catalogue's entries of this set's sources, sorted by name; a source that the catalogue does not know is not among them."""
    recipe = data.about.get("recipe") or {}
    layouts = {each.get("name"): each.get("layout") for each in recipe.get("sources", [])}
    found = {}
    for source in sorted(set(data.videos["source"])):
        entry, _ = entry_of(source, layouts.get(source), recipe.get("name"), len(layouts))
        if entry is not None:
            found[entry.name] = entry
    return [found[name] for name in sorted(found)]


def copy_attribution(data: DataSet, folder: Path) -> bool:
    """Copy the set's attribution file, if it has one; whether it has."""
    source = data.folder / ATTRIBUTION
    if not source.is_file():
        return False
    shutil.copyfile(source, folder / ATTRIBUTION)
    return True
