"""What was taken in, in a few lines for a person."""

from __future__ import annotations

from usdata.console import safe_text, say
from usdata.fold_pickles import ImportedFolds


def print_import(result: ImportedFolds) -> None:
    """Counts, what the folds cut, and what to type next."""
    sizes = ", ".join(f"{number:,}" for number in result.frames)
    total = sum(result.frames)
    of_class = ", ".join(f"{name} {number:,}" for name, number in result.classes.items())
    same = "as published" if result.as_published else "not the numbers of the published POCUS folds"
    print(f"{len(result.frames)} folds of {sizes}: {total:,} frames; {of_class} ({same})")
    if result.known is None:
        print(f"no video or patient ids: the pictures tell {result.recordings:,} recordings, which are the groups")
        say("note: these groups are smaller than patients, and figures by them too good; --clips SET, of the public clips, finds more")
    else:
        told = f"{result.known:,} frames stand in the known clips, by which {result.recordings:,} recordings are {result.groups:,} groups"
        print(f"no video or patient ids: {told}")
    if result.cut:
        print(f"the published folds cut {result.cut:,} groups ({result.cut_frames:,} frames)")
        print(f"{result.near_copies:,} frames have a near copy in another fold, {result.equal:,} an equal one")
    else:
        print(f"the published folds cut none of the groups; the most alike frames of two folds are {result.most_alike:.2f} alike")
    for note in result.notes:
        say(f"note: {safe_text(note)}")
    print(f"written to {result.out}; digest {result.digest[:16]}")
    print(f"next: uscl evaluate linear {result.out} --weights random --out DIR{' --folds 5' if result.cut else ''}")
