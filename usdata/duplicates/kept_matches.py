"""What the guard found by laying pictures on one another, kept beside the data set that was evaluated: asked twice, it is compared once.

In: a record and some clips. Out: the matches, from `SET/.cache/matches-*.json` where they were found before. A file is named by, and
carries, a digest of all that decides them: the bytes of the record, the digests of the clips' key frames, and the source of the package
that compares them. So an answer is never older than its question; one that is damaged is ignored and found anew; where nothing can be
written nothing is kept. Key frames themselves are not read again: that they are what their digest says is proven when they are compared.
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


def kept_matches(
    folder: Path, record: Path, videos: Sequence[Mapping[str, Any]], hinted: bool, find: Callable[[], list[Match]]
) -> list[Match]:
    """The matches of a record with some clips: those that are kept, or those that `find` finds.

    Args:
        folder: The data set that is evaluated.
        record: The file of what was trained on.
        videos: Rows of the clips that are compared, of COLUMNS at least.
        hinted: See `same_scans`.
        find: Compares them.
    """
    clips = sorted(([row[column] for column in COLUMNS] for row in videos), key=lambda clip: str(clip[0]))
    about = sha256_text(canonical_json({"record": sha256_file(record), "clips": clips, "hinted": hinted, "code": _code()}))
    path = folder / FOLDER / f"matches-{about[:16]}.json"
    kept = _read(path, about)
    if kept is not None:
        return kept
    matches = find()
    _write(path, about, matches)
    return matches


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
