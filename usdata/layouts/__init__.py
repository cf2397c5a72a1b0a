"""How a source names its clips, patients and labels on disk: raw folder and recipe in, one row per file or clip out.

Two general layouts: `table` (a CSV names the clips and what is known of them) and `files` (every media file, or folder of images, is a
clip; facts come from a regular expression over its path). Every file under RAW ends in exactly one row: a clip to be read, or one that is
excluded or failed with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from usdata.duplicates.groups import group_ids
from usdata.errors import RecipeError, UserError
from usdata.layouts.files import from_files
from usdata.layouts.raw_files import RawFiles
from usdata.layouts.rows import PrivateIds, RawVideo, is_aside, named_apart, refuse_private, safe_name, with_header, with_hidden_path
from usdata.layouts.tables import from_table
from usdata.recipe import Recipe

__all__ = ["Listing", "PrivateIds", "RawFiles", "RawVideo", "assign_groups", "list_videos", "listed"]


@dataclass(frozen=True)
class Listing:
    """What lies under RAW.

    Attributes:
        rows: Every file or clip, sorted by source and video_id.
        private: The identifiers that were met on the way.
    """

    rows: list[RawVideo]
    private: PrivateIds


def list_videos(recipe: Recipe, raw: Path) -> list[RawVideo]:
    """Every file or clip under RAW, sorted by source and video_id; see `listed`."""
    return listed(recipe, raw).rows


def listed(recipe: Recipe, raw: Path) -> Listing:
    """Every file or clip under RAW, and whose they are.

    Raises:
        UserError: RAW is missing or empty, a table is missing or lacks a column, a label is not in the label map, two clips would have one
            name, or ids are private and there is no secret, or one of them stands in something that would leave.
    """
    if not raw.is_dir():
        raise UserError(raw, "no such folder of raw clips", "give the folder that holds them with --raw")
    kinds = RawFiles(raw)
    files = kinds.paths
    if not files and not kinds.odd:
        raise UserError(raw, "the folder of raw clips is empty", "put the clips there, or give another folder with --raw")
    rows: list[RawVideo] = []
    claimed: set[str] = set()
    private = PrivateIds()
    there = 0
    for source in recipe.sources:
        if not (raw / source.root).is_dir() and not any(path.startswith(f"{PurePosixPath(source.root)}/") for path in files):
            if source.optional:
                continue
            raise UserError(raw / source.root, f"the folder of source '{source.name}' is missing", "place it there, or change its 'root'")
        there += 1
        if source.table is not None:
            found = from_table(source, raw, files, kinds, private)
        else:
            found = from_files(source, raw, [path for path in files if path not in claimed], kinds, private)
        for row in found:
            if twice := claimed.intersection(row.members):
                what = f"is taken by source '{source.name}' and by another row or source"
                raise RecipeError(sorted(twice)[0], what, "let one of them alone take it: change its table, root or pattern")
            claimed.update(row.members)
            rows.append(row)
    if not there:
        roots = ", ".join(f"'{source.root}'" for source in recipe.sources)
        raise UserError(raw, f"holds none of the recipe's folders ({roots})", "place one of them there, or change its 'root'")
    tables = {str(PurePosixPath(source.root) / source.table): source.name for source in recipe.sources if source.table}
    sources = {source.name: source for source in recipe.sources}
    strays = []
    known = set(files)
    for path in sorted({*files, *kinds.odd} - claimed):
        source_name = _source_of(path, recipe)
        reason = f"the table of source '{tables[path]}'" if path in tables else is_aside(path, sources[source_name])
        reason = reason or kinds.why_not_a_clip(path)
        status = "failed" if path in kinds.unreadable else "excluded"
        members = (path,) if path in known else ()
        strays.append(RawVideo(source_name, path, safe_name(path), members=members, status=status, reason=reason))
    rows = [with_header(row, raw, sources[row.source], private) if _is_dicom(row, kinds) else row for row in rows]
    hidden = {source.name for source in recipe.sources if source.hides_paths(release=recipe.release)}
    rows, strays = ([with_hidden_path(row, private) if row.source in hidden else row for row in some] for some in (rows, strays))
    rows = named_apart(rows, strays)
    refuse_private(private, rows, recipe)
    return Listing(sorted(rows, key=lambda row: (row.source, row.video_id)), private)


def _is_dicom(row: RawVideo, kinds: RawFiles) -> bool:
    return row.status == "ok" and kinds[row.members[0]] == "dicom"


def assign_groups(rows: Iterable[RawVideo], duplicates: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """group_id of every row: shared patients, shared group keys and confirmed duplicates joined."""
    return group_ids({row.video_id: row.keys for row in rows}, duplicates)


def _source_of(path: str, recipe: Recipe) -> str:
    """The source whose root holds a path, the deepest root first; the first source for what lies outside all."""
    roots = [(PurePosixPath(source.root), source.name) for source in recipe.sources]
    around = [(len(root.parts), name) for root, name in roots if PurePosixPath(path).is_relative_to(root) or str(root) == "."]
    return max(around, key=lambda entry: entry[0])[1] if around else recipe.sources[0].name
