"""The page of evaluations in a real browser: whole without a network, at every width, in dark and light, and on paper."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.uscl.evaluation.reporting.conftest import Made
from uscl.evaluation.reporting import report
from uscl.evaluation.reporting.collection import Evaluation
from uscl.evaluation.reporting.page import render
from uscl.evaluation.reporting.pictures import named_mistakes

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("it needs Debian's chromium, which 'make test' installs", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

FLAGS = ["--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync"]
HOSTILE = (
    "</style><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" autofocus onfocus="alert(1)" x="',
    "cov\u202e4pm.exe",
    "!" + "unbroken" * 70,
)
ALARM = "window.ran = []; window.alert = (text) => window.ran.push(String(text)); window.refused = [];"
ALARM += "addEventListener('securitypolicyviolation', (event) => window.refused.push(event.violatedDirective));"

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox wants rights that a container and root do not have; the pages are ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, chromium_sandbox=False, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a page that may neither fail, nor fetch, nor run anything."""
    contexts, wrong = [], []

    def opened(path: Path, **settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(ALARM)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(("file://", "data:")) else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("[...window.ran, ...window.refused]") == []
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def whole(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "report"
    report([made.linear, made.knn], out=out, pictures=[made.dataset], weights=[str(made.weights)], colours=["manufacturer"])
    return out / "report.html"


@pytest.fixture(scope="module")
def hostile(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on which every name is hostile, with label efficiency and the guard's findings."""
    text = (made.linear / "evaluation.json").read_text()
    predictions = pd.read_parquet(made.linear / "predictions.parquet")
    summary = json.loads(text)
    classes = dict(zip(summary["dataset"]["classes"], HOSTILE, strict=False))
    for entry in summary["weights"]:
        predictions["weights"] = predictions["weights"].replace(entry["name"], HOSTILE[3] + entry["name"])
        for row in summary["differences"]:
            row.update({key: HOSTILE[3] + row[key] for key in ("weights", "reference") if row[key] == entry["name"]})
        entry["name"] = HOSTILE[3] + entry["name"]
        for level in entry["levels"].values():
            for row in level["per_class"]:
                row["class"] = classes[row["class"]]
    for row in summary["classes"]:
        row["class"] = classes[row["class"]]
    summary["dataset"] |= {"name": HOSTILE[4], "classes": list(classes.values())}
    summary["notes"] = list(HOSTILE)
    points = [{"share": share, "levels": copy.deepcopy(summary["weights"][0]["levels"])} for share in (1, 5, 25, 100)]
    summary["label_efficiency"] = {"weights": [{"name": name, "points": points} for name in HOSTILE]}
    seen = [{"video_id": HOSTILE[0], "kind": "patient", "score": None, "trained_on": None, "place": 0}] * 3
    summary["overlap"]["weights"][0] |= {"name": HOSTILE[1], "seen": seen, "handling": "allowed", "level": "clips", "trained_clips": 7}
    predictions = predictions.replace({"label": classes, "predicted": classes})
    predictions = predictions.rename(columns={f"probability_{name}": f"probability_{other}" for name, other in classes.items()})
    predictions["frame_id"] = [HOSTILE[row % 5] + str(row) for row in range(len(predictions))]
    evaluation = Evaluation(HOSTILE[0], summary, predictions)
    from uscl.evaluation.reporting.pictures import Pictures

    mistakes = [named_mistakes(evaluation, entry["name"]) for entry in summary["weights"]]
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(render([evaluation, Evaluation(HOSTILE[4], summary, predictions)], dict.fromkeys(HOSTILE, Pictures(mistakes))))
    return path


def test_no_width_scrolls_sideways_however_long_the_names(open_page: Open, whole: Path, hostile: Path) -> None:
    for path in (whole, hostile):
        page = open_page(path)
        page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
        for width in (320, 390, 900, 1200):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
            if path == whole:
                # Figures and intervals stand inside their cells, and tables inside their cards.
                wider = "(what) => [...document.querySelectorAll(what)].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
                assert page.evaluate(wider, "td") == 0, width
                assert page.evaluate(wider, ".card") == 0, width


def test_dark_and_light_follow_the_system(open_page: Open, whole: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert open_page(whole, color_scheme="dark").evaluate(ground) == "rgb(16, 21, 27)"
    assert open_page(whole, color_scheme="light").evaluate(ground) == "rgb(245, 247, 249)"


def test_on_paper_it_is_light_and_open(open_page: Open, whole: Path) -> None:
    page = open_page(whole, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".contents").is_visible() is False
    assert page.locator("details li").first.bounding_box()["height"] > 0
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_pictures_load_and_charts_are_told_in_words(open_page: Open, whole: Path) -> None:
    page = open_page(whole)
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 50 && image.alt)")
    assert page.evaluate("[...document.querySelectorAll('svg')].every((one) => one.getAttribute('aria-label').length > 10)")
    page.locator(".contents a").nth(1).click()
    assert page.url.endswith("#e1")


def test_hostile_names_are_shown_and_run_nothing(open_page: Open, hostile: Path) -> None:
    page = open_page(hostile)
    text = " ".join(page.locator("body").inner_text().split())
    assert HOSTILE[0] in text
    assert HOSTILE[1] in text
    assert "\u202e" not in page.content()
    assert page.locator("img, script").count() == 0
    assert "3 of 9 clips (3 by patient)" in text
    page.mouse.move(400, 400)
    page.wait_for_timeout(50)
