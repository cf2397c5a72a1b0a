"""Downloads from a server with every fault: each ends in exactly the right file, or in one line and no file."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import usdata
from tests.usdata.pulling.faulty_server import Served, serving
from usdata.cataloguing import CatalogEntry
from usdata.errors import UserError
from usdata.phantoms import us4
from usdata.phantoms.us4 import plan_us4
from usdata.pulling import PullResult, print_pull

REPOSITORY = Path(__file__).resolve().parents[3]
CONTENT = random.Random(1).randbytes(60_000)
OTHER = random.Random(2).randbytes(61_234)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(Served(CONTENT, next_content=OTHER)) as server:
        yield server


def entry(*addresses: str, sha256: str | None = None, size: int | None = None, **changes: object) -> CatalogEntry:
    facts = {
        "name": "test",
        "title": "Test",
        "organs": ["lung"],
        "holds": "videos",
        "description": "d",
        "licence": "CC0",
        "redistribution": "yes",
        "access": "direct",
        "citation": "c",
        "layout": "unknown",
        "facts_from": ["here"],
        "files": [{"urls": list(addresses), "to": "clip.mp4", "sha256": sha256, "bytes": size}],
    }
    return CatalogEntry.model_validate(facts | changes)


def get(what: CatalogEntry, folder: Path, **further: object) -> PullResult:
    options = {"allow_http": True, "sleep": lambda seconds: None, "timeout_s": 0.5, "attempts": 4} | further
    return usdata.pull(what, to=folder, **options)  # type: ignore[arg-type]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def got(folder: Path) -> bytes | None:
    path = folder / "test" / "clip.mp4"
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["drop"],
        ["drop", "drop", "drop"],
        ["stall"],
        ["hang up", "hang up"],
        ["500", "503", "drop"],
        ["drop", "whole"],
        ["drop", "wrong range"],
        ["416"],
        ["drop", "416"],
        ["says more"],
        ["moved", "drop", "moved"],
        ["drop", "503", "drop", "500", "whole"],
    ],
)
def test_faults_that_pass_end_in_the_right_file(faults: list[str], known: bool, served: Served, tmp_path: Path) -> None:
    served.faults = list(faults)
    result = get(entry(f"{served.address}/clip.mp4", sha256=digest(CONTENT) if known else None), tmp_path)
    assert got(tmp_path) == CONTENT
    assert result.complete
    assert sorted(path.name for path in (tmp_path / "test").iterdir()) == [".usdata-pull.json", "clip.mp4"]
    if faults[:1] == ["drop"] and len(faults) == 1:
        assert served.requests[1]["range"] == "bytes=5000-"
        assert served.requests[1]["if-range"] == '"one"'
    before = len(served.requests)
    assert get(entry(f"{served.address}/clip.mp4", sha256=digest(CONTENT) if known else None), tmp_path).complete
    assert len(served.requests) == before, "what is there is not fetched again"


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["404"], "there is no such file (404)"),
        (["403"], "is not given to everybody (403)"),
        (["page"], "answers with a web page"),
        (["gzip"], "in the encoding 'gzip'"),
        (["loop"], "redirects more than 10 times"),
        (["away"], "is no address of the web"),
        (["500"] * 9, "given up after 4 failures in a row"),
        (["stall"] + ["hang up"] * 9, "cannot be reached"),
    ],
)
def test_faults_that_stay_are_one_line_and_leave_no_file(faults: list[str], said: str, served: Served, tmp_path: Path) -> None:
    served.faults = list(faults)
    with pytest.raises(UserError) as caught:
        get(entry(f"{served.address}/clip.mp4"), tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / "test" / "clip.mp4") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert got(tmp_path) is None


@pytest.mark.parametrize("etag", ['"one"', 'W/"one"', None])
def test_a_file_that_changes_midway_is_never_two_halves(etag: str | None, served: Served, tmp_path: Path) -> None:
    served.etag, served.faults = etag, ["change"]
    if etag is None:  # with nothing that tells versions apart, two lengths are a contradiction
        with pytest.raises(UserError, match="contradicts itself"):
            get(entry(f"{served.address}/clip.mp4"), tmp_path)
        assert got(tmp_path) is None
    else:
        get(entry(f"{served.address}/clip.mp4"), tmp_path)
        assert got(tmp_path) == OTHER
    assert "if-range" not in served.requests[1] or etag == '"one"', "a weak or missing tag proves nothing"


def test_a_length_that_lies_below_the_known_one_is_refused(served: Served, tmp_path: Path) -> None:
    served.faults = ["says less"] * 9
    for known in ({"sha256": digest(CONTENT)}, {"size": len(CONTENT)}):
        with pytest.raises(UserError):
            get(entry(f"{served.address}/clip.mp4", **known), tmp_path)  # type: ignore[arg-type]
        assert got(tmp_path) is None


@pytest.mark.parametrize("seed", range(60))
def test_any_sequence_of_faults_ends_in_a_right_file_or_an_error(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    kinds = ["drop", "whole", "wrong range", "416", "says more", "says less", "500", "503", "hang up", "change", "moved", "gzip", ""]
    with serving(Served(CONTENT, next_content=OTHER, after=draw.randrange(1, 60_000))) as served:
        served.etag = draw.choice(['"one"', 'W/"one"', None])
        served.faults = [draw.choice(kinds) for _ in range(draw.randrange(1, 9))]
        wanted = entry(f"{served.address}/clip.mp4", sha256=digest(draw.choice([CONTENT, OTHER])))
        for _ in range(3):  # a user tries again
            try:
                get(wanted, tmp_path)
            except UserError:
                assert got(tmp_path) is None
            else:
                assert digest(got(tmp_path) or b"") == wanted.files[0].sha256
                break


def test_the_next_mirror_is_asked_and_a_folder_can_be_one(served: Served, tmp_path: Path) -> None:
    served.faults = ["404"]
    get(entry(f"{served.address}/gone.mp4", f"{served.address}/clip.mp4"), tmp_path / "one")
    assert got(tmp_path / "one") == CONTENT
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "clip.mp4").write_bytes(CONTENT)
    before = len(served.requests)
    for number, place in enumerate([str(tmp_path / "share"), (tmp_path / "share").as_uri()]):
        get(entry(f"{served.address}/clip.mp4"), tmp_path / f"from{number}", mirrors={"test": place}, allow_http=False)
        assert got(tmp_path / f"from{number}") == CONTENT
    assert len(served.requests) == before


def test_what_is_not_protected_is_not_followed_unasked(served: Served, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not protected by https.*--allow-http"):
        get(entry(f"{served.address}/clip.mp4"), tmp_path, allow_http=False)
    assert served.requests == []


def test_a_file_that_differs_from_what_was_recorded_is_told_and_kept(served: Served, tmp_path: Path) -> None:
    wanted = entry(f"{served.address}/clip.mp4")
    get(wanted, tmp_path)
    assert json.loads((tmp_path / "test" / ".usdata-pull.json").read_text())["files"]["clip.mp4"]["sha256"] == digest(CONTENT)
    (tmp_path / "test" / "clip.mp4").write_bytes(b"changed here")
    with pytest.raises(UserError, match="its sha256 begins with"):
        get(wanted, tmp_path)
    assert got(tmp_path) == b"changed here"
    (tmp_path / "test" / "clip.mp4").unlink()
    served.content = OTHER
    with pytest.raises(UserError, match=r"as .usdata-pull.json .remove it to take the new file. says"):
        get(wanted, tmp_path)
    assert got(tmp_path) is None


@pytest.mark.parametrize("redistribution", ["nc", "nd", "no", "mixed", "unknown"])
def test_a_licence_that_forbids_something_is_shown_and_must_be_accepted(
    redistribution: str, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = entry(f"{served.address}/clip.mp4", redistribution=redistribution, licence="CC BY-NC-ND 4.0")
    with pytest.raises(UserError, match=r"its licence is 'CC BY-NC-ND 4.0'.*--accept-licence"):
        get(wanted, tmp_path)
    assert served.requests == []
    assert "CC BY-NC-ND 4.0" in capsys.readouterr().err
    assert get(wanted, tmp_path, accept_licence=True).complete


PULL = """
import sys
from pathlib import Path
import usdata
from tests.usdata.pulling.test_faults import entry
usdata.pull(entry(sys.argv[1]), to=sys.argv[2], allow_http=True)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_pull_that_was_ended_goes_on_with_the_rest(end: signal.Signals, served: Served, tmp_path: Path) -> None:
    served.delay_s = 0.15
    command = [sys.executable, "-c", PULL, f"{served.address}/clip.mp4", str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    part = tmp_path / "test" / "clip.mp4.part"
    started = time.monotonic()
    while not (part.exists() and part.stat().st_size >= 8192):
        assert process.poll() is None
        assert time.monotonic() - started < 60
        time.sleep(0.01)
    os.kill(process.pid, end)
    process.wait(timeout=30)
    assert got(tmp_path) is None
    served.delay_s = 0
    get(entry(f"{served.address}/clip.mp4"), tmp_path)
    assert got(tmp_path) == CONTENT
    assert int(served.requests[-1]["range"].removeprefix("bytes=").removesuffix("-")) >= 4096
    assert served.requests[-1]["if-range"] == '"one"'


def test_sources_that_cannot_be_fetched_give_steps_and_count_what_a_person_placed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = [clip for clip in plan_us4(0) if clip.part == "us4-clust"][:3]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(us4, "plan_us4", lambda seed: sequences)
        us4.write_us4(tmp_path, seed=0, workers=1)
    result = usdata.pull(["us4-clust", "us4-liver-fibrosis"], to=tmp_path)
    clust, fibrosis = result.sources
    assert clust.placed is not None
    assert (clust.placed.comparisons[0].found, clust.placed.comparisons[0].expected) == (3, 63)
    assert clust.placed.layout is not None
    assert clust.placed.layout.startswith("the recipe 'us4-clust' takes 3 clips")
    assert fibrosis.placed is None
    print_pull(result)
    printed = capsys.readouterr()
    assert "1. register for the challenge" in printed.out
    assert "never released" in printed.out
    assert "nothing was downloaded" in printed.err


def test_a_collection_names_its_parts(tmp_path: Path) -> None:
    [step] = usdata.pull("us4", to=tmp_path).sources[0].steps
    assert "usdata pull us4-butterfly us4-clust us4-covid19-lusms us4-liver-fibrosis --to" in step
