"""duplicates.parquet of a set that an older version searched, or none: searched for again, so that leakage is seen with today's eyes.

Groups, folds and splits stay as they were made: what then stands on two sides of them is what the audit is for. A set whose recipe wants no
search by content (`duplicates.content: false`) is left alone.
"""

from __future__ import annotations

from usdata import manifest
from usdata.console import say
from usdata.duplicates.content import CONTENT_KINDS
from usdata.duplicates.exact import with_content
from usdata.duplicates.search import VERSION, Clips, rows_of, same_scans
from usdata.engines import runner
from usdata.successor import staged, take_place, write_successor


def with_new_duplicates(dataset: manifest.DataSet) -> manifest.DataSet:
    """The data set, its duplicates renewed on disk where they were old."""
    if manifest.duplicates_version(dataset.about) in (None, VERSION):
        return dataset
    before = manifest.read_table(dataset.folder, manifest.DUPLICATES).to_pylist()
    videos = [row for row in manifest.read_table(dataset.folder, manifest.VIDEOS).to_pylist() if row["status"] == "ok"]
    join_score = float(dataset.about["recipe"]["duplicates"]["join_score"])
    found = same_scans(Clips.of(dataset.folder, videos), None, runner("local", None))
    pairs = with_content([row for row in before if row["kind"] not in CONTENT_KINDS], rows_of(found), join_score)
    about = dict(dataset.about) | {"duplicates": {"version": VERSION, "pairs": len(pairs)}}
    table = manifest.table_from_rows(manifest.DUPLICATES, pairs)
    with staged(dataset.folder) as staging:
        write_successor(dataset.folder, staging, about, {manifest.DUPLICATES: table})
        take_place(dataset.folder, staging)
    say(f"{manifest.DUPLICATES} was renewed: {len(pairs):,} pairs where {len(before):,} stood; groups and folds are as they were built")
    return manifest.open_dataset(dataset.folder)
