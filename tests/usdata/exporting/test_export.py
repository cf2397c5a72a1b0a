"""What every format does with wrong requests and damaged sets: one line, and nothing is left."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import usdata
from tests.command_lines import run_here
from tests.usdata.auditing.planted import Planted
from tests.usdata.exporting.odd_set import odd_set, pixels_of
from usdata import manifest
from usdata.errors import UserError
from usdata.exporting import FORMATS
from usdata.exporting.images import _png_size, stored_png
from usdata.exporting.licences import known_licence

WITH_PICTURES = sorted(name for name, form in FORMATS.items() if form.pictures)


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_wrong_requests_leave_nothing(to: str, odd: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    cases = [("full", "png", "not empty"), ("file", "png", "not empty"), ("out", "gif", "known are: jpg, png")]
    if not FORMATS[to].lossy:
        cases.append(("out", "jpg", "keeps every pixel"))
    for out, images, said in cases:
        with pytest.raises(UserError, match=said):
            usdata.export(odd, to=to, out=tmp_path / out, images=images)
    with pytest.raises(UserError, match="inside the data set"):
        usdata.export(odd, to=to, out=odd / "images" / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"


@pytest.mark.parametrize("to", WITH_PICTURES)
@pytest.mark.parametrize("harm", ["missing", "cut", "changed", "another size", "no picture"])
def test_a_damaged_image_is_named(harm: str, to: str, tmp_path: Path) -> None:
    dataset = odd_set(tmp_path / "set")
    path = sorted((tmp_path / "set").rglob("*.png"))[5]
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "another size":
        (other := Planted(clips=1)).frames[0] |= {"width": 32}
        path.write_bytes((other.write(tmp_path / "other") / other.frames[0]["path"]).read_bytes())
        shutil.rmtree(tmp_path / "other")
    else:
        path.write_bytes({"cut": content[:-40], "changed": content[:90] + b"\0\0\0\0" + content[94:], "no picture": b""}[harm])
    with pytest.raises(UserError, match=r"this image of the data set is (missing|damaged|32 x 48)") as raised:
        usdata.export(dataset, to=to, out=tmp_path / "out")
    assert str(path) in str(raised.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("to", WITH_PICTURES)
@pytest.mark.parametrize("path", ["/etc/hostname", "images/../../secret.png", "images\\..\\secret.png", "images/\0.png"])
def test_a_path_that_leaves_the_set_is_refused(path: str, to: str, tmp_path: Path) -> None:
    planted = Planted(clips=1)
    dataset = planted.write(tmp_path / "set")
    planted.frames[1] |= {"path": path}
    planted.write(dataset, images=False)
    with pytest.raises(UserError, match="leaves the data set"):
        usdata.export(dataset, to=to, out=tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("to", ["coco", "huggingface", "webdataset"])
def test_a_split_that_the_contract_does_not_know_is_refused(to: str, tmp_path: Path) -> None:
    planted = Planted(clips=2)
    planted.frames[1] |= {"split": "holdout"}
    with pytest.raises(UserError, match="names the split 'holdout'"):
        usdata.export(planted.write(tmp_path / "set"), to=to, out=tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_a_set_without_frames(to: str, tmp_path: Path) -> None:
    planted = Planted(clips=2)
    planted.frames = []
    for clip in planted.videos:
        clip["frames_kept"] = 0
    dataset = planted.write(tmp_path / "set")
    if FORMATS[to].pictures:
        with pytest.raises(UserError, match="holds no frames"):
            usdata.export(dataset, to=to, out=tmp_path / "out")
        assert [entry.name for entry in tmp_path.iterdir()] == ["set"]
    else:
        assert usdata.export(dataset, to=to, out=tmp_path / "out").frames == 0


def test_the_command_lists_every_format_and_ends_with_the_next_step(odd: Path, tmp_path: Path) -> None:
    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run_here("usdata", "export", *arguments)

    told = " ".join(command("--help").stdout.split())
    assert all(f"{name}:" in told for name in FORMATS)
    done = command(odd, "--to", "manifest", "--out", tmp_path / "published")
    assert (done.returncode, done.stderr) == (0, "")
    assert "24 frames of 8 clips" in done.stdout
    again = command(odd, "--to", "huggingface", "--out", tmp_path / "published")
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)


@given(st.data())
def test_any_changed_or_missing_byte_of_a_png_is_noticed(data: st.DataObject) -> None:
    import cv2

    content = cv2.imencode(".png", pixels_of(1, 9, 7))[1].tobytes()
    assert _png_size(content) == (7, 9)
    at = data.draw(st.integers(0, len(content) - 1))
    assert _png_size(content[:at]) is None
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))
    # A length that points behind the file or into a wrong checksum is noticed like any other byte.
    assert _png_size(bytes(changed)) is None


def test_a_stored_image_comes_as_its_own_bytes(odd: Path) -> None:
    row = manifest.open_dataset(odd).frames.iloc[3]
    assert stored_png(odd, row.path, 64, 48) == (odd / row.path).read_bytes()


@pytest.mark.parametrize(
    ("name", "identifier", "url"),
    [
        ("CC BY 4.0", "cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/"),
        ("cc_by-nc-sa 3.0", "cc-by-nc-sa-3.0", "https://creativecommons.org/licenses/by-nc-sa/3.0/"),
        ("CC BY-NC-ND 2.5", None, "https://creativecommons.org/licenses/by-nc-nd/2.5/"),
        ("CC0-1.0", "cc0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    ],
)
def test_licences_that_are_known(name: str, identifier: str | None, url: str) -> None:
    known = known_licence(name)
    assert known is not None
    assert (known.identifier, known.url) == (identifier, url)


@pytest.mark.parametrize("name", ["", "CC BY", "CC BY-SA-NC 4.0", "CC BY 4.0 or ask", "by hand", "CC BY-ND-SA 4.0"])
def test_licences_that_are_not_known_for_certain(name: str) -> None:
    assert known_licence(name) is None


@pytest.mark.parametrize("to", ["webdataset", "huggingface", "folders"])
def test_no_room_names_the_place(odd: Path, tmp_path: Path, to: str) -> None:
    """A file may not grow beyond 200 bytes here, as on a disk that is full; nothing half-written stays."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); from usdata.cli import app; app()"
    command = [sys.executable, "-c", code, "export", str(odd), "--to", to, "--out", str(tmp_path / "out")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode in (1, 2)
    assert told.stderr.splitlines()[-1].startswith(f"error: {tmp_path}")
    assert "Traceback" not in told.stderr
    assert list(tmp_path.iterdir()) == []
