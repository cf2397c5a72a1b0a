"""The rarer ways in which a server, a disk or another pull can be wrong: what proves a version, redirects out of https, silence, locks."""

import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import usdata
from tests.usdata.pulling.faulty_server import Served, serving
from tests.usdata.pulling.test_faults import CONTENT, REPOSITORY, digest, entry, get, got
from usdata.cataloguing import catalog
from usdata.errors import UserError
from usdata.pulling import headers
from usdata.pulling.partial import Partial, Version
from usdata.pulling.record import SourceLock

DATE = "Tue, 24 Nov 2026 10:00:00 GMT"
A_SECOND_LATER = "Tue, 24 Nov 2026 10:00:01 GMT"


@contextmanager
def answering(*answers: bytes, wrap: Callable[[socket.socket], socket.socket] = lambda connection: connection) -> Iterator[tuple[str, int]]:
    """A server that gives one whole answer a connection, byte for byte as written; the last one stays."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = list(answers)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the test is over
                return
            with wrap(connection) as stream:
                stream.recv(65_536)
                stream.sendall(left.pop(0) if len(left) > 1 else left[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answer(status: str, body: bytes = b"", **fields: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("fields", "validator"),
    [
        ({"etag": '"a"'}, '"a"'),
        ({"etag": 'W/"a"'}, None),
        ({"etag": "a"}, None),
        ({"etag": 'W/"a"', "last-modified": DATE, "date": A_SECOND_LATER}, DATE),
        ({"last-modified": DATE, "date": A_SECOND_LATER}, DATE),
        ({"last-modified": DATE, "date": DATE}, None),
        ({"last-modified": DATE}, None),
        ({"last-modified": "yesterday", "date": A_SECOND_LATER}, None),
        ({}, None),
    ],
)
def test_only_what_proves_equal_bytes_is_a_validator(fields: dict[str, str], validator: str | None) -> None:
    assert headers.version_of("u", fields, 1).validator == validator


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("bytes 5-9/10", (5, 9, 10)),
        ("bytes 5-9/*", (5, 9, None)),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("bytes -5/10", None),
        ("items 5-9/10", None),
        ("", None),
    ],
)
def test_a_content_range_is_taken_only_where_it_makes_sense(text: str, value: object) -> None:
    assert headers.content_range({"content-range": text}) == value


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), (A_SECOND_LATER, 1.0), ("Tue, 24 Nov 2026 09:00:00 GMT", 0.0), ("soon", None)])
def test_when_to_come_back(text: str, seconds: float | None) -> None:
    assert headers.retry_after_s({"retry-after": text}, datetime(2026, 11, 24, 10, tzinfo=UTC)) == seconds


def test_the_servers_wish_is_waited_for_and_a_long_one_is_an_error(tmp_path: Path) -> None:
    fine = answer("200 OK", CONTENT, Content_Length=len(CONTENT))
    waits: list[float] = []
    with answering(answer("503 Busy", Retry_After=7), answer("429 Slow", Retry_After=9), answer("500 Oh"), fine) as (host, port):
        get(entry(f"http://{host}:{port}/clip.mp4"), tmp_path / "one", sleep=waits.append)
    assert got(tmp_path / "one") == CONTENT
    assert waits == [7.0, 9.0, 4.0], "the third failure waits by our own count"
    with (
        answering(answer("503 Busy", Retry_After=3600)) as (host, port),
        pytest.raises(UserError, match="wants to be asked again in 3600 s"),
    ):
        get(entry(f"http://{host}:{port}/clip.mp4"), tmp_path / "two")


@pytest.mark.parametrize("fault", ["says less", "says more"])
def test_a_length_that_always_lies_is_found_without_any_known_one(fault: str, tmp_path: Path) -> None:
    with serving(Served(CONTENT, faults=[fault] * 40)) as served:
        with pytest.raises(UserError):
            get(entry(f"{served.address}/clip.mp4"), tmp_path)
        assert got(tmp_path) is None


@pytest.mark.parametrize("first", [answer("416 No", Content_Range="bytes */0", Content_Length=0), answer("416 No", Content_Length=0)])
def test_a_server_that_refuses_ranges_is_asked_without_one(first: bytes, tmp_path: Path) -> None:
    with answering(first, answer("200 OK", CONTENT, Content_Length=len(CONTENT))) as (host, port):
        get(entry(f"http://{host}:{port}/clip.mp4"), tmp_path)
    assert got(tmp_path) == CONTENT


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    with answering(answer("200 OK", Content_Length=0)) as (host, port):
        get(entry(f"http://{host}:{port}/clip.mp4"), tmp_path)
    assert got(tmp_path) == b""


def test_chunks_end_where_they_say_and_nothing_else_does(tmp_path: Path) -> None:
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT)
    with answering(
        answer("200 OK", whole[:-400], Transfer_Encoding="chunked"), answer("200 OK", whole, Transfer_Encoding="chunked")
    ) as address:
        get(entry("http://{}:{}/clip.mp4".format(*address)), tmp_path / "chunks")
    assert got(tmp_path / "chunks") == CONTENT
    with answering(answer("200 OK", CONTENT)) as address:
        with pytest.raises(UserError, match="does not say how long the file is"):
            get(entry("http://{}:{}/clip.mp4".format(*address)), tmp_path / "until closed")
        get(entry("http://{}:{}/clip.mp4".format(*address), sha256=digest(CONTENT)), tmp_path / "known")
    assert got(tmp_path / "until closed") is None
    assert got(tmp_path / "known") == CONTENT


@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/clip.mp4", "ftp://elsewhere/x", "http://[", "file:///etc/hostname"])
def test_a_redirect_out_of_https_is_refused(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    make = ["openssl", "req", "-x509", *curve, "-nodes", "-days", "2", *names, "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(Served(CONTENT)) as unprotected:
        port = unprotected.address.rpartition(":")[2]
        moved = answer("302 Found", Location=location.format(port=port), Content_Length=0)
        with answering(moved, wrap=lambda connection: context.wrap_socket(connection, server_side=True)) as (host, secured):
            wanted = entry(f"https://{host}:{secured}/clip.mp4")
            with pytest.raises(UserError, match=r"leads on to|no address"):
                get(wanted, tmp_path, allow_http=False)
            assert got(tmp_path) is None
            assert unprotected.requests == []
            if "port" in location:
                get(wanted, tmp_path, allow_http=True)
                assert got(tmp_path) == CONTENT


@pytest.mark.parametrize("state", ["", "[]", '{"url": 1}', '{"url": "u", "total": "9"}', '{"url": "u", "unknown": 1}'])
def test_a_state_that_makes_no_sense_begins_anew(state: str, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"old")
    (tmp_path / "x.part.json").write_text(state)
    part = Partial(tmp_path / "x")
    assert part.length_to_go_on_from("u") == 0
    part.begin(Version("u", validator='"a"', total=3))
    part.write(b"new")
    part.place()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_part_that_was_whole_when_the_power_went_is_checked_not_fetched(tmp_path: Path) -> None:
    with serving(Served(CONTENT)) as served:
        address = f"{served.address}/clip.mp4"
        part = Partial(tmp_path / "test" / "clip.mp4")
        part.begin(Version(address, '"one"', None, '"one"', len(CONTENT)))
        part.write(CONTENT)
        part.close()
        get(entry(address, sha256=digest(CONTENT)), tmp_path)
        assert got(tmp_path) == CONTENT
        assert served.requests == []


def test_two_pulls_do_not_share_a_folder(tmp_path: Path) -> None:
    lock = SourceLock(tmp_path / "test")
    try:
        with pytest.raises(UserError, match="another pull works in this folder"):
            get(entry("http://127.0.0.1:9/clip.mp4"), tmp_path)
    finally:
        lock.let_go()
    with serving(Served(CONTENT)) as served:
        get(entry(f"{served.address}/clip.mp4"), tmp_path)
    assert got(tmp_path) == CONTENT


SILENT = """
import sys
import usdata
from tests.usdata.pulling.test_faults import entry
from usdata.console import one_line_errors
one_line_errors(lambda: usdata.pull(entry(sys.argv[1]), to=sys.argv[2], allow_http=True))()
"""


def test_ctrl_c_ends_a_pull_though_the_server_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "http://{}:{}/clip.mp4".format(*silent.getsockname())
        process = subprocess.Popen(
            [sys.executable, "-c", SILENT, address, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )
        connection, _ = silent.accept()
        with connection:
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=40)
    assert time.monotonic() - started < 20
    assert "stopped by SIGINT; what was downloaded is kept" in said
    assert "Traceback (most" not in said or "Exit: 75" in said


def test_a_retry_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Served(CONTENT, faults=["drop"])) as served:
        get(entry(f"{served.address}/clip.mp4"), tmp_path)
    assert "asking again in 1 s" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["unknown", "mixed", "no", "yes"])
def test_the_terms_are_a_sentence(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Served(CONTENT)) as served:
        get(entry(f"{served.address}/clip.mp4", redistribution=word), tmp_path, accept_licence=True)
    said = capsys.readouterr().err
    assert "it unknown" not in said
    assert "it differs" not in said
    assert "passed on" in said


def test_a_folder_in_the_place_of_a_file_is_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / "test" / "clip.mp4").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder"):
        get(entry("http://127.0.0.1:9/clip.mp4"), tmp_path)
    assert (tmp_path / "test" / "clip.mp4").is_dir()


@pytest.mark.parametrize("mirror", ["http://[", "ftp://elsewhere/set", "file://elsewhere/set"])
def test_a_mirror_that_is_no_place_is_one_line(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        get(entry("http://127.0.0.1:9/clip.mp4"), tmp_path, mirrors={"test": mirror}, attempts=1)
    assert got(tmp_path) is None


def test_leftovers_of_a_killed_pull_are_not_counted(tmp_path: Path) -> None:
    folder = tmp_path / "test"
    (folder / ".set.unpacking").mkdir(parents=True)
    (folder / ".set.unpacking" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "set.zip.part").write_bytes(b"PK\x03\x04 cut off")
    result = usdata.pull(entry("https://nowhere.invalid/clip.mp4"), to=tmp_path, check=True)
    assert result.sources[0].placed is None
    assert not result.complete


def test_the_catalogues_files_have_a_place_each() -> None:
    files = [file for each in catalog() for file in each.files]
    assert len(files) >= 7
    assert all(url.startswith("https://") for file in files for url in file.urls)
