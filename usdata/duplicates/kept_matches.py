"""What was found by laying pictures on one another, kept beside the data set: asked twice, it is compared once.

In: what is compared with what. Out: the matches, from `SET/.cache/matches-*.json` where they were found before. A file is named by, and
carries, a digest of all that decides them: the clips and the digests of their key frames (of the leakage guard the record's bytes too), how
candidates are chosen, and the source of the package that compares. So an answer is never older than its question; one that is damaged is
ignored and found anew; where nothing can be written nothing is kept. Key frames themselves are not read again: that they are what their
digest says is proven when they are compared.

A build keeps what it found of its own clips, so that `usdata overlap` of the set has it, and a build with other labels takes it over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from usdata.console import say
from usdata.duplicates.content import Match
from usdata.files import atomic, canonical_json, sha256_file, sha256_text

FOLDER, PATTERN = ".cache", "matches-*.json"
MOST_FILES = 64
COLUMNS = ("video_id", "key_frames_sha256", "key_frames", "key_frames_box")


def kept_matches(folder: Path, question: Mapping[str, Any], find: Callable[[], list[Match]], *, before: Path | None = None) -> list[Match]:
    """The matches that are kept, or those that `find` finds.

    Args:
        folder: The data set, or where it is being made; what is found is kept there.
        question: All that decides the answer, from `compared_with_record` or `compared_clips`.
        find: Compares them.
        before: Another data set where they may be kept: the one that a build replaces.
    """
    about = sha256_text(canonical_json({**question, "code": _code()}))
    name = f"matches-{about[:16]}.json"
    for place in (folder, *([] if before is None else [before])):
        kept = _read(place / FOLDER / name, about)
        if kept is not None:
            if place != folder:
                _write(folder / FOLDER / name, about, kept)
            return kept
    matches = find()
    _write(folder / FOLDER / name, about, matches)
    return matches


def compared_with_record(record: Path, videos: Sequence[Mapping[str, Any]], hinted: bool) -> dict[str, Any]:
    """The leakage guard's question.

    Args:
        record: The file of what was trained on.
        videos: Of videos.parquet; those without key frames are passed over.
        hinted: See `same_scans`.
    """
    return {"record": sha256_file(record), "clips": _clips(videos), "hinted": hinted}


def compared_clips(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]] | None, *, hinted: bool, indexed: bool
) -> dict[str, Any]:
    """The question of two sets, or of one with itself.

    Args:
        first: Of videos.parquet; those without key frames are passed over.
        second: Of the other; None: each pair of the first once.
        hinted: See `same_scans`.
        indexed: Whether the index names the candidates.
    """
    return {"first": _clips(first), "second": None if second is None else _clips(second), "hinted": hinted, "indexed": indexed}


def _clips(videos: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    compared = (row for row in videos if row["key_frames_path"] is not None)
    return sorted(([row[column] for column in COLUMNS] for row in compared), key=lambda clip: str(clip[0]))


def _read(path: Path, about: str) -> list[Match] | None:
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = told["matches"]
        whole = told["about"] == about and told["sha256"] == sha256_text(canonical_json(rows))
        matches = [Match(**{**row, "frames": tuple(map(tuple, row["frames"])), "best": tuple(row["best"])}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        say(f"{path.name}: what was found before is damaged, and is found anew")
        return None
    return matches


def _write(path: Path, about: str, matches: Sequence[Match]) -> None:
    rows = [asdict(match) for match in matches]
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic(path, durable=False) as temporary:
            temporary.write_text(
                canonical_json({"about": about, "matches": rows, "sha256": sha256_text(canonical_json(rows))}), encoding="utf-8"
            )
        others = sorted((each for each in path.parent.glob(PATTERN) if each != path), key=lambda each: (each.stat().st_mtime_ns, each.name))
        for each in others[: max(0, len(others) + 1 - MOST_FILES)]:
            each.unlink()
    except OSError:
        return


@cache
def _code() -> str:
    """Of the modules that compare: a change of any of them forgets all."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
