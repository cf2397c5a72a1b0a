"""What a shell offers at the Tab key: names of recipes and sources. Nothing but folders is read, for it is asked at every key."""

from __future__ import annotations

from importlib import resources


def recipe_names(incomplete: str) -> list[str]:
    """Shipped recipes of data sets that begin so."""
    from usdata.recipe_files import shipped_recipes

    return sorted(name for name in shipped_recipes() if name.startswith(incomplete))


def source_names(incomplete: str) -> list[str]:
    """Sources of the catalogue that begin so."""
    folder = resources.files("usdata") / "cataloguing" / "sources"
    names = (entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return sorted(name for name in names if name.startswith(incomplete))
