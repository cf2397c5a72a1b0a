"""The files of an evaluation.

In: what was found. Out: a folder of `evaluation.json`, `predictions.parquet` and `report.html`, whole or absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uscl.evaluation.folds import Folds, FoldsBy
from uscl.evaluation.protocols import Row
from uscl.evaluation.summary import EVALUATION, PREDICTIONS, REPORT, Held
from uscl.whole_folder import whole_folder
from usdata.files import write_json, write_text
from usdata.manifest import DataSet

PARTS = (EVALUATION, PREDICTIONS, REPORT)


def predictions_table(
    frames: pd.DataFrame,
    groups: NDArray[np.str_],
    class_names: Sequence[str],
    rows: Sequence[Row],
    divisions: Mapping[FoldsBy, Sequence[Folds]],
    held: Mapping[str, Sequence[Held]],
    seen: Collection[str] = (),
) -> pd.DataFrame:
    """A row per protocol, weights, seed and held-out frame; `seen` as in `summarise_rows`."""
    parts = []
    for row in rows:
        for entry in held[row.key]:
            table = frames[["frame_id", "video_id", "group_id"]].copy()
            table["independent_group"] = groups
            table["fold"] = divisions[row.folds_by][entry.seed].fold
            table["seed"] = entry.seed
            table["weights"] = row.name(entry.weights, seen)
            table["protocol"] = row.key
            table["label"] = frames["label"]
            table["predicted"] = np.array(class_names)[entry.probabilities.argmax(axis=1)]
            for index, name in enumerate(class_names):
                table[f"probability_{name}"] = entry.probabilities[:, index]
            parts.append(table)
    return pd.concat(parts, ignore_index=True)


def write_results(out: Path, summary: dict[str, Any], predictions: pd.DataFrame, dataset: DataSet, *, overwrite: bool) -> None:
    """All three files; what stands at `out` as in `check_folder`."""
    from uscl.evaluation.report import judged_name
    from uscl.evaluation.reporting.collection import Evaluation
    from uscl.evaluation.reporting.page import render
    from uscl.evaluation.reporting.pictures import Pictures, worst_mistakes

    evaluation = Evaluation("", summary, predictions)
    pictures = Pictures([worst_mistakes(evaluation, judged_name(summary), dataset)])
    page = render([evaluation], {"": pictures})
    with whole_folder(out, parts=PARTS, overwrite=overwrite) as folder:
        pq.write_table(pa.Table.from_pandas(predictions, preserve_index=False), folder / PREDICTIONS, compression="zstd")
        write_text(folder / REPORT, page)
        write_json(folder / EVALUATION, summary)
