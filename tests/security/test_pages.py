"""Hostile names on the two pages whose own tests plant none in every place; the other pages' tests are named in SECURITY.md."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.usdata.clips import speckle_frames, write_video
from usdata import manifest
from usdata.building import build
from usdata.overlapping import OverlapResult, Pair, page
from usdata.recipe import Recipe
from usdata.reviewing import write_page

HOSTILE = "<img src=x onerror=alert(1)>\"'&</title></script><script>alert(2)</script>"
# What a page may hold: its own style and script, and pictures as data.
ELEMENT = re.compile(r"<(img|script)\b[^>]*")


def assert_inert(text: str, scripts: int) -> None:
    assert HOSTILE not in text
    assert "&lt;img src=x onerror" in text
    found = ELEMENT.findall(text)
    assert found.count("script") == scripts
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert not re.findall(r"<[^>]*\sonerror\s*=", text)


def test_the_page_of_overlaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_pictures", lambda pair, first, second: ["", ""])
    pair = Pair(
        a=HOSTILE,
        b=HOSTILE,
        kind="content",
        score=0.9,
        motion=None,
        flip=False,
        scale=(1.0, 1.0),
        shift=(0.0, 0.0),
        frames=((0, 0),),
        same_label=False,
        same_patient=False,
        labels=(HOSTILE, HOSTILE),
        patients=(HOSTILE, HOSTILE),
    )
    fields = dict.fromkeys(OverlapResult.__dataclass_fields__, HOSTILE)
    fields |= {"pairs": [pair], "left_out": [HOSTILE], "unread": [HOSTILE], "known": [HOSTILE], "clips_a": 1, "clips_b": 2}
    result = SimpleNamespace(**fields, contradictory=[pair], across_patients=[pair])
    page.write_page(result, [pair], None, None, tmp_path / "page.html")  # type: ignore[arg-type]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        text.count("&lt;img src=x onerror") == 12
    )  # twice each: sets in the title and below it, clips, labels, patients; once each: unread, known
    assert_inert(text, scripts=0)


def test_the_page_of_a_review(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    name = "a<img src=x onerror=alert(1)>'&.mp4"
    write_video(raw / name, speckle_frames(6, seed=1))
    source = {"name": "s", "layout": "files", "patient_ids": "public"}
    made = build(Recipe.model_validate({"name": HOSTILE, "sources": [source]}), raw=raw, out=tmp_path / "set", workers=1)
    assert list(manifest.open_dataset(made.out).videos["path"]) == [name]
    write_page(made.out, raw=raw, out=tmp_path / "page.html", everything=True)
    assert_inert((tmp_path / "page.html").read_text(encoding="utf-8"), scripts=1)
