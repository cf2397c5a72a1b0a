"""A comparison in words: a statement, and before it a warning where what was trained on is tested on."""

from __future__ import annotations

from usdata.comparing.result import CompareResult, Crossing

MOST_KEYS = 3


def counted(number: int, noun: str, plural: str = "") -> str:
    """'1 clip', '2,000 clips'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def sentence(result: CompareResult) -> str:
    """The warning where there is one, then the statement."""
    return " ".join(text for text in (warning(result), statement(result)) if text)


def statement(result: CompareResult) -> str:
    """What B is: what came, went and changed, then whether anything moved between splits."""
    a, b = result.a.called, result.b.called
    if not result.differs:
        return f"{b} is {a}: nothing differs"
    if not result.rows_differ:
        return f"{b} is {a} row for row; only {_and(_descriptions(result))}"
    if not result.clips_both:
        return f"{b} and {a} share no clip: {counted(result.a.clips, 'clip')} in {a}, {counted(result.b.clips, 'clip')} in {b}"
    changes = [*_clips(result), *_grouping(result), *_frames(result), *_others(result)]
    told = f"{b} is {a} with {_and(changes)}" if changes else f"{b} is {a} but for what is told below"
    return f"{told}; {_moves(result)}"


def warning(result: CompareResult) -> str:
    """Which groups cross between train and test; empty where none does."""
    if not result.dangerous:
        return ""
    a, b = result.a.called, result.b.called
    directions = (("train", "test", f"{a}'s train"), ("test", "train", f"{a}'s test"))
    told = []
    for before, after, place in directions:
        found = [crossing for crossing in result.dangerous if (crossing.part_before, crossing.part_after) == (before, after)]
        if found:
            told.append(
                f"{counted(len({crossing.group_before for crossing in found}), 'group')} of {place} stand{_s(found)} in {b}'s {after}"
            )
    return f"{_and(told)}: weights trained on one set must not be tested on the other."


def _s(found: list[Crossing]) -> str:
    return "s" if len({crossing.group_before for crossing in found}) == 1 else ""


def _clips(result: CompareResult) -> list[str]:
    told = [
        (len(result.clips_added), "added"),
        (len(result.clips_removed), "removed"),
        (len(result.clips_renamed), "renamed"),
        (len(result.clips_changed), "of other raw bytes"),
        (len(result.labels), "relabelled"),
        (len(result.status), "of another status or reason"),
    ]
    words = [f"{number:,} {what}" for number, what in told if number]
    if words:
        number, _, rest = words[0].partition(" ")
        words[0] = f"{number} clip{'' if number == '1' else 's'} {rest}"
    return words


def _grouping(result: CompareResult) -> list[str]:
    words = []
    for noun, change in (("patient", result.patients), ("group", result.groups)):
        if change.merged:
            words.append(f"{counted(sum(len(each.before) for each in change.merged), noun)} merged into {len(change.merged):,}")
        if change.torn:
            words.append(f"{counted(len(change.torn), noun)} torn apart")
        if change.learned or change.forgotten:
            unsure = counted(len(change.learned) + len(change.forgotten), "clip")
            words.append(f"{unsure} whose {noun} is known in one set alone")
        if change.renamed and not (change.merged or change.torn):
            words.append(f"{counted(len(change.renamed), f'other {noun} name')}")
    return words


def _frames(result: CompareResult) -> list[str]:
    frames = result.frames
    told = [
        (frames.total("added") + frames.in_added_clips, "added"),
        (frames.total("removed") + frames.in_removed_clips, "removed"),
        (frames.total("pixels"), "of other pixels"),
    ]
    return [f"{counted(number, 'frame')} {what}" for number, what in told if number]


def _others(result: CompareResult) -> list[str]:
    words = []
    if result.fields_of_view:
        words.append(counted(len(result.fields_of_view), "other field of view", "other fields of view"))
    if result.classes:
        words.append("other classes")
    if result.duplicates:
        words.append(f"{counted(len(result.duplicates), 'pair')} of duplicates that came, went or changed")
    if result.columns:
        words.append(f"other values in {counted(len(result.columns), 'more column' if words else 'column')}")
    if result.recipe:
        words.append(f"{counted(len(result.recipe), 'other key')} of the recipe")
    return words


def _moves(result: CompareResult) -> str:
    words = []
    if result.splits:
        words.append(f"{counted(len(result.splits), 'clip')} moved between splits")
    elif result.frames.moved:
        words.append(f"{counted(result.frames.moved, 'frame')} moved between splits")
    else:
        words.append("no clip moved between splits")
    if result.folds:
        words.append(f"{counted(len(result.folds), 'clip')} between folds")
    return " and ".join(words)


def _descriptions(result: CompareResult) -> list[str]:
    words = []
    for changes, what in ((result.recipe, "keys of the recipe"), (result.versions, "versions of"), (result.about, "keys of dataset.json")):
        if changes:
            names = [change.name for change in changes[:MOST_KEYS]]
            more = f" and {len(changes) - MOST_KEYS:,} more" if len(changes) > MOST_KEYS else ""
            words.append(f"{what} {', '.join(names)}{more} differ" if what.endswith("of") else f"{what} differ ({', '.join(names)}{more})")
    if result.classes:
        words.append("the classes differ")
    return words


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
