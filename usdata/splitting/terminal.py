"""What `usdata split` prints, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from usdata.console import safe_text
from usdata.duplicates.leaks import Leaks
from usdata.splitting import SplitResult
from usdata.splitting.applying import Placed
from usdata.splitting.proof import Part, Proof, counted

WIDTH = 80
MOST_SHOWN = 5
MOST_LABEL = 22


def print_split(result: SplitResult) -> None:
    """The published names and what leaks, where there are any; then a statement and a table for folds and for splits."""
    if result.published is not None:
        _print_names(result.published)
    if result.leaks is not None and result.leaks.any:
        _print_leaks(result.leaks)
    for proof in result.proofs:
        _say(proof.statement)
        if len(proof.parts) > 1:
            for line in table(proof):
                print(line)
    for warning in result.warnings:
        _say(f"warning: {warning}")
    for note in result.notes:
        _say(f"note: {note}")


def _say(text: str, indent: str = "") -> None:
    """A sentence, broken at 80 columns; its first word starts the line."""
    print(textwrap.fill(safe_text(text), WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False))


def _print_names(placed: Placed) -> None:
    source, matched = placed.source, placed.matched
    total = sum(matched.values())
    kind = "published folds" if source.column == "fold" else "a published split"
    how = f"{matched['exact']:,} exactly, {matched['stem']:,} by stem, {matched['frame']:,} by stem and frame number"
    _say(f"{source.name}: {len(source.entries):,} names of {kind}, {total:,} matched ({how})")
    _print_list(f"{len(placed.unmatched):,} unmatched", placed.unmatched)
    _print_list(f"{len(placed.ambiguous):,} ambiguous", [f"{name}: {', '.join(clips)}" for name, clips in placed.ambiguous])
    _print_list(f"{len(placed.without_frames):,} clips named that keep no frame", placed.without_frames)
    if placed.with_their_clip:
        _say(f"{placed.with_their_clip:,} frames are not named and go with their clip", "  ")
    if placed.undecided:
        _say(f"{placed.undecided:,} frames are named in two parts, and get neither", "  ")
    if placed.unplaced:
        _say(f"{placed.unplaced:,} frames of {placed.unplaced_clips:,} clips get no part: --apply needs --rest", "  ")


def _print_leaks(leaks: Leaks) -> None:
    for kind, found in leaks.found.items():
        if found:
            verb = "stands" if len(found) == 1 else "stand"
            _print_list(
                f"leak: {counted(len(found), kind)} of {leaks.checked[kind]:,} {verb} in two parts", [str(leak) for leak in found], ""
            )


def _print_list(title: str, names: Sequence[str], indent: str = "  ") -> None:
    if not names:
        return
    _say(f"{title}:", indent)
    for name in names[:MOST_SHOWN]:
        print(f"{indent}  {_cut(safe_text(name), WIDTH - len(indent) - 2)}")
    if len(names) > MOST_SHOWN:
        print(f"{indent}  and {len(names) - MOST_SHOWN:,} more: see --json")


def _cut(text: str, width: int) -> str:
    """A text in so many columns; where it is longer, its middle goes."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def table(proof: Proof) -> list[str]:
    """Groups, clips, frames and each label's share, of the whole set and of each part; in several blocks where 80 columns are too few."""
    rows: list[tuple[str, list[str]]] = []
    every: list[Part] = [proof.whole, *proof.parts]
    for name in ("groups", "clips", "frames"):
        rows.append((name, [f"{getattr(part, name):,}" for part in every]))
    for label in proof.labels:
        rows.append((label, [f"{100 * part.share(label):.1f}%" if part.labels.get(label) else "-" for part in every]))
    heads = [proof.column, "all", *(part.name for part in proof.parts)]
    width = max(len(cell) for _, cells in [("", heads[1:]), *rows] for cell in cells) + 2
    first = min(MOST_LABEL, max(len(name) for name in (heads[0], *(name for name, _ in rows))))
    fitting = max(1, (WIDTH - first - width) // width)
    lines = []
    for start in range(1, len(every), fitting):
        chosen = [0, *range(start, min(start + fitting, len(every)))]
        if start > 1:
            lines.append("")
        lines.append(f"{heads[0]:{first}}" + "".join(f"{heads[1 + place]:>{width}}" for place in chosen))
        lines += [
            f"{_cut(safe_text(name), first):{first}}" + "".join(f"{cells[place]:>{width}}" for place in chosen) for name, cells in rows
        ]
    return lines
