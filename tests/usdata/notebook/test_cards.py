"""Sets and audits in a notebook: executed by a real kernel; what comes from the data is text, never markup."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import usdata
from tests.usdata.auditing.planted import Planted
from usdata.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[3]
HOSTILE = "<img src=x onerror=alert(1)>\"'&\x1b[2J"
ALLOWED = {"div", "span", "table", "thead", "tbody", "tr", "th", "td", "img", "details", "summary", "ul", "li", "code"}
ATTRIBUTES = {"style", "src", "alt", "title"}


class Reader(HTMLParser):
    """What a browser would see: elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def is_harmless(self) -> bool:
        sources = [value for name, value in self.attributes if name == "src"]
        return (
            set(self.tags) <= ALLOWED
            and {name for name, _ in self.attributes} <= ATTRIBUTES
            and all(source.startswith("data:image/jpeg;base64,") for source in sources)
        )


def planted() -> Planted:
    """Ten clips of five patients, two labels, two folds."""
    made = Planted()
    for row in made.frames:
        row["split"] = "test" if row["patient_id"] == "p4" else "train"
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted().write(tmp_path_factory.mktemp("cards") / "set")


def test_a_kernel_shows_the_set_and_its_audit(folder: Path) -> None:
    cells = [
        f"import usdata\ndata = usdata.load({str(folder)!r})\ndata",
        "data.audit()",
        "data.sheet(data.frames.query(\"label == 'benign'\"), columns=4)",
        "len(data.videos), len(data.frames), len(data.excluded), len(data.duplicates)",
        "usdata.compare(data.folder, data.folder)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(REPOSITORY)}}).execute()
    shown: list[dict[str, Any]] = [cell.outputs[-1]["data"] for cell in notebook.cells]
    for html in (shown[0]["text/html"], shown[1]["text/html"], shown[2]["text/html"]):
        assert Reader(html).is_harmless()
    card, audit, sheet = (Reader(data["text/html"]) for data in shown[:3])
    assert "planted" in card.text
    assert "10 clips of 10 files found, 30 frames, in 5 groups with 5 known patients, from 1 source (clinic)" in card.text
    assert card.tags.count("img") == 12
    assert sheet.tags.count("img") == 18
    assert "Audit of planted" in audit.text
    for finding in usdata.audit(folder, write_report=False).findings:
        assert finding.id in audit.text
        assert finding.message in audit.text
    assert shown[0]["text/plain"].startswith("<DataSet planted: 2 classes; digest ")
    assert max(len(data["text/plain"]) for data in shown) < 200  # and not all that a data class holds
    assert shown[3]["text/plain"] == "(10, 30, 90, 0)"
    assert "nothing differs" in shown[4]["text/plain"]
    assert not (folder / "report.html").exists()


def test_counts_are_those_of_the_tables(folder: Path) -> None:
    data = usdata.load(folder)
    words = Reader(data._repr_html_()).words
    for label, rows in data.frames.groupby("label"):
        place = words.index(str(label))
        groups, clips, frames = (rows[name].nunique() for name in ("group_id", "video_id", "frame_id"))
        assert words[place - 1 : place + 4] == ["clinic", label, str(groups), str(clips), str(frames)]
    for name in ("split train", "split test", "fold 0", "fold 1"):
        column, _, value = name.partition(" ")
        rows = data.frames[data.frames[column].astype(str) == value]
        place = words.index(name)
        assert words[place + 1 : place + 4] == [str(rows[key].nunique()) for key in ("group_id", "video_id", "frame_id")]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    made = planted()
    made.name = HOSTILE
    for number in range(10):
        made.set_video(number, label=HOSTILE, group_id=HOSTILE, organ=HOSTILE)
        made.videos[number] |= {"licence": HOSTILE, "probe": HOSTILE}
    made.frames[0] |= {"frame_id": HOSTILE, "split": HOSTILE, "path": f"images/{HOSTILE}.png"}
    made.videos[3] |= {"status": "failed", "reason": HOSTILE, "path": HOSTILE, "frames_kept": 0}
    made.drop_frames(made.videos[3]["video_id"])
    data = usdata.load(made.write(tmp_path / "set"))
    for html in (data._repr_html_(), data.sheet(slice(0, 4)).text, data.audit()._repr_html_()):
        reader = Reader(html)
        assert reader.is_harmless()
        assert "onerror=alert(1)" in reader.text + " ".join(value for name, value in reader.attributes if name in ("alt", "title"))
        assert "\x1b" not in html
    assert "\x1b" not in repr(data)
    assert "\x1b" not in repr(data.audit())


def test_pictures_that_are_not_here_are_said(folder: Path, tmp_path: Path) -> None:
    data = usdata.load(planted().write(tmp_path / "set", images=False))
    reader = Reader(data._repr_html_())
    assert "img" not in reader.tags
    assert reader.text.count("this image is missing") == 12


def test_sets_without_frames_and_without_labels_have_a_card(tmp_path: Path) -> None:
    empty = planted()
    empty.frames = []
    assert Reader(usdata.load(empty.write(tmp_path / "empty"))._repr_html_()).is_harmless()
    bare = planted()
    for number in range(10):
        bare.set_video(number, label=None, patient_id=None)
    for row in bare.frames:
        row["fold"] = None
    text = Reader(usdata.load(bare.write(tmp_path / "bare"))._repr_html_()).text
    assert "unlabelled" in text
    assert "0 known patients" in text
    assert "fold 0" not in text


def test_sheets_have_bounds(folder: Path) -> None:
    data = usdata.load(folder)
    assert Reader(data.sheet().text).tags.count("img") == 24
    many = data.sheet(list(range(30)) * 10)
    assert Reader(many.text).tags.count("img") == 240
    assert "and 60 more frames" in Reader(many.text).text
    with pytest.raises(UserError, match="no number of columns"):
        data.sheet(columns=0)
