r"""The figures as a LaTeX table, to be \input into a paper.

In: evaluations. Out: one table with the rules of booktabs, every name escaped. It needs \usepackage{booktabs} and text in UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from uscl.evaluation.folds import EXTERNAL
from uscl.evaluation.report import LEVEL_NAMES, called, levels_of, method_of, percent

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    # ?` and !` are ligatures too, [ would be read as an argument of \\.
    "[": r"{[}",
    "]": r"{]}",
}
SHOWN_LEVELS = ("frame", "video", "patient")
TEXTQUOTEDBL = r"\providecommand{\textquotedbl}{\char`\"}"


def escape(text: str) -> str:
    """Any text as LaTeX that prints it; characters that cannot be printed become a question mark."""
    escaped = "".join(_ESCAPES.get(character, character if character.isprintable() else "?") for character in text)
    # Two of them in a row would be joined to a dash or to a quotation mark.
    return re.sub(r"([-,])(?=\1)", r"\1{}", escaped)


def table(evaluations: Sequence[tuple[str, dict[str, Any]]]) -> str:
    r"""The table's text.

    Args:
        evaluations: Name and content of `evaluation.json` of each.

    Returns:
        A `table` environment: a row for each of the weights of each evaluation; balanced accuracy by frame, video and patient with 95 %
        intervals, and AUROC by frame, in percent. A figure that an evaluation does not hold is a dash.
    """
    levels = [level for level in SHOWN_LEVELS if any(level in levels_of(summary) for _, summary in evaluations)]
    optimistic = any(entry.get("optimistic") for _, summary in evaluations for entry in summary["weights"])
    external = all(summary["settings"]["kind"] == EXTERNAL for _, summary in evaluations)
    judged = "in external validation" if external else "on groups that were not trained on"
    warned = " Rows called optimistic are not what new patients would give: see the evaluation." if optimistic else ""
    titles = [f"{summary['dataset']['name']}, {method_of(summary)}" for _, summary in evaluations]
    lines = [
        "% Needs \\usepackage{booktabs,textcomp}. Made by 'uscl report'; brackets are 95 % intervals over resampled groups.",
        TEXTQUOTEDBL,
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\caption{{Balanced accuracy and AUROC in \% {judged}, with 95\,\% intervals that resample groups.{warned}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(levels) + 2)}}}",
        r"\toprule",
        f"Data set, method & Weights & Groups & {' & '.join(f'By {LEVEL_NAMES[level]}' for level in levels)} & AUROC \\\\",
        r"\midrule",
    ]
    for number, (name, summary) in enumerate(evaluations):
        if number:
            lines.append(r"\addlinespace")
        for position, entry in enumerate(summary["weights"]):
            title = titles[number] + (f" ({name})" if titles.count(titles[number]) > 1 else "") if position == 0 else ""
            cells = [escape(title), escape(called(entry["name"])), str(summary["dataset"]["groups"])]
            for level in levels:
                values = entry["levels"].get(level)
                ends = (values["interval"].get("balanced_accuracy") if values else None) or None
                figure = percent(values["pooled"].get("balanced_accuracy")).replace("–", "--") if values else "--"
                cells.append(figure + (f" {{[}}{percent(ends[0])}, {percent(ends[1])}{{]}}" if ends else ""))
            frame = entry["levels"].get("frame")
            cells.append(percent(frame["pooled"].get("auroc")).replace("–", "--") if frame else "--")
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])
