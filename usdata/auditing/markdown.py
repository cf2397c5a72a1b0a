"""The audit as Markdown, for a paper's appendix.

Comes in: statistics and findings. Goes out: the text of report.md. Guarantees: text from the data is plain text wherever Markdown or HTML
is drawn, no path of the machine is in it, and equal results give an equal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from usdata.auditing.finding import Finding
from usdata.auditing.licences import strictest
from usdata.console import safe_text

ROWS_OF_A_FINDING = 20
VALUES_OF_A_FACT = 8
STAGE_NAMES = {
    "found": "found",
    "decoded": "decoded",
    "mode": "of a mode that is kept",
    "field_of_view": "with a field of view, or kept without one",
    "unique": "unique frames",
    "split": "taken by the sampling rule, in a split",
}
_COUNTS = ("patients", "groups", "clips", "frames")


def plain(text: object) -> str:
    """Text from outside as it reads, with nothing in it that Markdown or HTML takes for its own; on one line."""
    line = " ".join(safe_text(str(text).replace("\n", " ").replace("\t", " ")).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
    return re.sub(r"(?i)(https?|ftp)://|www\.", lambda found: found[0].replace(":", "&#58;").replace(".", "&#46;"), line)


def table(names: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> list[str]:
    """Lines of a table whose last `numbers` columns are aligned to the right; cells are Markdown already."""
    line = ["---"] * (len(names) - numbers) + ["---:"] * numbers
    return [f"| {' | '.join(cells)} |" for cells in (list(names), line, *([str(cell) for cell in row] for row in rows))] + [""]


def markdown(statistics: dict[str, Any], findings: Sequence[Finding], summary: Sequence[str]) -> str:
    """The text of report.md.

    Args:
        statistics: What was counted.
        findings: What was found.
        summary: The sentences that begin the report.
    """
    about = statistics["set"]
    lines = [f"# Audit of {plain(about['name'])}", "", *(plain(sentence) for sentence in summary), ""]
    lines += ["## Findings", ""]
    if findings:
        lines += table(
            ("level", "finding", "what", "what to do"), ([f.level, f"`{f.id}`", plain(f.message), plain(f.advice)] for f in findings)
        )
    else:
        lines += ["None.", ""]
    lines += ["## Flow", "", *_flow(statistics["flow"]["stages"])]
    lines += ["## Counts", "", *_counts(statistics)]
    lines += ["## Acquisition and label", "", *_acquisition(statistics)]
    lines += ["## Can the label be told without the ultrasound?", "", *_probes(statistics)]
    if "against" in statistics:
        lines += [f"## Shared with {plain(statistics['against']['other'])}", "", *_against(statistics["against"])]
    lines += ["## Privacy", "", *(f"- {plain(sentence)}" for sentence in statistics["privacy"]["statement"]), ""]
    lines += ["## Licences", "", *_licences(statistics)]
    lines += ["## What the findings are about", "", *_rows_of(findings)] if any(finding.rows for finding in findings) else []
    lines += ["## To make it again", "", *_reproducibility(statistics["reproducibility"])]
    return "\n".join(lines).rstrip("\n") + "\n"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _flow(stages: Sequence[dict[str, Any]]) -> list[str]:
    rows: list[list[str]] = []
    for stage in stages:
        rows += [[f"left out: {plain(row['reason'])}", _number(row["clips"]), _number(row["frames"])] for row in stage["left_out"]]
        rows.append([f"**{STAGE_NAMES[stage['stage']]}**", f"**{_number(stage['clips'])}**", f"**{_number(stage['frames'])}**"])
        rows += [
            [f"of these in {plain(part['split'])}", _number(part["clips"]), _number(part["frames"])] for part in stage.get("parts", ())
        ]
    return table(("step", "clips", "frames"), rows, 2)


def _counts(statistics: dict[str, Any]) -> list[str]:
    names = ("source", "organ", "labels", "as given", "height", "width", "Hz", *_COUNTS, "frames a clip")
    rows = [
        [plain(row["source"]), plain(", ".join(row["organs"]) or "–"), row["labels"], row["labels_given"]]
        + ["–" if row[name] is None else f"{row[name]:.0f}" for name in ("height", "width", "fps")]
        + [*(_number(row[name]) for name in _COUNTS), f"{row['frames_a_clip']:.1f}"]
        for row in statistics["sources"]
    ]
    lines = table(names, rows, len(names) - 2) if rows else []
    for keys, name in (
        (("source", "label", "split"), "by_source_label_split"),
        (("label",), "by_label"),
        (("fold",), "by_fold"),
    ):
        if statistics[name]:
            rows = [[*(plain(row[key]) for key in keys), *(_number(row[count]) for count in _COUNTS)] for row in statistics[name]]
            lines += table((*keys, *_COUNTS), rows, len(_COUNTS))
    lines += [plain(statistics["label_levels"]["sentence"])]
    labels = statistics["labels"]
    lines += [f"{labels['clips_labelled']:,} clips have a label, {labels['clips_unlabelled']:,} have none.", ""]
    return lines


def _acquisition(statistics: dict[str, Any]) -> list[str]:
    labels = [row["label"] for row in statistics["by_label"] if statistics["acquisition"] and any(_has(statistics, row["label"]))]
    lines = [
        "Clips by label; Cramér's V (bias-corrected) is 0 where a fact and the label are independent, and 1 where one tells the other.",
        "",
    ]
    rows = []
    for fact, entry in statistics["acquisition"].items():
        v = "–" if entry["cramers_v"] is None else f"{entry['cramers_v']:.2f}"
        for place, value in enumerate(entry["values"][:VALUES_OF_A_FACT]):
            first = [plain(fact), v] if place == 0 else ["", ""]
            rows.append([*first, plain(value["value"]), *(_number(value["labels"].get(label, 0)) for label in labels)])
        if left := len(entry["values"]) - VALUES_OF_A_FACT:
            rows += [["", "", f"and {left:,} more", *("" for _ in labels)]] if left > 0 else []
    return (
        lines + table(("fact", "V", "value", *(plain(label) for label in labels)), rows, len(labels)) if rows else ["No labelled clip.", ""]
    )


def _has(statistics: dict[str, Any], label: str) -> list[bool]:
    return [label in value["labels"] for entry in statistics["acquisition"].values() for value in entry["values"]]


def _probes(statistics: dict[str, Any]) -> list[str]:
    lines, rows = [], []
    for name, probe in (("file metadata", statistics["shortcut"]), ("surroundings", statistics["surroundings"])):
        if "why_not" in probe:
            lines.append(f"The probe on {name} could not be made: {plain(probe['why_not'])}")
            continue
        figures = [probe["majority"], *(probe[how][what] for how in ("by_group", "by_clip") for what in ("accuracy", "balanced_accuracy"))]
        rows.append(
            [name, _number(probe["clips"]), *(f"{100 * figure:.1f} %" for figure in figures), f"{probe['by_group']['p_value']:.2g}"]
        )
    if rows:
        names = (
            "sees only",
            "clips",
            "majority",
            "accuracy, unseen groups",
            "balanced",
            "accuracy, unseen clips",
            "balanced",
            "p, unseen groups",
        )
        lines = [*table(names, rows, len(names) - 1), *lines]
    lines.append(plain(statistics["surroundings"]["saw"]))
    return [*lines, ""]


def _against(found: dict[str, Any]) -> list[str]:
    lines = table(("what", "number"), ([plain(row["what"]), _number(row["number"])] for row in found["shared"]), 1)
    rows = [
        [plain(pair["a"]), plain(pair["b"]), pair["kind"], f"{pair['score']:.2f}", *(plain(label or "–") for label in pair["labels"])]
        for pair in found["pairs"][:ROWS_OF_A_FINDING]
    ]
    if rows:
        lines += table(("clip", "clip of the other", "kind", "score", "label", "label in the other"), rows)
    if not found["by_content"]:
        lines += ["Pictures were not compared: the same scan under other bytes was not looked for.", ""]
    return lines


def _licences(statistics: dict[str, Any]) -> list[str]:
    rows = statistics["licences_by_source"]
    sources = sorted({row["source"] for row in rows})
    cells = {(row["licence"], row["source"]): row["clips"] for row in rows}
    matrix = (
        [plain(row["licence"] or "none given"), *(_number(cells.get((row["licence"], source), 0)) for source in sources)]
        for row in statistics["licences"]
    )
    strict = strictest(statistics["licences"])
    lines = table(("clips", *(plain(source) for source in sources)), matrix, len(sources)) if rows else []
    lines += [f"The strictest is {plain(strict)}." if strict else "No licence is known.", "ATTRIBUTION.md names whom to cite.", ""]
    return lines


def _rows_of(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        if finding.rows:
            lines += [f"`{finding.id}`:", "", *(f"- {plain(row)}" for row in finding.rows[:ROWS_OF_A_FINDING])]
            left = len(finding.rows) - ROWS_OF_A_FINDING
            lines += [f"- and {left:,} more, in report.json", ""] if left > 0 else [""]
    return lines


def _reproducibility(facts: dict[str, Any]) -> list[str]:
    rows = [
        [plain(name.replace("_", " ")), f"`{digest}`"] for name, digest in facts["digests"].items() if re.fullmatch(r"[0-9a-f]+", digest)
    ]
    rows += [[plain(name), plain(version)] for name, version in facts["versions"].items()]
    rows += [[f"clips that a person answered '{plain(answer)}' to", _number(number)] for answer, number in facts["reviews"].items()]
    rows += [[f"published {column}", plain(origin.get("name"))] for column, origin in facts["published"].items()]
    lines = table(("what", "value"), rows)
    if facts["recipe"]:
        # Indented by four, it is code whatever is in it.
        lines += ["RECIPE.yaml:", "", *(f"    {safe_text(line)}" for line in facts["recipe"].splitlines()), ""]
    return [*lines, "Then:", "", *(f"    {safe_text(command)}" for command in facts["commands"]), ""]
