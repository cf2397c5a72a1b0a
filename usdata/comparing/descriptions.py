"""dataset.json of two sets: classes, recipe, versions and the rest, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usdata.comparing.result import Change

# Told elsewhere, or follow from what is.
_FOLLOWS = {
    "classes", "counts", "digest", "duplicates", "input_digest", "input_key", "licences", "raw_digest", "recipe", "recipe_digest",
    "steps_digest", "versions",
}  # fmt: skip
ABSENT = object()


def classes_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """The classes where they or their order differ; and the labels of both that have another index, which a trained head depends on."""
    before, after = list(a["classes"]), list(b["classes"])
    if before == after:
        return (), ()
    moved = [Change(str(label), before.index(label), after.index(label)) for label in before if label in after]
    return (Change("classes", before, after),), tuple(change for change in moved if change.before != change.after)


def recipe_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Change, ...]:
    """Keys of the recipe that differ."""
    return _changes(a.get("recipe", {}), b.get("recipe", {}))


def version_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Change, ...]:
    """Packages of other versions, and the schema's."""
    told = [about.get("versions") for about in (a, b)]
    versions = [dict(each) if isinstance(each, dict) else {} for each in told]
    return _changes(*({**each, "schema": about["schema_version"]} for each, about in zip(versions, (a, b), strict=True)))


def other_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Change, ...]:
    """All else that dataset.json says of the set and the tables do not."""
    left_out = {*_FOLLOWS, "schema_version"}
    left_out |= {key for key in ("name", "description") if all(_of_recipe(about, key) for about in (a, b))}
    return _changes(*({key: value for key, value in about.items() if key not in left_out} for about in (a, b)))


def _of_recipe(about: Mapping[str, Any], key: str) -> bool:
    recipe = about.get("recipe")
    return isinstance(recipe, dict) and key in about and recipe.get(key, ABSENT) == about[key]


def _changes(a: Any, b: Any) -> tuple[Change, ...]:
    before, after = flat(a), flat(b)
    return tuple(
        Change(key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    )


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Dotted key to value; entries of a list by their names where all have one, as sources do, else the list as it stands."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in value):
        value = {entry["name"]: {key: inner for key, inner in entry.items() if key != "name"} for entry in value}
    if not isinstance(value, dict):
        return {place: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{place}.{key}" if place else str(key))
    return found
