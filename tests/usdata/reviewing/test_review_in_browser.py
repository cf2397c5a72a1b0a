"""The review page in a real browser: answered by keys, saved, read back, and built with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import usdata
from usdata import manifest
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.recipe import Recipe
from usdata.reviewing import read_answers, take_answers, write_page

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("it needs Debian's chromium, which 'make test' installs", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

SHAPE = (240, 320)


def test_answers_by_keys_are_saved_and_taken(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, clip in enumerate(plan(videos=3, seed=3, frames=16)):
        still = np.repeat(render(clip)[0][:1, : SHAPE[0], : SHAPE[1]], 12, axis=0)  # nothing moves, so a person must look
        write_clip(raw / f"frozen_{number}.mp4", still, fps=20)
    source = {"name": "s", "layout": "files", "patient_ids": "public"}
    usdata.build(Recipe.model_validate({"name": "set", "sources": [source]}), raw=raw, out=tmp_path / "set", workers=1)
    page_file = write_page(tmp_path / "set", raw=raw, out=tmp_path / "page.html").page
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox wants rights that a container and root do not have; the page is ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, chromium_sandbox=False)
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(page_file.as_uri())
        outlined = [json.loads(each.get_attribute("data-geometry") or "") for each in page.locator("article").all()]
        for key in "awr":
            page.keyboard.press(key)
        assert page.locator(".said").all_inner_texts() == ["accepted", "accepted, the whole picture", "rejected"]
        page.reload()  # answers stay in the browser until they are saved
        assert page.locator(".said").all_inner_texts() == ["accepted", "accepted, the whole picture", "rejected"]
        page.fill("#reviewer", "AB")
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "answers.csv")
        browser.close()
    assert not wrong
    accepted, whole, rejected = (answer for _, answer in sorted(read_answers(tmp_path / "answers.csv").items()))
    assert (accepted.answer, whole.answer, rejected.answer) == ("accept", "accept", "reject")
    assert json.loads(accepted.geometry or "") == outlined[0]
    take_answers(tmp_path / "set", tmp_path / "answers.csv", raw=raw, workers=1)
    videos = manifest.open_dataset(tmp_path / "set").videos.sort_values("video_id")
    assert videos["status"].tolist() == ["ok", "ok", "excluded"]
    taken = json.loads(videos["fov_geometry"].iloc[1])
    height, width = videos[["height", "width"]].iloc[1].tolist()
    assert [taken[key] for key in ("x", "y", "width", "height")] == [0, 0, width, height]
