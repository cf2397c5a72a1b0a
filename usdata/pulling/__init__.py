"""Getting raw clips of public sources: fetched where their addresses are known and their licence allows it, told step by step elsewhere.

In: names of the catalogue. Out: RAW/<name> with the source's files, checked and recorded. Guarantees: nothing stands under a file's name
before all of it is right; a pull that was killed goes on where it was; nothing that stands there is overwritten; no licence is accepted for
anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from usdata.cataloguing import CatalogEntry, SourceFile, catalog, load_entry
from usdata.console import safe_text, say
from usdata.errors import UserError, nearest
from usdata.pulling.placed import Placed, count_placed
from usdata.pulling.record import Record, SourceLock
from usdata.pulling.source_file import PulledFile, bring, examine
from usdata.pulling.terminal import Teller, byte_progress, passing_on, print_pull, say_terms
from usdata.pulling.transfer import is_web, local_path, make_client
from usdata.pulling.wanted import Terms
from usdata.pulling.workers import run_all
from usdata.signals import StopFlag, stop_signals

__all__ = ["PullResult", "PulledFile", "PulledSource", "mirrors_from", "print_pull", "pull"]


@dataclass(frozen=True)
class PulledSource:
    """What came of one source.

    Attributes:
        name: Its name in the catalogue.
        folder: RAW/<name>.
        licence: Its licence.
        redistribution: Whether copies may be passed on, as the catalogue names it.
        access: How it is had, as the catalogue names it.
        homepage: Where it is described.
        files: How each of its files stands; empty where the catalogue knows no addresses.
        steps: What a person has to do; empty where the files were fetched.
        checked: Whether the folder was looked at.
        placed: What lies in the folder; None for nothing.
    """

    name: str
    folder: Path
    licence: str
    redistribution: str
    access: str
    homepage: str | None
    files: list[PulledFile]
    steps: list[str]
    checked: bool
    placed: Placed | None


@dataclass(frozen=True)
class PullResult:
    """What came of a pull; `check` = nothing was to be fetched."""

    to: Path
    check: bool
    sources: list[PulledSource]

    @property
    def complete(self) -> bool:
        """Whether every file that the catalogue names stands as it should."""
        return all(file.state in ("fetched", "there") for source in self.sources for file in source.files)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"to": str(self.to), "complete": self.complete}


@dataclass(frozen=True)
class _Task:
    """One file of one source."""

    entry: CatalogEntry
    file: SourceFile
    folder: Path
    locations: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.entry.name}/{self.file.to}"


def pull(
    names: str | CatalogEntry | Sequence[str | CatalogEntry],
    *,
    to: str | Path,
    accept_licence: bool = False,
    allow_http: bool = False,
    mirrors: Mapping[str, str | Sequence[str]] | None = None,
    jobs: int = 4,
    check: bool = False,
    attempts: int = 5,
    timeout_s: float = 60.0,
    sleep: Callable[[float], None] | None = None,
) -> PullResult:
    """Get sources of the catalogue, or say how a person gets them, and check what is there.

    Args:
        names: Sources: their names, YAML files of the catalogue's form, or entries.
        to: RAW; each source gets a folder of its name in it.
        accept_licence: You have read the licences of the sources named and keep to them. Needed unless copies may be passed on freely.
        allow_http: Follow addresses, and redirects to addresses, that are not protected by https.
        mirrors: Source to a folder or address that holds its files under their names (or, for one file, to that file); asked first.
        jobs: Files at once.
        check: Only look at what is there.
        attempts: Failures in a row after which an address is given up.
        timeout_s: Silence of a server that counts as a failure.
        sleep: Waits between tries, instead of the clock.

    Returns:
        How each file stands, what a person has to do, and what lies in each folder.

    Raises:
        UserError: A name or an option is wrong, a licence is not accepted, a file cannot be had, or something else stands in its place.
        Stopped: SIGINT or SIGTERM came; the same command goes on.
    """
    wanted = [names] if isinstance(names, str | CatalogEntry) else list(names)
    entries = list({entry.name: entry for entry in map(_entry, wanted)}.values())
    raw = Path(to)
    given = {name: [each] if isinstance(each, str) else list(each) for name, each in (mirrors or {}).items()}
    _check_options(entries, raw, given, jobs, attempts, timeout_s)
    states: dict[str, list[PulledFile]] = {entry.name: [] for entry in entries}
    if check:
        for entry in entries:
            record = Record(raw / entry.name)
            states[entry.name] = [examine(file, raw / entry.name, record) for file in entry.files]
    else:
        tasks = [_task(entry, file, raw, given.get(entry.name, [])) for entry in entries for file in entry.files]
        _settle_licences(entries, accept_licence)
        if tasks:
            with stop_signals("run the same command again") as signal, signal.deferred():
                for task, state in zip(
                    tasks, _pull_all(tasks, Terms(allow_http, attempts, timeout_s, sleep=sleep), jobs, signal), strict=True
                ):
                    states[task.entry.name].append(state)
    return PullResult(raw, check, [_told(entry, raw / entry.name, states[entry.name]) for entry in entries])


def mirrors_from(options: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=PLACE` options as the mapping that `pull` takes.

    Raises:
        UserError: One has another form.
    """
    mirrors: dict[str, list[str]] = {}
    for option in options:
        name, equals, place = option.partition("=")
        if not (name and equals and place):
            raise UserError(f"--mirror {option}", "is not of the form NAME=PLACE", "write for example --mirror hc18=/mnt/share/hc18")
        mirrors.setdefault(name, []).append(place)
    return mirrors


def _entry(name: str | CatalogEntry) -> CatalogEntry:
    if isinstance(name, CatalogEntry):
        return name
    return load_entry(Path(name)) if name.endswith((".yaml", ".yml")) else catalog(name)[0]


def _check_options(
    entries: list[CatalogEntry], raw: Path, mirrors: Mapping[str, list[str]], jobs: int, attempts: int, timeout_s: float
) -> None:
    if not entries:
        raise UserError("pull", "no source was named", "usdata catalog lists them")
    if raw.exists() and not raw.is_dir():
        raise UserError(raw, "is no folder", "give the folder for raw clips")
    for option, value in (("--jobs", jobs), ("attempts", attempts), ("timeout_s", timeout_s)):
        if value <= 0:
            raise UserError(option, f"must be above 0, not {value}", "leave it out")
    names = {entry.name: entry for entry in entries}
    for name in mirrors:
        if name not in names:
            raise UserError(f"--mirror {name}=...", "is for a source that is not pulled", nearest(name, names))
        if not names[name].files:
            raise UserError(f"--mirror {name}=...", "the catalogue names no files of this source", f"put them into {raw / name} yourself")


def _settle_licences(entries: list[CatalogEntry], accepted: bool) -> None:
    """Say every licence, then refuse the ones that need a yes before anything is fetched."""
    closed = []
    for entry in entries:
        if entry.files:
            say_terms(entry)
            closed += [entry] if entry.redistribution != "yes" else []
    if closed and not accepted:
        first = closed[0]
        others = f" (and {', '.join(entry.name for entry in closed[1:])})" if len(closed) > 1 else ""
        where = f", see {first.homepage}" if first.homepage else ""
        advice = f"read it{where}, and give --accept-licence if you keep to it"
        raise UserError(f"{first.name}{others}", f"its licence is '{first.licence}', {passing_on(first.redistribution)}", advice)


def _task(entry: CatalogEntry, file: SourceFile, raw: Path, mirrors: list[str]) -> _Task:
    places = [_in_mirror(mirror, file, len(entry.files) == 1) for mirror in mirrors]
    return _Task(entry, file, raw / entry.name, (*places, *file.urls))


def _in_mirror(mirror: str, file: SourceFile, only: bool) -> str:
    """Where a mirror has a file: under its own path in it, or the mirror is that file."""
    if is_web(mirror):
        last = mirror.partition("?")[0].rpartition("/")[2]
        return mirror if last == Path(file.to).name else f"{mirror.rstrip('/')}/{file.to}"
    path = local_path(mirror)
    if path.is_file() and not only and path.name != Path(file.to).name:
        raise UserError(mirror, "is one file, and the source has several", "give the folder that holds them under their names")
    return str(path if path.is_file() else path / file.to)


def _pull_all(tasks: list[_Task], terms: Terms, jobs: int, signal: StopFlag) -> list[PulledFile]:
    web = any(is_web(location) for task in tasks for location in task.locations)
    folders = list(dict.fromkeys(task.folder for task in tasks))
    with ExitStack() as stack:
        locks = {}
        for folder in folders:
            locks[folder] = SourceLock(folder)
            stack.callback(locks[folder].let_go)
        records = {folder: Record(folder) for folder in folders}
        client = stack.enter_context(make_client(terms.timeout_s)) if web else None
        tell_of = stack.enter_context(byte_progress({task.label: task.file.bytes for task in tasks}))

        def work_of(task: _Task, tell_of: Teller) -> Callable[[], PulledFile]:
            tell = tell_of(task.label)
            return lambda: bring(task.file, task.folder, records[task.folder], task.locations, terms, client, tell)

        work = [locks[task.folder].held(work_of(task, tell_of)) for task in tasks]
        results = run_all(work, jobs, terms.stop, signal)
    errors = [result for result in results if isinstance(result, UserError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        for error in errors:
            say(f"error: {safe_text(str(error))}")
        raise UserError(
            "pull", f"{len(errors)} of {len(tasks)} files could not be put in place, each for its reason above", errors[0].advice
        )
    return [result for result in results if isinstance(result, PulledFile)]


def _told(entry: CatalogEntry, folder: Path, files: list[PulledFile]) -> PulledSource:
    return PulledSource(
        name=entry.name,
        folder=folder,
        licence=entry.licence,
        redistribution=entry.redistribution,
        access=entry.access,
        homepage=entry.homepage,
        files=files,
        steps=[] if entry.files else _steps(entry, folder),
        checked=True,
        placed=count_placed(entry, folder),
    )


def _steps(entry: CatalogEntry, folder: Path) -> list[str]:
    """What a person does, the catalogue's steps first; a collection is had by its parts."""
    if parts := [other.name for other in catalog() if other.part_of == entry.name]:
        return [f"its parts are sources of their own: usdata pull {' '.join(parts)} --to {folder.parent}"]
    if entry.access == "never_released":
        return [f"its owners never released it; if you have it all the same, put it into {folder}"]
    steps = list(entry.steps) or ["find out on the homepage, or from the paper, how it is had", "read its licence, and keep to it"]
    return [*steps, f"put the files, unchanged, into {folder}"]
