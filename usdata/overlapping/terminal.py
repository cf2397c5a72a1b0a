"""What `usdata overlap` prints."""

from __future__ import annotations

from usdata.console import safe_text
from usdata.overlapping import OverlapResult

MOST_SHOWN = 20


def print_overlap(result: OverlapResult) -> None:
    """The answer in a sentence, then the pairs, most alike first."""
    others = f" with the {result.clips_b:,} of {result.b}" if result.b != result.a else ""
    found = len(result.matches)
    same = (
        "no two show the same scan"
        if not found
        else f"{found:,} pair{'' if found == 1 else 's'} show{'s' if found == 1 else ''} the same scan"
    )
    print(f"{result.a}: {result.clips_a:,} clips compared{others}: {same}")
    if result.contradictory:
        print(f"  {len(result.contradictory):,} of them under different labels")
    if result.across_patients:
        print(f"  {len(result.across_patients):,} of them not known to be of one patient")
    ordered = sorted(result.matches, key=lambda match: (-match.score, match.a, match.b))
    for match in ordered[:MOST_SHOWN]:
        mirrored = " mirrored" if match.flip else ""
        print(f"  {match.score:.2f}{mirrored}  {safe_text(match.a)}\n        {safe_text(match.b)}")
    if found > MOST_SHOWN:
        print(f"  and {found - MOST_SHOWN:,} more: see --json or --out PAGE.html")
    if result.left_out:
        print(f"{len(result.left_out):,} clips are too dark or too flat to compare")
