"""The published confusion matrix of USCL on POCUS goes through the whole report, and comes out as it was published."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tests.uscl.evaluation.metrics.test_points import from_confusion, published_matrices
from uscl.evaluation.folds import Folds
from uscl.evaluation.protocols import Row, summarise_rows
from uscl.evaluation.reporting.collection import Evaluation, figures
from uscl.evaluation.reporting.page import render
from uscl.evaluation.summary import Held, summarise
from uscl.evaluation.writing import predictions_table

CLASSES = ["covid", "pneumonia", "regular"]


def published() -> Evaluation:
    """2,116 frames of as many clips and groups: each class dealt out to five folds."""
    matrix = published_matrices()[0]
    predictions = from_confusion(matrix)
    count = len(predictions.truth)
    names = np.array([f"g{number:04d}" for number in range(count)])
    labels = predictions.truth.astype(np.int64)
    columns = {"frame_id": names, "video_id": names, "group_id": names, "label": np.array(CLASSES)[labels]}
    frames = pd.DataFrame(columns | {"source": "s", "patient_id": None, "duplicate_group": None})
    division = Folds(0, "made", np.arange(count) % 5, 5)
    dataset: Any = SimpleNamespace(name="pocus", digest="0" * 64, frames=frames, videos=frames)
    about = {"backbone": "resnet18", "kind": "file", "seed": None, "weights_sha256": "1" * 64}
    settings = {"kind": "linear", "C": 1.0, "image_size": 224, "seeds": 1, "where": [], "classes": None, "label_shares": None}
    row, held = Row("honest"), {"honest": [Held("uscl", 0, predictions.probabilities)]}

    def told(some: Any, called: Any, own: Any, parts: Any) -> dict[str, Any]:
        return summarise(dataset, frames, names, labels, CLASSES, list(parts), list(some), list(called), {"uscl": about}, settings, [])

    parts: Any = {"group": [division]}
    pairs = pd.DataFrame(columns=["video_id_a", "video_id_b"])
    summary = summarise_rows([row], ["uscl"], held, parts, {"honest": []}, told, frames=frames, groups=names, duplicates=pairs)
    summary["overlap"] = {"clips": count, "weights": [], "left_out": {"clips": 0, "groups": 0, "frames": 0}}
    return Evaluation("", summary, predictions_table(frames, names, CLASSES, [row], parts, held))


def test_the_published_matrix_gives_the_published_figures_on_the_page() -> None:
    evaluation = published()
    (entry,) = evaluation.summary["weights"]
    frame = entry["levels"]["frame"]
    assert [round(row["recall"], 4) for row in frame["per_class"]] == [0.9374, 0.9398, 0.9685]
    assert [round(row["precision"], 4) for row in frame["per_class"]] == [0.9446, 0.9507, 0.9607]
    assert round(next(row["value"] for row in figures(evaluation) if (row["level"], row["metric"]) == ("frame", "accuracy")), 4) == 0.9542
    page = " ".join(re.sub(r"<[^>]*>", " ", render([evaluation], {})).split())
    for shown in ("95.4", "93.7", "94.0", "96.9", "94.5", "95.1", "96.1"):
        assert shown in page
    assert "2116" in page.replace(",", "")
