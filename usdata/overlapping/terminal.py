"""What `usdata overlap` prints."""

from __future__ import annotations

from collections import Counter

from usdata.console import safe_text
from usdata.overlapping import OverlapResult

MOST_SHOWN = 20
WORDS = {
    "file": "equal files",
    "packets": "equal packets",
    "luma": "equal luma",
    "pixels": "equal stored frames",
    "content": "copies by content",
    "view": "of one place at another moment",
}


def print_overlap(result: OverlapResult) -> None:
    """The answer in a sentence, then the pairs: contradictory labels first, then the likest."""
    others = f" with the {result.clips_b:,} of {result.b}" if (result.b, result.clips_b) != (result.a, result.clips_a) else ""
    found = len(result.pairs)
    same = (
        "no two show the same scan"
        if not found
        else f"{found:,} pair{'' if found == 1 else 's'} show{'s' if found == 1 else ''} the same scan"
    )
    print(f"{result.a}: {result.clips_a:,} clips compared{others}: {same}")
    kinds = Counter(pair.kind for pair in result.pairs)
    if len(kinds) > 1:
        print("  " + ", ".join(f"{kinds[kind]:,} {word}" for kind, word in WORDS.items() if kinds[kind]))
    if result.contradictory:
        print(f"  {len(result.contradictory):,} of them under different labels")
    if result.across_patients:
        print(f"  {len(result.across_patients):,} of them not known to be of one patient")
    for sentence in result.known:
        print(f"the catalogue: {sentence}")
    ordered = sorted(result.pairs, key=lambda pair: (pair.same_label is not False, -pair.score, pair.a, pair.b))
    for pair in ordered[:MOST_SHOWN]:
        told = {"content": f"{pair.score:.2f}", "view": f"{pair.score:.2f}, another moment"}.get(pair.kind, f"equal {pair.kind}")
        if pair.motion is not None:
            told += f", what moves {pair.motion:.2f}"
        if pair.flip:
            told += ", mirrored"
        if pair.same_label is False:
            told += f", labels {safe_text(str(pair.labels[0]))} and {safe_text(str(pair.labels[1]))}"
        print(f"  {told}\n    {safe_text(pair.a)}\n    {safe_text(pair.b)}")
    if found > MOST_SHOWN:
        print(f"  and {found - MOST_SHOWN:,} more: see --json or --out PAGE.html")
    if result.unread:
        print(f"{len(result.unread):,} could not be read and {'was' if len(result.unread) == 1 else 'were'} not compared, the first:")
        print(f"  {safe_text(result.unread[0])}")
    if result.left_out:
        print(f"{len(result.left_out):,} clips are too dark or too flat to compare by content")
