"""Clips found by looking: every media file, folder of images or numbered sequence is one; facts come from a pattern over its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from usdata.errors import ReadError, UserError
from usdata.layouts.raw_files import RawFiles, images_by_folder
from usdata.layouts.rows import PrivateIds, RawVideo, facts_of_path, inside_root, is_aside, row_of
from usdata.readers.archives import open_raw
from usdata.recipe import Source

_FACTS_FILE_BYTES = 1 << 20


def from_files(source: Source, raw: Path, files: list[str], kinds: RawFiles, private: PrivateIds) -> Iterator[RawVideo]:
    """A row for every clip below a source's root; a clip whose path does not match the pattern is excluded.

    Args:
        source: The source, without a table.
        raw: The folder of raw clips.
        files: Paths relative to it that no source before has taken.
        kinds: What each file is.
        private: Collects the private ids that are met.
    """
    root = PurePosixPath(source.root)
    present = frozenset(files)
    for path, members in _clips(source, files, kinds).items():
        inside = source.name if path == str(root) else inside_root(path, source)  # the images may lie in the source's own folder
        told = facts_of_path(inside, source)
        facts: dict[str, str] = dict(source.constants.items()) | (told or {})
        values = facts | _beside(source, raw, path, facts, present)
        row = replace(row_of(source, path, inside, facts, values, private), members=members)
        if told is None and row.status == "ok":
            row = replace(row, status="excluded", reason="its path does not match the source's pattern")
        yield row


def _clips(source: Source, files: list[str], kinds: RawFiles) -> dict[str, tuple[str, ...]]:
    """Path of each clip to the files that it is made of."""
    prefix = "" if source.root == "." else f"{PurePosixPath(source.root)}/"
    below = [path for path in files if path.startswith(prefix) and not is_aside(path, source)]
    if source.unit == "sequence":
        of_these = set(below)
        return {pattern: images for pattern, images in kinds.sequences.items() if of_these.issuperset(images)}
    if source.unit == "folder":
        return images_by_folder(below, kinds)
    clips = {path: (path, *kinds.companions(path)) for path in below if kinds.is_clip(path)}
    data = {companion for members in clips.values() for companion in members[1:]}
    return {path: members for path, members in clips.items() if path not in data}


def _beside(source: Source, raw: Path, path: str, facts: Mapping[str, str], present: frozenset[str]) -> dict[str, str]:
    """What the source's facts file beside a clip says, a 'key: value' a line; nothing where there is no such file."""
    if source.facts_file is None:
        return {}
    try:
        name = source.facts_file.format_map(facts)
    except KeyError:  # the path did not tell what the file's name is made of
        return {}
    where = str(PurePosixPath(path).parent / name)
    if where not in present:
        return {}
    try:
        with open_raw(raw / where) as file:
            text = file.read(_FACTS_FILE_BYTES).decode("utf-8-sig")
    except (OSError, ReadError, UnicodeDecodeError) as error:
        raise UserError(raw / where, f"cannot be read as text ({error})", "mend the file or remove it") from None
    lines = [line.partition(":") for line in text.splitlines()]
    return {key.strip(): value.strip() for key, colon, value in lines if colon and key.strip() and value.strip()}
