"""`uscl report` as a user runs it."""

from __future__ import annotations

import copy
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from tests.uscl.evaluation.reporting.conftest import Made
from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.cli import app
from uscl.evaluation.reporting import report
from uscl.evaluation.reporting.collection import Evaluation, answer_of_all, main_comparisons, read_evaluations
from uscl.evaluation.reporting.coloured_maps import value_names
from uscl.evaluation.reporting.page import render
from uscl.evaluation.reporting.pictures import Pictures, chosen
from uscl.evaluation.reporting.thumbnails import overlaid
from usdata.errors import UserError

HOSTILE = '<script src="http://evil.example/x.js"></script>'


class Parts(HTMLParser):
    """Tags, what a browser might fetch, and headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action", "poster")]
        self.fetched += [value or "" for name, value in attrs if name == "href" and not (value or "").startswith("#")]
        if tag in ("h2", "h3"):
            self._in_heading = True
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = self._in_heading and tag not in ("h2", "h3")

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings[-1] += data


def page_of(summary: dict[str, Any], made: Made) -> str:
    predictions = pd.read_parquet(made.linear / "predictions.parquet")
    return render([Evaluation("", summary, predictions)], {"": Pictures([])})


def summary_of(made: Made) -> dict[str, Any]:
    return json.loads((made.linear / "evaluation.json").read_text())


def test_the_area_under_each_drawn_curve_is_its_auroc(made: Made, tmp_path: Path) -> None:
    page = report([made.linear], out=tmp_path / "out").folder / "report.html"
    parts = page.read_text().split("How well each class is told from the rest")[1].split("Can its probabilities")[0]
    drawn = re.findall(r'<polyline class="s(\d) curve" points="([^"]*)"', parts)
    predictions = pd.read_parquet(made.linear / "predictions.parquet")
    names = list(dict.fromkeys(predictions["weights"]))
    classes = sorted(predictions["label"].unique())
    assert len(drawn) == len(names) * len(classes)
    for place, (colour, points) in enumerate(drawn):
        own = predictions[predictions["weights"] == names[int(colour)]]
        name = classes[place // len(names)]
        corners = np.array([[float(number) for number in pair.split(",")] for pair in points.split()])
        across, up = corners[:, 0] - corners[0, 0], corners[0, 1] - corners[:, 1]
        area = np.trapezoid(up / up[-1], across / across[-1])
        assert area == pytest.approx(roc_auc_score(own["label"] == name, own[f"probability_{name}"]), abs=2e-3)


def test_two_evaluations_on_one_page_twice_the_same_bytes(made: Made, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"pictures": [made.dataset], "weights": [str(made.weights)], "colours": ["manufacturer", "quality_mean"]}
    first = report([made.linear, made.knn], out=tmp_path / "first", **settings)
    report([made.linear, made.knn], out=tmp_path / "second", **settings)
    for name in ("report.html", "report.json", "report.tex"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["report.html", "report.json", "report.tex"]
    page = (tmp_path / "first" / "report.html").read_text()
    assert str(tmp_path) not in page + (tmp_path / "first" / "report.json").read_text()
    parts = Parts(page)
    assert "script" not in parts.tags
    assert all(value.startswith("data:image/jpeg;base64,") for value in parts.fetched)
    assert len(parts.fetched) > 40
    for heading in ("What was compared with what", "Maps of the features", "What looks alike to it", "What could leak"):
        assert any(heading in found for found in parts.headings), heading
    assert parts.headings.count("Surest right answers of random weights") == 2
    assert "No evidence is drawn for random weights: it is exact for a linear probe" in page, "the kNN evaluation says so"
    content = first.content
    assert content == json.loads((tmp_path / "first" / "report.json").read_text())
    assert [entry["name"] for entry in content["evaluations"]] == ["linear", "knn"]
    rows = [row for row in content["figures"] if row["metric"] == "accuracy" and row["level"] == "video"]
    summary = summary_of(made)
    assert rows[0]["value"] == summary["weights"][0]["levels"]["video"]["pooled"]["accuracy"]
    assert [row["evaluation"] for row in rows] == ["linear", "linear", "knn", "knn"]
    assert any("nearest frames of other groups have a frame's label" in line for line in content["evaluations"][0]["findings"])
    assert "No map by quality_mean: it is '0' for every frame." in page.replace("&#39;", "'")


def test_the_probes_fitted_again_are_those_that_were_written(made: Made, tmp_path: Path) -> None:
    """Evidence is only drawn where they are: other probabilities in the file, and none is."""
    broken = tmp_path / "linear"
    shutil.copytree(made.linear, broken)
    predictions = pd.read_parquet(broken / "predictions.parquet")
    names = [column for column in predictions.columns if column.startswith("probability_")]
    predictions[names] = predictions[names].to_numpy()[:, [1, 0, 2]]
    predictions.to_parquet(broken / "predictions.parquet")
    pages = []
    for number, folder in enumerate((made.linear, broken)):
        report([folder], out=tmp_path / str(number), pictures=[made.dataset])
        pages.append((tmp_path / str(number) / "report.html").read_text())
    assert "Grad-CAM" in pages[0]
    assert "fitted again, its probes differ" not in pages[0]
    assert "No pictures of other.safetensors: its file was not given" in pages[0]
    assert "Grad-CAM" not in pages[1]
    assert "fitted again, its probes differ" in pages[1]


def test_without_the_set_mistakes_are_named(made: Made, tmp_path: Path) -> None:
    report([made.knn], out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    wrong = chosen(pd.read_parquet(made.knn / "predictions.parquet"), "random", right=False, count=3)
    assert not wrong.empty
    text = page.replace("<wbr>", "")
    assert all(frame_id in text for frame_id in wrong["frame_id"])
    assert Parts(page).fetched == []


def test_what_is_there_is_drawn_and_what_is_not_is_left_out(made: Made) -> None:
    summary = summary_of(made)
    full = Parts(page_of(summary, made)).headings
    for name in ("Can its probabilities be believed?", "What could leak", "All metrics"):
        assert name in full
    assert "How many labels it takes" not in full
    old = copy.deepcopy(summary)
    old["format_version"] = 1
    old["differences"] = []
    for entry in old["weights"]:
        entry["levels"] = {level: entry["levels"][level] for level in ("frame", "video")}
        for level in entry["levels"].values():
            del level["reliability"], level["pooled"]["brier_score"], level["interval"]["auroc"]
            for row in level["per_class"]:
                del row["interval"], row["auroc"]
    old["overlap"] = {"weights": []}
    page = page_of(old, made)
    headings = Parts(page).headings
    assert "Can its probabilities be believed?" not in headings
    assert "What could leak" not in headings
    assert not any(name.startswith("Differences") for name in headings)
    assert "Brier" not in page.split("<h3>All metrics</h3>")[1].split("</thead>")[0]
    assert "by patient" not in page.split("<h3>")[0].split('class="bars"')[1]


def test_label_efficiency_is_drawn_by_level(made: Made) -> None:
    summary = summary_of(made)
    shares = [1, 10, 100]
    points: list[dict[str, Any]] = [
        {"share": share, "levels": {level: copy.deepcopy(summary["weights"][0]["levels"][level]) for level in ("frame", "patient")}}
        for share in shares
    ]
    points[0]["levels"]["frame"]["interval"]["balanced_accuracy"] = None
    points[1]["levels"]["frame"]["pooled"]["balanced_accuracy"] = 0.123
    summary["label_efficiency"] = {
        "shares": shares,
        "weights": [{"name": HOSTILE, "points": points}, {"name": "random", "points": points[1:]}],
    }
    page = page_of(summary, made).split("How many labels it takes")[1].split("<h3>")[0]
    assert page.count('class="s0 curve"') == 2
    assert page.count('class="s1 curve"') == 2
    assert "12.3 % at 10 %" in page
    assert "script" not in Parts(page).tags


def test_hostile_names_are_text(tmp_path: Path) -> None:
    from uscl.evaluation import evaluate

    labels = [HOSTILE if texture == "across" else "a & b" for texture in ("across", "down") * 3]
    wrong = [labels[video] if video < 3 else labels[video - 1] for video in range(6)]
    folder = write_texture_set(
        tmp_path / "set", textures=("across", "down") * 3, labels=wrong, groups=[f"<img src=//e.example/{video}>" for video in range(6)]
    )
    evaluate("linear", folder, weights=["random"], out=tmp_path / "<b>", image_size=40, folds=2)
    report([tmp_path / "<b>"], out=tmp_path / "out", pictures=[folder], colours=["label", "group_id"])
    page = (tmp_path / "out" / "report.html").read_text()
    parts = Parts(page)
    assert not set(parts.tags) & {"script", "link", "iframe", "object"}
    assert all(value.startswith("data:image/jpeg;base64,") for value in parts.fetched)
    assert "&lt;script" in page
    assert "url(" not in page
    assert "@import" not in page


def test_the_answer_of_several_counts_what_is_established(made: Made) -> None:
    evaluations = read_evaluations([made.linear, made.knn])
    rows = main_comparisons(evaluations)
    assert len(rows) == 2
    for evaluation, (difference, ends) in zip(evaluations, ((0.2, [0.1, 0.3]), (-0.2, [-0.3, -0.1])), strict=True):
        for row in evaluation.summary["differences"]:
            row.update(difference=difference, interval=ends, established=True)
    sentences = answer_of_all(evaluations)
    assert sentences[0].startswith(
        "Of 2 comparisons by balanced accuracy of frames, 1 established that the weights are better than random weights"
    )
    assert "and 1 that they are worse; in 0 a difference" in sentences[0]
    assert "other.safetensors less random weights +20.0 points [+10.0, +30.0]" in sentences[1]
    assert "about 0.1 would look established" in sentences[-1]


def test_the_surest_right_answers_are_of_every_class(made: Made) -> None:
    predictions = pd.read_parquet(made.linear / "predictions.parquet")
    found = chosen(predictions, "random", right=True, count=3)
    assert (found["label"] == found["predicted"]).all()
    own = predictions[(predictions["weights"] == "random") & (predictions["label"] == predictions["predicted"])]
    assert found["label"].nunique() == min(3, own["label"].nunique())
    assert found["video_id"].is_unique
    names = [f"probability_{label}" for label in found["label"]]
    assert found["confidence"].tolist() == [row[name] for name, row in zip(names, found.to_dict("records"), strict=True)]


def test_heat_is_not_drawn_outside_the_field_of_view() -> None:
    small = np.full((160, 200, 3), 90, dtype=np.uint8)
    heat = np.zeros((40, 40), dtype=np.float32)
    heat[:, 20:] = 9
    heat[:, :20] = 1
    inside = np.zeros((40, 40), dtype=bool)
    inside[:, :20] = True
    drawn = overlaid(small, heat, inside)
    assert (drawn[:, 110:] == 90).all()
    assert (drawn[20:140, 20:80] != 90).any(axis=2).all(), "scaled to the strongest place inside"
    whole = overlaid(small, heat, None)
    assert (whole[20:140, 120:] != 90).any(axis=2).all()


def test_values_of_columns() -> None:
    assert value_names(pd.Series(["b", None, "a"])).tolist() == ["b", "not known", "a"]
    assert value_names(pd.Series([1.0, 2.0, None])).tolist() == ["1", "2", "not known"]
    assert value_names(pd.Series([["y", "x"], [], ["x"]])).tolist() == ["x, y", "none", "x"]
    parts = value_names(pd.Series([*np.arange(100.0), None]))
    names, counts = np.unique(parts, return_counts=True)
    assert counts.tolist() == [20] * 5 + [1]
    assert names[0] == "1: 0 to 19.8"
    assert parts[99] == names[4]


def test_errors(made: Made, tmp_path: Path) -> None:
    other = write_texture_set(tmp_path / "other", textures=("across", "down") * 2, frames_per_video=1)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "evaluation.json").write_text("{")
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "evaluation.json").write_text('{"format_version": 99}')
    weights = tmp_path / "strange.safetensors"
    from safetensors.torch import save_file

    from uscl.backbones import seeded_backbone

    save_file({name: value.contiguous() for name, value in seeded_backbone("resnet18", 9).state_dict().items()}, weights)
    out = tmp_path / "out"
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([], {}, "names no evaluation"),
        ([tmp_path / "none"], {}, "is no folder"),
        ([made.dataset], {}, "holds no evaluation.json"),
        ([broken], {}, "cannot be read"),
        ([newer], {}, "is of format 99"),
        ([made.linear, made.linear], {}, "named twice"),
        ([made.linear], {"weights": ["x"]}, "--weights: is for pictures"),
        ([made.linear], {"colours": ["x"]}, "--colour: is for pictures"),
        ([made.linear], {"pictures": [other]}, "was not evaluated here"),
        ([made.linear], {"pictures": [made.dataset], "colours": ["manufactorer"]}, "did you mean 'manufacturer'"),
        ([made.linear], {"pictures": [made.dataset], "weights": [str(weights)]}, "was not evaluated here, by the digest"),
        ([made.linear], {"out": made.knn}, "exists already"),
    ]
    for folders, change, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            report(folders, **({"out": out} | change))
        assert "\n" not in str(caught.value)
        assert not out.exists()


def test_command(made: Made, tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["report", str(made.linear), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["format_version"] == 1
    result = runner.invoke(app, ["report", str(made.linear), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    result = runner.invoke(app, ["report", str(made.linear), "--out", str(tmp_path / "out"), "--overwrite"])
    assert result.exit_code == 0
    assert "report.html" in result.stdout


def test_a_protocol_beside_the_main_one_is_marked_and_is_not_pictured(made: Made) -> None:
    summary = summary_of(made)
    for entry in summary["weights"]:
        entry |= {"weights": entry["name"], "protocol": "honest", "optimistic": False}
    for row in summary["differences"]:
        row["protocol"] = "honest"
    other = copy.deepcopy(summary["weights"][0])
    other |= {"name": "random (optimistic: published protocol)", "protocol": "published", "optimistic": True}
    del other["levels"]["frame"]["per_fold"][1:]
    summary["weights"].append(other)
    extra = {**summary["differences"][0], "protocol": "selection", "metric": "balanced_accuracy", "level": "frame"}
    summary["differences"].append(extra)
    evaluation = Evaluation("", summary, pd.read_parquet(made.linear / "predictions.parquet"))
    page = page_of(summary, made)
    assert page.count('class="interval doubtful"') == 3, "frame, video, patient"
    assert "random weights (optimistic: published protocol)" in page
    assert len(main_comparisons([evaluation])) == 1
    assert "published" not in page.split("<h3>Folds</h3>")[1].split("</thead>")[0]
