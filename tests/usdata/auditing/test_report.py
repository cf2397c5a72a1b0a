"""The page and the terminal: inert for hostile data, self-contained, equal for equal sets, and there for sets that are nearly empty."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from tests.usdata.auditing.planted import Planted, duplicate
from usdata.auditing import audit, print_audit
from usdata.auditing.charts import histogram, stacked_bar

HOSTILE = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "wbr", "link", "hr", "rect", "line"}


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


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    html, page = page_of(spoilt(), tmp_path)
    assert not re.search(r"https?://|url\(|@import", html)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base"}
    sources = [attributes[name] for _, attributes in page.elements for name in ("src", "href", "srcset") if name in attributes]
    assert sources
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


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
    assert {image.shape for image in sheet} == {(128, 171)}
    stored = cv2.imread(str(tmp_path / planted.frames[0]["path"]), cv2.IMREAD_GRAYSCALE)
    expected = cv2.resize(stored, (171, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(sheet[0].astype(int) - expected).mean() < 12


def test_a_page_of_many_labels_and_large_images_stays_small(tmp_path: Path) -> None:
    planted = Planted(clips=120)
    for number in range(120):
        planted.set_video(number, label=f"class {number // 2:02}")
    for row in planted.frames:
        row["width"], row["height"] = 256, 128
        row["path"] = f"images/{int(row['video_id'][-2:]) % 4}_{row['frame_index']}.png"
    html, _ = page_of(planted, tmp_path)
    assert len(html) < 5_000_000


def test_the_page_shows_the_shortcut_probe_where_it_was_measured(tmp_path: Path) -> None:
    planted = Planted(clips=12)
    for clip in planted.videos:
        clip["codec"] = "mpeg4" if clip["label"] == "malignant" else "h264"
    _, page = page_of(planted, tmp_path)
    assert "answers the label of 12 clips, in 3 folds" in page.text
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
    widths = [float(width) for width in re.findall(r' width="([\d.]+)"', bar)]
    assert widths == [748.5, 248.5]
    assert "&lt;what&gt;" in bar
    picture = str(
        histogram({"counts": [4, 0, 2], "edges": [0.0, 1.0, 2.0, 3.0], "median": 0.5, "min": 0.0, "max": 3.0, "question": "How <long>?"})
    )
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', picture)]
    assert heights == [88.0, 44.0]
    assert "How &lt;long&gt;?" in picture
