"""The page of a run: its sentences, its curves against the metrics, hostile names, and that it is the same page each time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl.config import load_config
from uscl.run_report import CONTRAST, HEIGHT, PLOTS, Curve, loss_plots, plot, write_report
from uscl.train import pretrain

SETTINGS = [TINY_NETWORK, "image_size=32", "epochs=4", "batch_size=4", "device=cpu", "checkpoint.log_every_steps=1"]
SETTINGS += ["probe.every_epochs=1"]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href") or name.startswith("on")]


def test_a_finished_run_has_its_page(tmp_path: Path) -> None:
    run = pretrain(write_set(tmp_path / "set"), out=tmp_path / "run", overrides=SETTINGS).out
    text = (run / "report.html").read_text()
    page = Page(text)
    # The contrastive loss, the other part of the loss, and what all runs have.
    assert page.tags.count("svg") == 2 + len(PLOTS)
    assert "What becomes of its part cross_entropy?" in text
    assert page.links == []
    assert "script" not in page.tags
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"{last['contrast']:.3f}" in text
    assert str(tmp_path) not in text
    write_report(run, load_config("uscl", SETTINGS), 96)
    assert (run / "report.html").read_text() == text


def test_names_from_the_data_run_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    about = {"recipe": "<script>alert(1)</script>", "dataset": {"name": "<img src=x onerror=alert(1)>", "videos": 3}, "status": "running"}
    (run / "run.json").write_text(json.dumps(about))
    write_report(run, load_config("uscl"), 512)
    page = Page((run / "report.html").read_text())
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "No line of metrics was written." in (run / "report.html").read_text()


def test_a_curve_is_its_figures() -> None:
    lines = [{"step": step, "loss": value} for step, value in ((10, 4.0), (20, 2.0), (40, 0.0))]
    drawn = re.search(r'points="([^"]+)"', str(plot(lines, "?", [Curve("loss", "loss")])))
    assert drawn is not None
    points = [tuple(map(float, pair.split(","))) for pair in drawn[1].split()]
    xs, ys = zip(*points, strict=True)
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(1 / 3, abs=1e-3)
    assert (ys[1] - ys[0]) / (ys[2] - ys[0]) == pytest.approx(1 / 2, abs=1e-3)
    assert all(0 < y < HEIGHT for y in ys)


def test_the_loss_of_any_method_is_drawn_with_its_parts() -> None:
    def keys(*terms: str) -> list[str]:
        line = {"step": 1, "epoch": 0, "loss": 3.0, **dict.fromkeys(terms, 1.0), "learning_rate": 0.1, "grad_norm": 1.0}
        return [curves[0].key for _, _, curves in loss_plots([line])]

    assert keys("contrast") == ["contrast"]
    assert keys("contrast", "cross_entropy") == ["contrast", "cross_entropy"]
    assert keys("invariance", "variance", "covariance") == ["loss", "invariance", "variance", "covariance"]
    assert keys("cross_entropy") == ["loss"], "a part that is alone is the loss"
    assert keys() == ["loss"]
    assert [curves[0].key for _, _, curves in loss_plots([])] == ["loss"]
    assert loss_plots([{"loss": 1.0, "contrast": 1.0, "learning_rate": 0.1}])[0] is CONTRAST


def test_odd_figures_break_nothing() -> None:
    for values in ([1.0], [0.0, 0.0], [float("nan"), 3.0], [-1e9, 1e9], [None, 2.0]):
        lines = [{"step": step, "loss": value} for step, value in enumerate(values)]
        assert "svg" in str(plot(lines, "?", [Curve("loss", "loss")]))
