"""`uscl report`: evaluations on one page, as JSON and as a LaTeX table; with pictures where their data set and weights are at hand.

In: folders that `uscl evaluate` or `uscl validate` made, and on request data sets and weights. Out: `report.html`, `report.json` and
`report.tex` in a folder; equal input gives equal bytes. Maps, galleries and evidence are parts of the report, not commands of their own:
each is only to be read beside the figures that it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uscl.evaluation.report import protocol
from uscl.evaluation.reporting import latex
from uscl.evaluation.reporting.collection import (
    Evaluation,
    answer_of_all,
    comparisons,
    figures,
    main_comparisons,
    main_entries,
    read_evaluations,
)
from uscl.evaluation.reporting.page import render
from uscl.evaluation.summary import REPORT
from uscl.whole_folder import check_folder, whole_folder
from usdata.console import progress
from usdata.errors import UserError
from usdata.files import write_json, write_text
from usdata.manifest import DataSet, open_dataset

REPORT_JSON = "report.json"
REPORT_LATEX = "report.tex"
PARTS = (REPORT_JSON, REPORT, REPORT_LATEX)
REPORT_FORMAT_VERSION = 1


@dataclass(frozen=True)
class ReportResult:
    """What a report holds.

    Attributes:
        folder: Where its files lie.
        content: The content of `report.json`: the answer in sentences, each evaluation, flat rows of figures and comparisons.
    """

    folder: Path
    content: dict[str, Any]


def report(
    evaluations: Sequence[str | Path],
    *,
    out: str | Path,
    pictures: Sequence[str | Path] = (),
    weights: Sequence[str] = (),
    colours: Sequence[str] = (),
    overwrite: bool = False,
) -> ReportResult:
    """Put evaluations on one page.

    Args:
        evaluations: Folders that `uscl evaluate` or `uscl validate` made.
        out: Folder for report.html, report.json and report.tex.
        pictures: Data sets that were evaluated, to draw pictures from: evidence, neighbours, maps of the features. Without them no picture
            is drawn and mistakes are listed by name.
        weights: Run folders and files that were evaluated, for pictures; random weights need none.
        colours: Columns of the manifest that maps are coloured by, beside the label.
        overwrite: Replace an earlier report in `out`.

    Raises:
        UserError: An evaluation cannot be read, a data set or weights are not those that were evaluated, a column is unknown, or `out`
            exists.
    """
    out = Path(out)
    for option, given in (("--weights", weights), ("--colour", colours)):
        if given and not pictures:
            raise UserError(option, "is for pictures, and no data set is given to draw them from", "give it with --pictures SET")
    check_folder(out, parts=PARTS, overwrite=overwrite)
    read = read_evaluations(evaluations)
    drawn = _drawn(read, [open_dataset(folder) for folder in pictures], weights, colours)
    content = _content(read, drawn)
    page, table = render(read, drawn), latex.table([(evaluation.name, evaluation.summary) for evaluation in read])
    with whole_folder(out, parts=PARTS, overwrite=overwrite) as folder:
        write_text(folder / REPORT, page)
        write_text(folder / REPORT_LATEX, table)
        write_json(folder / REPORT_JSON, content)
    return ReportResult(out, content)


def _drawn(read: Sequence[Evaluation], sets: Sequence[DataSet], weights: Sequence[str], colours: Sequence[str]) -> dict[str, Any]:
    """By name of the evaluation its pictures; without its set the names of its worst mistakes."""
    from uscl.evaluation.reporting.pictures import Pictures, draw, matching_weights, named_mistakes

    by_digest = {dataset.digest: dataset for dataset in sets}
    wanted = {evaluation.summary["dataset"]["digest"] for evaluation in read}
    for dataset in sets:
        if dataset.digest not in wanted:
            raise UserError(dataset.folder, "was not evaluated here, by its digest", "give the data set that was, as it was")
    found = matching_weights(read, weights) if sets else {}
    with_pictures = [evaluation for evaluation in read if evaluation.summary["dataset"]["digest"] in by_digest]
    drawn = {}
    total = sum(len(main_entries(evaluation.summary)) for evaluation in with_pictures)
    with progress("drawing", total, "weights") as advance:
        for evaluation in read:
            own = by_digest.get(evaluation.summary["dataset"]["digest"])
            names = [str(entry["name"]) for entry in main_entries(evaluation.summary)]
            if own is None:
                drawn[evaluation.name] = Pictures([named_mistakes(evaluation, name) for name in names])
            else:
                drawn[evaluation.name] = draw(evaluation, own, found, colours, advance)
    return drawn


def _content(read: Sequence[Evaluation], drawn: dict[str, Any]) -> dict[str, Any]:
    return {
        "format_version": REPORT_FORMAT_VERSION,
        "answer": answer_of_all(read),
        "evaluations": [
            {
                "name": evaluation.name,
                "dataset": evaluation.summary["dataset"],
                "settings": evaluation.summary["settings"],
                "weights": [{"name": entry["name"], "provenance": entry["provenance"]} for entry in evaluation.summary["weights"]],
                "notes": evaluation.summary["notes"],
                "protocol": protocol(evaluation.summary),
                "overlap": evaluation.summary.get("overlap"),
                "findings": drawn[evaluation.name].findings(),
                "outside_field_of_view": {
                    own.name: vars(own.outside) for own in drawn[evaluation.name].of_weights if own.outside is not None
                },
            }
            for evaluation in read
        ],
        "main_comparisons": main_comparisons(read),
        "figures": [row for evaluation in read for row in figures(evaluation)],
        "comparisons": [row for evaluation in read for row in comparisons(evaluation)],
    }
