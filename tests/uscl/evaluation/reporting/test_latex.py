"""The LaTeX table, by the rules of TeX: a reader written here takes the escapes back, and finds the very names."""

from __future__ import annotations

import json
import re

import pytest

from tests.uscl.evaluation.reporting.conftest import Made
from uscl.evaluation.reporting.latex import escape, table

NAMED = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textquotedbl": '"',
    "textquotesingle": "'",
    "textasciigrave": "`",
}
HOSTILE = (
    "<script>alert(1)</script>",
    r"50 % of a_b & c# $x$ {y} \input{/etc/passwd} ^~",
    "a--b---c ,,d'' ``e`` ?` !`",
    "[1] |x|",
    '"q"',
    "\\",
)


def printed(text: str) -> str:
    """What TeX would print: escapes taken back, braces dropped; a character that TeX would take for a command is an error."""
    found, place = "", 0
    while place < len(text):
        if match := re.compile(r"\\([a-z]+)\{\}").match(text, place):
            found, place = found + NAMED[match[1]], match.end()
        elif match := re.compile(r"\\([{}$&#_%])").match(text, place):
            found, place = found + match[1], match.end()
        elif text[place] in "{}":
            place += 1
        else:
            assert text[place] not in "\\$&#_%~^<>|\"'`", text
            assert text[place : place + 2] not in ("--", ",,"), text
            found, place = found + text[place], place + 1
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_escaped_names_print_as_they_are(name: str) -> None:
    assert printed(escape(name)) == name


def test_what_cannot_be_printed_is_a_question_mark() -> None:
    assert escape("a\x00b\u202ec\nd") == "a?b?c?d"


def test_each_row_has_a_cell_a_column_and_the_figures(made: Made) -> None:
    summary = json.loads((made.linear / "evaluation.json").read_text())
    summary["dataset"]["name"] = HOSTILE[1]
    summary["weights"][1]["name"] = HOSTILE[0]
    text = table([("one", summary), ("two", summary)])
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])  # type: ignore[index]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 2 * 2
    assert all(len(re.findall(r"(?<!\\)&", row)) == columns - 1 for row in rows)
    assert printed(rows[1].split(" & ")[0].removesuffix(", a linear probe of frozen features")).startswith("50 % of a_b")
    value = summary["weights"][0]["levels"]["frame"]["pooled"]["balanced_accuracy"]
    low, high = summary["weights"][0]["levels"]["frame"]["interval"]["balanced_accuracy"]
    assert f" & {100 * value:.1f} {{[}}{100 * low:.1f}, {100 * high:.1f}{{]}}" in rows[1]
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\addlinespace", r"\bottomrule")] == [1, 1, 1, 1]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_levels_and_intervals_that_are_not_there_are_left_out(made: Made) -> None:
    summary = json.loads((made.linear / "evaluation.json").read_text())
    for entry in summary["weights"]:
        entry["levels"] = {"frame": entry["levels"]["frame"]}
        entry["levels"]["frame"]["interval"] = {}
        entry["levels"]["frame"]["pooled"]["auroc"] = None
    text = table([("one", summary)])
    assert "By frame" in text
    assert "By video" not in text
    assert " & -- \\\\" in text
