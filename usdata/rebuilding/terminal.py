"""A rebuild on a terminal: what is equal, what was found elsewhere, what is wrong.

Comes in: a result. Goes out: lines on standard output. Guarantees: text from the data can neither style nor steer the terminal.
"""

from __future__ import annotations

from usdata.console import safe_text
from usdata.rebuilding import RebuildResult

SHOWN = 10


def print_rebuild(result: RebuildResult) -> None:
    """Print what a rebuild made and found."""
    for video, faults in list(result.faults.items())[:SHOWN]:
        hint = [result.hints[video]] if video in result.hints else []
        print(safe_text(f"not equal: {video}: {'; '.join([*faults, *hint])}"))
    if len(result.faults) > SHOWN:
        print(f"and {len(result.faults) - SHOWN:,} more, which --json lists")
    if result.moved:
        video, path = next(iter(result.moved.items()))
        more = f" and {len(result.moved) - 1:,} more" if len(result.moved) > 1 else ""
        print(safe_text(f"found under other names, by content: {video} as {path}{more}"))
    if result.faults and result.decoders:
        print("other versions work here: " + ", ".join(f"{name} {then} -> {now}" for name, (then, now) in result.decoders.items()))
    equal = f"{result.clips:,} clips, {result.frames:,} frames: pixels equal to the manifest's ({result.seconds:.1f} s)"
    if not result.written:
        print(f"{equal}; {_clips(len(result.faults))} not, so nothing was written to {safe_text(str(result.out))}")
        print("next: mend the raw files and run the same command again (finished clips are kept), or give --partial")
    elif result.faults:
        print(f"{equal}; {safe_text(str(result.out))} is without {_clips(len(result.faults))} (failed rows); digest {result.digest[:16]}")
    else:
        print(f"{safe_text(str(result.out))} is {safe_text(result.name)} again: {equal}; digest {result.digest[:16]}")
        print(f"next: usdata audit {safe_text(str(result.out))}")


def _clips(number: int) -> str:
    return f"{number:,} clip{'' if number == 1 else 's'}"
