"""The page and the terminal: inert for hostile data, self-contained, equal for equal sets, and there for sets that are nearly empty."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from rich.console import Console

from tests.usdata.auditing.planted import Planted, duplicate
from usdata.auditing import audit, prepare, print_audit
from usdata.auditing.charts import histogram, rate_bar, stacked_bar, whole_numbers
from usdata.auditing.clip_table import clip_rows
from usdata.auditing.page_parts import label_bars
from usdata.auditing.page_text import breakable, fitting, visible
from usdata.auditing.report import render
from usdata.auditing.statistics import statistics
from usdata.manifest import open_dataset

HOSTILE = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "wbr", "link", "hr", "line"}


class Page(HTMLParser):
    """A page's elements and texts; it fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style", "title"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def page_of(planted: Planted, folder: Path) -> tuple[str, Page]:
    result = audit(planted.write(folder))
    assert result.report == folder / "report.html"
    html = result.report.read_text(encoding="utf-8")
    return html, Page(html)


def spoilt() -> Planted:
    """A set with a failed file, a duplicate and something of every part of the page."""
    planted = Planted()
    planted.set_video(0, status="failed", reason="moov atom not found", frames_kept=0)
    planted.drop_frames("clinic/v00")
    planted.set_video(3, licence=None)
    planted.duplicates = [duplicate("clinic/v04", "clinic/v05"), duplicate("clinic/v06", "clinic/v09")]
    return planted


def test_the_page_says_what_how_much_and_what_is_wrong(tmp_path: Path) -> None:
    _, page = page_of(spoilt(), tmp_path)
    assert "9 clips of breast ultrasound from 1 source (clinic), with 2 labels (benign, malignant)." in page.text
    assert "9 of 10 files found are kept, in 5 groups with 5 known patients; 27 of 108 decoded frames are kept." in page.text
    assert "clinic/v00.mp4: moov atom not found" in page.text
    assert "clinic/v06 = clinic/v09" in page.text


def test_the_page_loads_nothing_and_runs_nothing_but_its_own_script(tmp_path: Path) -> None:
    html, page = page_of(spoilt(), tmp_path)
    assert not re.search(r"https?://|url\(|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "base", "form"}
    sources = [attributes[name] for _, attributes in page.elements for name in ("src", "srcset") if name in attributes]
    assert sources
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [str(attributes["href"]) for _, attributes in page.elements if "href" in attributes]
    assert len(links) > 20
    assert {link[0] for link in links} == {"#"}
    assert {link[1:] for link in links} <= ids
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "style"]


def test_the_policy_names_the_digests_of_the_style_and_the_script(tmp_path: Path) -> None:
    html, page = page_of(spoilt(), tmp_path)
    [policy] = [str(attributes["content"]) for _, attributes in page.elements if "http-equiv" in attributes]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("script", "style"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_no_path_of_the_machine_reaches_the_page_or_the_json(tmp_path: Path) -> None:
    planted = spoilt()
    html, _ = page_of(planted, tmp_path)
    assert str(tmp_path) not in html
    assert tmp_path.name not in html
    assert str(tmp_path) not in str(audit(tmp_path).to_json())


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    planted = spoilt()
    planted.name = HOSTILE
    for number, changes in (
        (2, {"label": HOSTILE}),
        (3, {"licence": HOSTILE}),
        (4, {"codec": HOSTILE, "container": HOSTILE, "organ": HOSTILE}),
    ):
        planted.set_video(number, **changes)
    planted.videos[0] |= {"path": HOSTILE, "reason": HOSTILE}
    for row in planted.frames:
        if row["video_id"] == "clinic/v05":
            row["video_id"] = HOSTILE
    planted.videos[5]["video_id"] = HOSTILE
    planted.duplicates = [duplicate("clinic/v04", HOSTILE)]
    for row in planted.excluded:
        if row["video_id"] == "clinic/v05":
            row["video_id"] = HOSTILE
    html, page = page_of(planted, tmp_path)
    assert HOSTILE not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 10
    assert not [attributes for tag, attributes in page.elements if tag == "img" and attributes.get("src") == "x"]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]


def test_equal_sets_give_equal_pages(tmp_path: Path) -> None:
    first, _ = page_of(spoilt(), tmp_path / "one")
    other = spoilt()
    other.videos.reverse()
    second, _ = page_of(other, tmp_path / "two")
    assert first == second
    again = audit(tmp_path / "one").report
    assert again is not None
    assert again.read_text(encoding="utf-8") == first


def test_thumbnails_are_small_copies_of_the_stored_images(tmp_path: Path) -> None:
    planted = Planted(clips=4)
    for row in planted.frames:
        row["width"], row["height"] = 400, 300
    html, _ = page_of(planted, tmp_path)
    coded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    sheet = [cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE) for text in coded]
    assert len(sheet) == 12 + 4 + 4
    assert {image.shape for image in sheet} == {(240, 320)}
    stored = cv2.imread(str(tmp_path / planted.frames[0]["path"]), cv2.IMREAD_GRAYSCALE)
    expected = cv2.resize(stored, (320, 240), interpolation=cv2.INTER_AREA)
    assert np.abs(sheet[0].astype(int) - expected).mean() < 12


def test_a_page_of_the_size_of_us4_stays_under_10_mb_however_long_its_names(tmp_path: Path) -> None:
    # 1,051 clips, pictures that hardly compress, names that grow fivefold when they are escaped.
    planted = Planted(clips=1051)
    name = "'" * 300
    for number, clip in enumerate(planted.videos):
        before, clip["video_id"] = clip["video_id"], f"clinic/{number}{name}"
        # One group a label leaves nothing for the shortcut probe to learn, which would take its time.
        label = f"class {number // 20:02} {name}"
        for row in planted.frames[3 * number : 3 * number + 3]:
            assert row["video_id"] == before
            row |= {"video_id": clip["video_id"], "width": 640, "height": 480, "path": f"images/{number % 12}.png", "label": label}
        clip |= {
            "label": label,
            "status": "ok",
            "flags": ["short", "frozen"],
            "review": "needed",
            "review_reason": name,
            "frames_unique": 4,
        }
    planted.excluded = []
    planted.duplicates = [duplicate(clip["video_id"], planted.videos[0]["video_id"]) for clip in planted.videos[1:101]]
    planted.write(tmp_path, images=False)
    (tmp_path / "images").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (480, 640), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    report = audit(tmp_path).report
    assert report is not None
    html = report.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") > 60
    assert 3_000_000 < len(html.encode()) < 10_000_000


def test_every_clip_has_a_row_and_of_too_many_those_that_need_attention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planted = spoilt()
    planted.set_video(7, review="needed", review_reason="text inside")
    planted.set_video(8, flags=["frozen"])
    tables = prepare(open_dataset(planted.write(tmp_path)))
    rows = clip_rows(tables.videos)
    assert [row["clip"] for row in rows] == [f"clinic/v{number:02}" for number in range(10)]
    assert rows[0] | {"reason": "moov atom not found", "status": "failed", "frames": 0} == rows[0]
    assert (rows[7]["review"], rows[8]["flags"], rows[9]["fps"], rows[9]["frames"]) == ("needed: text inside", "frozen", 25.0, 3)
    monkeypatch.setattr("usdata.auditing.clip_table.CLIPS_SHOWN", 4)
    assert [row["clip"][-3:] for row in clip_rows(tables.videos)] == ["v00", "v04", "v07", "v08"]
    page = Page(render(tables, statistics(tables), []))
    assert "4 of 10 clips: first those that failed or were excluded" in page.text


NEW_STATISTICS: dict[str, Any] = {
    "surroundings": {
        "saw": "A random forest saw only what lies outside the field of view.",
        "clips": 40,
        "folds": 4,
        "labels": ["benign", "malignant"],
        "majority": 0.5,
        "by_group": {"accuracy": 0.71, "balanced_accuracy": 0.7, "p_value": 0.00001},
        "by_clip": {"accuracy": 0.93, "balanced_accuracy": 0.9, "p_value": 0.2},
    },
    "privacy": {"statement": ["No name reaches <the> set."], "rows": [{"what": "tags removed", "value": 1234}]},
    "attribution": [
        {"source": "one", "licence": "CC0", "citation": None, "homepage": "https://example.org/a", "clips": 3, "frames": 4},
        {"source": "two", "licence": None, "citation": "Someone, 2020", "homepage": "javascript:alert(1)", "clips": 5, "frames": 6},
    ],
    "against": {
        "other": "old<set>",
        "shared": [{"what": "patients", "number": 7}],
        "pairs": [{"a": "x/1", "b": "y/2", "kind": "content", "score": 0.934, "labels": ["benign", None], "patients": ["p1", "p1"]}],
    },
    "label_levels": {"sentence": "Labels are given for each clip."},
}


def test_the_page_shows_what_the_audit_may_know_beside(tmp_path: Path) -> None:
    tables = prepare(open_dataset(Planted().write(tmp_path)))
    counted = statistics(tables) | NEW_STATISTICS
    counted["flow"] |= {
        "stages": [
            {"stage": "found", "clips": 12, "frames": None, "left_out": []},
            {"stage": "decoded", "clips": 10, "frames": 120, "left_out": [{"reason": "could not <be> read", "clips": 2, "frames": 0}]},
            {
                "stage": "split",
                "clips": 10,
                "frames": 30,
                "left_out": [{"reason": "not sampled", "clips": 0, "frames": 90}],
                "parts": [{"split": "train", "clips": 10, "frames": 30}],
            },
        ]
    }
    html = render(tables, counted, [])
    page = Page(html)
    for text in (
        "A random forest saw only what lies outside the field of view. It answered the label of 40 clips, in 4 folds.",
        "by clip: groups on both sides 93% 90% 0.200",
        "No name reaches <the> set.",
        "tags removed 1,234",
        "two none given Someone, 2020 5 6",
        "What of it stands in old<set>?",
        "x/1 y/2 content 0.93 benign / – p1",
        "Labels are given for each clip.",
        "− 2 clips: could not <be> read",
        "− 90 frames: not sampled",
        "train: 10 clips (30 frames)",
    ):
        assert text in page.text
    assert [attributes["href"] for _, attributes in page.elements if "rel" in attributes] == ["https://example.org/a"]
    # Of twelve found ten went on: five sixths of the bar, and the rest of it is what was left out.
    assert re.findall(r'class="(?:kept|excluded)" x="[\d.]+%" width="([\d.]+)%"', html)[:3] == ["100.000", "83.333", "16.667"]


def test_without_pictures_no_image_is_read(tmp_path: Path) -> None:
    tables = prepare(open_dataset(Planted().write(tmp_path, images=False)))
    page = Page(render(tables, statistics(tables), [], pictures=False))
    assert [attributes for tag, attributes in page.elements if tag == "img" and attributes.get("src")] == []
    assert "What does it look like?" not in page.text
    assert "How much is there of what?" in page.text


def test_characters_that_cannot_be_seen_are_spelt_out() -> None:
    assert visible("cov\u202e4pm.exe") == "cov[U+202E]4pm.exe"
    assert visible("a\x00b\x1b[2J\u2028c\td") == "a[U+0000]b[U+001B][2J[U+2028]c d"
    assert visible("Fu\xdf, \u0646\u0645\u200c\u0647\u0627, \u808c\u8089") == "Fu\xdf, \u0646\u0645\u200c\u0647\u0627, \u808c\u8089"
    assert len(visible("x" * 5000)) == 600
    assert breakable("<a>_and_b/long.name-c") == "&lt;a&gt;_<wbr>and_<wbr>b/<wbr>long.<wbr>name-<wbr>c"
    assert breakable("a short-ish end.") == "a short-ish end."


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, 10), st.integers(0, 2000))
def test_rows_that_fit_are_the_first_ones_within_both_bounds(rows: list[str], most_rows: int, most_bytes: int) -> None:
    shown = fitting(rows, most_rows, most_bytes)
    assert shown == rows[: len(shown)]
    assert len(shown) <= most_rows
    assert sum(len(str(escape(visible(row))).encode()) for row in shown) <= most_bytes


def test_the_page_shows_the_shortcut_probe_where_it_was_measured(tmp_path: Path) -> None:
    planted = Planted(clips=12)
    for clip in planted.videos:
        clip["codec"] = "mpeg4" if clip["label"] == "malignant" else "h264"
    _, page = page_of(planted, tmp_path)
    assert "It answered the label of 12 clips, in 3 folds." in page.text
    assert "always the most frequent label 50% 50%" in page.text
    assert "V = 1.00" in page.text
    _, page = page_of(Planted(), tmp_path / "few")
    assert "Not measured. It needs two labels with at least 3 groups each, and 1 of 2 labels have that many." in page.text


def test_audit_without_a_report_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    Planted().write(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert audit(tmp_path, write_report=False).report is None
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def all_failed(planted: Planted) -> None:
    for number in range(len(planted.videos)):
        planted.set_video(number, status="failed", reason="cut off", frames_kept=0)
    planted.frames, planted.excluded = [], []


def no_frames(planted: Planted) -> None:
    planted.frames, planted.excluded = [], []
    for number in range(len(planted.videos)):
        planted.set_video(number, frames_decoded=0, frames_unique=0, frames_kept=0, fps=None, duration_s=None, width=None, height=None)


def no_labels(planted: Planted) -> None:
    for number in range(len(planted.videos)):
        planted.set_video(number, label=None)


def nothing(planted: Planted) -> None:
    planted.videos, planted.frames, planted.excluded = [], [], []


def one_clip(planted: Planted) -> None:
    planted.videos = planted.videos[:1]
    planted.frames = [row for row in planted.frames if row["video_id"] == "clinic/v00"]
    planted.excluded = [row for row in planted.excluded if row["video_id"] == "clinic/v00"]


def one_still(planted: Planted) -> None:
    one_clip(planted)
    planted.set_video(0, codec="png", container="png", frames_decoded=1, frames_unique=1, fps=None, duration_s=None, patient_id=None)
    planted.frames, planted.excluded = planted.frames[:1], []


def no_folds(planted: Planted) -> None:
    for row in planted.frames:
        row["fold"] = None


@pytest.mark.parametrize("make", [all_failed, no_frames, no_labels, nothing, one_clip, one_still, no_folds], ids=lambda make: make.__name__)
def test_sets_that_are_nearly_empty(make: object, tmp_path: Path) -> None:
    planted = Planted()
    assert callable(make)
    make(planted)
    _, page = page_of(planted, tmp_path)
    assert f"{len(planted.videos)} file" in page.text or "no clip" in page.text.lower()
    assert "nan" not in re.findall(r"\b\w+\b", page.text.lower())
    assert len(terminal_text(tmp_path)) > 50


def test_images_that_are_missing_or_broken_are_left_out_of_the_sheets(tmp_path: Path) -> None:
    planted = Planted(clips=4)
    planted.write(tmp_path)
    (tmp_path / planted.frames[0]["path"]).unlink()
    (tmp_path / planted.frames[1]["path"]).write_bytes(b"")
    (tmp_path / planted.frames[2]["path"]).write_bytes(b"no image")
    report = audit(tmp_path).report
    assert report is not None
    html = report.read_text(encoding="utf-8")
    Page(html)
    assert "v01, frame 0" in html
    assert "v00, frame" not in html


def terminal_text(folder: Path, width: int = 80) -> str:
    stream = io.StringIO()
    print_audit(audit(folder, write_report=False), Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


def test_the_terminal_fits_80_columns_and_lists_failed_files(tmp_path: Path) -> None:
    planted = spoilt()
    for number in (1, 2):
        planted.set_video(number, status="failed", reason="a long reason " * 8, path="deep/" * 30 + f"{number}.mp4", frames_kept=0)
        planted.drop_frames(f"clinic/v{number:02}")
    text = terminal_text(planted.write(tmp_path))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.startswith("planted: 7 clips of breast ultrasound")
    assert "clinic/v00.mp4: moov atom not found" in text
    flat = "".join(text.split())
    assert "deep/" * 30 + "1.mp4:alongreason" in flat
    assert "filesfound10:7kept,3failed" in flat
    assert text.index("error") < text.index("warning  ")
    assert "(duplicate-clips)" in text


def test_at_most_ten_failed_files_are_listed_on_the_terminal(tmp_path: Path) -> None:
    planted = Planted(clips=13)
    for number in range(13):
        planted.set_video(number, status="failed", reason="cut off", frames_kept=0)
        planted.drop_frames(f"clinic/v{number:02}")
    text = terminal_text(planted.write(tmp_path))
    assert text.count(": cut off") == 10
    assert "and 3 more" in text
    [failed] = [finding for finding in audit(tmp_path).to_json()["findings"] if finding["id"] == "failed-clips"]
    assert len(failed["rows"]) == 13


def test_hostile_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    planted = spoilt()
    planted.name = "\x1b[2Jset"
    planted.set_video(2, label="[red]no markup[/red]")
    planted.videos[0] |= {"path": "a\x1b]0;title\x07\n.mp4"}
    text = terminal_text(planted.write(tmp_path))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]no markup[/red]" in text


def test_charts_draw_their_numbers() -> None:
    bar = str(stacked_bar([("kept", 30, "kept"), ("none", 0, "blank"), ("failed", 10, "failed")], "<what>"))
    assert re.findall(r' x="([\d.]+)%" width="([\d.]+)%"', bar) == [("0.000", "75.000"), ("75.000", "25.000")]
    assert 'aria-label="&lt;what&gt;: kept 30; failed 10"' in bar
    assert re.findall(r' width="([\d.]+)%"', str(stacked_bar([("a", 10, "kept")], "of more", 40))) == ["25.000"]
    assert re.findall(r'width="([\d.]+)%"', str(rate_bar(0.59, "kept", "half", 0.45)))[1] == "59.00"
    assert 'x1="45.00%"' in str(rate_bar(0.59, "kept", "half", 0.45))
    picture = str(
        histogram({"counts": [4, 0, 2], "edges": [0.0, 1.0, 2.0, 3.0], "median": 0.5, "min": 0.0, "max": 3.0, "question": "How <long>?"})
    )
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', picture)]
    assert heights == [88.0, 44.0]
    assert "How &lt;long&gt;?" in picture


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_whole_numbers_are_counted_as_numpy_counts_them(numbers: list[int]) -> None:
    distribution = whole_numbers(numbers, "How many?")
    assert distribution is not None
    expected, _ = np.histogram(numbers, bins=distribution["edges"])
    assert distribution["counts"] == expected.tolist()
    assert len(distribution["counts"]) <= 24
    assert distribution["median"] == np.median(numbers)
    assert (distribution["min"], distribution["max"], distribution["count"]) == (min(numbers), max(numbers), len(numbers))
    assert whole_numbers([], "How many?") is None


def test_bars_of_labels_part_by_source_and_sum_up_the_rest() -> None:
    rows = [{"source": f"s{number}", "label": label, "clips": 10 * number + 1} for number in range(10) for label in ("a", "b")]
    bars = label_bars(rows, ["b", "a"])
    assert [label for label, _, _ in bars.rows] == ["b", "a"]
    assert [name for name, _, _ in bars.sources] == ["s9", "s8", "s7", "s6", "s5", "s4", "s3", "3 more sources"]
    assert bars.widest == sum(10 * number + 1 for number in range(10))
    assert all(sum(number for _, number, _ in parts) == clips for _, clips, parts in bars.rows)
    assert bars.rows[0][2][-1] == ("other sources", 1 + 11 + 21, "rest")
