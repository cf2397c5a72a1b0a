"""A scan on a terminal of 80 columns: a table of formats, then what a person must look at, file by file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from usdata.console import safe_text
from usdata.scanning import DAMAGE_FLAGS, ScannedFile, ScanResult
from usdata.scanning.first_recipe import clip_tables

SHOWN = 12


def print_scan(result: ScanResult, console: Console | None = None) -> None:
    """Print what a scan found to stdout."""
    console = console or Console(highlight=False, soft_wrap=False)
    if result.clips:
        console.print(_formats(result.clips))
    counts = result.to_json()["counts"]
    frames = sum((file.facts or {}).get("frames_decoded") or 0 for file in result.clips)
    counted = f"{frames:,} frames" if frames or not result.clips else "frames not counted"
    size = _bytes(sum(file.bytes for file in result.files))
    tables = clip_tables(result)
    others = f"{len(tables)} {'table' if len(tables) == 1 else 'tables'} + " if tables else ""
    others += f"{counts['other'] - len(tables)} other"
    sorted_out = f"{counts['clip']} clips ({counted}) + {counts['refused']} refused + {others}"
    console.print(f"{counts['files']} files and sequences, {size}: {sorted_out}")
    for table in tables:
        console.print(
            Text(f"table: {safe_text(table.path)} names {len(table.named)} of the {counts['clip']} clips; --write-recipe uses it")
        )
    _print_files(console, "refused", result.refused, lambda file: file.reason or "")
    _print_files(console, "damaged, and read as far as it goes", [file for file in result.clips if file.damaged], _damage)
    wrong = [file for file in result.clips if file.named_wrongly]
    _print_files(console, "named for another kind (read all the same)", wrong, lambda file: f"is {file.kind}")
    noted = [(note, file) for file in result.clips if not file.damaged for note in (file.facts or {}).get("notes", ())]
    _print_grouped(console, "note", noted)
    shown = {table.path for table in tables}
    _print_grouped(
        console, "other", [(file.reason or "", file) for file in result.files if file.status == "other" and file.path not in shown]
    )


def _print_grouped(console: Console, title: str, said: Iterable[tuple[str, ScannedFile]]) -> None:
    """What is said of several files is said once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for text, file in said:
        groups[text].append(file.path)
    for number, (text, paths) in enumerate(sorted(groups.items(), key=lambda group: group[1][0])):
        named = paths[0] if len(paths) == 1 else f"{len(paths)} files, such as {paths[0]}"
        console.print(Text(("\n" if not number else "") + f"{title}: {safe_text(named)}: {safe_text(text)}", style="dim"))


def _formats(clips: Sequence[ScannedFile]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("format", "codec"):
        table.add_column(name, no_wrap=True)
    for name in ("clips", "frames", "size", "pixels", "rate Hz", "damaged"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, str], list[ScannedFile]] = defaultdict(list)
    for file in clips:
        groups[file.kind, (file.facts or {}).get("codec") or "?"].append(file)
    for (kind, codec), files in sorted(groups.items()):
        facts = [file.facts or {} for file in files]
        frames = sum(fact.get("frames_decoded") or 0 for fact in facts)
        rates = [round(fact["fps"], 1) for fact in facts if fact.get("fps")]
        damaged = sum(file.damaged for file in files)
        table.add_row(
            kind,
            codec[:13],
            str(len(files)),
            f"{frames:,}" if frames else "-",
            _bytes(sum(file.bytes for file in files)),
            _pixels({(fact["width"], fact["height"]) for fact in facts}),
            _between(rates),
            str(damaged) if damaged else "-",
        )
    return table


def _pixels(sizes: set[tuple[int, int]]) -> str:
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        return f"{width}x{height}"
    sides = sorted(max(size) for size in sizes)
    return f"{sides[0]}-{sides[-1]}"


def _between(rates: Sequence[float]) -> str:
    if not rates:
        return "-"
    return f"{min(rates):g}" if min(rates) == max(rates) else f"{min(rates):g}-{max(rates):g}"


def _damage(file: ScannedFile) -> str:
    facts = file.facts or {}
    declared = f" of {facts['frames_declared']} declared" if facts.get("frames_declared") else ""
    flags = ", ".join(flag.replace("_", " ") for flag in facts["flags"] if flag in DAMAGE_FLAGS)
    return f"{flags}: {facts['frames_decoded']} frames{declared}" + "".join(f"; {note}" for note in facts["notes"][-1:])


def _print_files(console: Console, title: str, files: Sequence[ScannedFile], said: Callable[[ScannedFile], str]) -> None:
    if not files:
        return
    console.print(f"\n{title}: {len(files)}")
    for file in files[:SHOWN]:
        console.print(Text(f"  {safe_text(file.path)}: {safe_text(said(file))}"))
    if len(files) > SHOWN:
        console.print(f"  and {len(files) - SHOWN} more: usdata scan --json lists all")


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
