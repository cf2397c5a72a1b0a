"""What tells one build's input from another's: recipe, raw bytes, and everything else that decides about pixels and bytes.

All of it stands in dataset.json, so that a set whose recipe changed only in what follows from its tables (folds, splits) can say what it
would have been built from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usdata.files import canonical_json, sha256_text


def identity(recipe_digest: str, steps_digest: str, raw_digest: str) -> dict[str, str]:
    """The entries of dataset.json that say what a set was built from.

    Args:
        recipe_digest: The recipe's.
        steps_digest: From `steps_digest`.
        raw_digest: From `files_digest`.

    Returns:
        `steps_digest`, `raw_digest`; `input_key` (everything but the raw bytes) and `input_digest` (everything).
    """
    input_key = sha256_text(canonical_json([recipe_digest, steps_digest]))
    return {
        "steps_digest": steps_digest,
        "raw_digest": raw_digest,
        "input_key": input_key,
        "input_digest": sha256_text(canonical_json([input_key, raw_digest])),
    }


def steps_digest(step_version: int, duplicates_version: int, decoders: Mapping[str, str], secret_mark: str | None) -> str:
    """Of what decides about a clip's result beside recipe and bytes; another secret makes other pseudonyms."""
    return sha256_text(canonical_json([step_version, duplicates_version, dict(decoders), secret_mark]))


def files_digest(hashes: Mapping[str, tuple[str, int]]) -> str:
    """Of every raw file's path, sha256 and size."""
    return sha256_text(canonical_json(sorted(hashes.items())))


# Entries of dataset.json for columns of frames.parquet that no recipe made, but a published table (`usdata split --published --apply`).
ORIGINS = {"split": "split_origin", "fold": "fold_origin"}


def published_names(about: Mapping[str, Any]) -> list[str]:
    """What of a data set's split and folds was published and not made: "split of 'FileList.csv'"."""
    return [f"{column} of '{about[entry]['name']}'" for column, entry in ORIGINS.items() if entry in about]
