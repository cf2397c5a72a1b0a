"""One file from one address of the web into its part: asked for by range, gone on with after a break, begun anew where versions differ.

In: an address and a part. Out: the part, as long as the server says the file is. Guarantees: bytes are only ever appended after the server
has proved that they are of the same version (If-Range, ETag, Content-Range); two lengths for one version are a contradiction, not a choice;
no encoding is undone; an unprotected address is never followed unasked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from usdata.console import safe_text, say
from usdata.pulling.headers import content_length, content_range, retry_after_s, unsatisfied_total, version_of
from usdata.pulling.partial import Partial, Version
from usdata.pulling.wanted import Interrupted, Refused, Tell, Terms, Wanted, check_room, verified

if TYPE_CHECKING:
    import httpx

MOST_REDIRECTS = 10
LONGEST_PAUSE_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0
_COME_BACK = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_FOR_ALL = frozenset({401, 403, 407, 451})


class Download:
    """One address and the part that its bytes go to."""

    def __init__(self, url: str, wanted: Wanted, part: Partial, terms: Terms, client: httpx.Client, tell: Tell) -> None:
        self._url = url
        self._wanted = wanted
        self._part = part
        self._terms = terms
        self._client = client
        self._tell = tell
        self._by_range = True
        # Bytes of several answers, or of one whose end nothing proves.
        self._in_doubt = part.length_to_go_on_from(url) > 0
        self._total: int | None = None
        # Length by version, as first said here.
        self._lengths: dict[tuple[str | None, str | None], int] = {}

    def run(self) -> None:
        """Fill the part.

        Raises:
            Refused: This address does not give the file.
            Stopped: A stop was asked for.
            UserError: The disk has no room for it.
        """
        furthest = self._part.length_to_go_on_from(self._url)
        failures = 0
        while True:
            self._terms.refuse_to_go_on_after_a_stop()
            try:
                if self._is_whole() or self._ask():
                    self._check_pieces()
                    return
            except Interrupted as error:
                if self._part.size > furthest:
                    furthest, failures = self._part.size, 0
                failures += 1
                if failures >= self._terms.attempts:
                    raise Refused(f"{error} (given up after {failures} failures in a row)") from error
                pause_s = min(LONGEST_PAUSE_S, 2.0 ** (failures - 1)) if error.after_s is None else error.after_s
                say(safe_text(f"{self._wanted.target.name}: {error}; asking again in {pause_s:.0f} s"))
                self._terms.pause(pause_s)

    def _is_whole(self) -> bool:
        """A run that was killed between the last byte and the rename has nothing left to ask for."""
        length = self._part.length_to_go_on_from(self._url)
        return length > 0 and self._part.version is not None and self._part.version.total == length

    def _check_pieces(self) -> None:
        """Where the known sha256 is not that of bytes in doubt, asking for all of them once more may help."""
        if self._in_doubt and self._wanted.sha256 is not None:
            try:
                verified(self._wanted, self._part)
            except Refused as error:
                raise Interrupted(str(error)) from error

    def _ask(self) -> bool:
        """Ask once; whether the part is whole now.

        Raises:
            Interrupted: It broke off, or what came cannot be used; the part holds what can.
        """
        start = self._part.length_to_go_on_from(self._url)
        headers = {"Range": f"bytes={start}-"} if self._by_range or start else {}
        if start:
            known = self._part.version
            assert known is not None
            headers["If-Range"] = known.validator or ""
        with self._opened(headers) as response:
            if response.status_code == 416:
                return self._after_416(response, start, "Range" in headers)
            if response.status_code == 206 and "Range" in headers:
                expected: int | None = self._take_up_range(response, start)
            elif response.status_code == 200:
                expected = self._take_up_whole(response)
            else:
                raise _refusal(response)
            self._receive(response, expected)
        return self._total is None or self._part.size == self._total

    def _after_416(self, response: httpx.Response, start: int, by_range: bool) -> bool:
        total = unsatisfied_total(response.headers)
        if not by_range:
            raise Refused("answers 416 to a request without a range")
        if start:
            known, said = self._part.version, version_of(self._url, response.headers, total)
            assert known is not None
            if total == start and known.total in (None, start) and said.etag in (None, known.etag):
                return True
            self._part.discard()
            raise Interrupted("says that the file is not as long as it was (416)")
        # Said of an empty file, and by servers that dislike ranges: a plain answer settles which.
        self._by_range = False
        return False

    def _take_up_range(self, response: httpx.Response, start: int) -> int:
        """Check that a 206 goes on where the part ends; how many bytes it brings."""
        _check_kind(response, self._wanted)
        given = content_range(response.headers)
        declared = content_length(response.headers)
        if given is None or given[0] != start or (declared is not None and declared != given[1] - given[0] + 1):
            if given is not None and given[2] is not None:
                self._check_length(version_of(self._url, response.headers, given[2]))
            self._by_range = False
            self._part.discard()
            raise Interrupted("answers with another range than the one that was asked for")
        first, last, total = given  # first is where the part ends
        version = version_of(self._url, response.headers, total)
        known = self._part.version if start else None
        if known is not None and not _same(known, version):
            self._part.discard()
            raise Interrupted("the file changed midway")
        self._total = total if total is not None or known is None else known.total
        if self._total is None:
            self._by_range = False
            self._part.discard()
            raise Interrupted("does not say how long the file is")
        self._check_length(version)
        if known is None:
            self._begin(version)
        self._in_doubt = known is not None
        return last - first + 1

    def _take_up_whole(self, response: httpx.Response) -> int | None:
        """Check a 200 and empty the part for it; how many bytes it brings, None where the server leaves that to the end."""
        _check_kind(response, self._wanted)
        total = content_length(response.headers)
        chunked = response.headers.get("transfer-encoding", "").lower() == "chunked"
        if total is None and not chunked and self._wanted.bytes is None and self._wanted.sha256 is None:
            raise Refused("does not say how long the file is, so a broken download could not be told from a whole one")
        version = version_of(self._url, response.headers, None if chunked else total)
        self._check_length(version)
        self._begin(version)
        self._total = version.total
        self._in_doubt = version.total is None and not chunked
        return version.total

    def _check_length(self, version: Version) -> None:
        total = version.total
        if total is None:
            return
        before = self._lengths.setdefault((version.etag, version.last_modified), total)
        if before != total:
            self._part.discard()
            raise Interrupted(f"contradicts itself: the file has {before:,} bytes, then {total:,}")
        if self._wanted.bytes is not None and total != self._wanted.bytes:
            raise Refused(f"says that the file has {total:,} bytes, and it should have {self._wanted.bytes:,}")

    def _begin(self, version: Version) -> None:
        self._part.discard()
        if version.total is not None:
            check_room(self._wanted, version.total)
        self._part.begin(version)

    def _receive(self, response: httpx.Response, expected: int | None) -> None:
        import httpx

        total = self._total if self._total is not None else self._wanted.bytes
        end = None if expected is None else self._part.size + expected
        most = self._wanted.bytes if end is None else end
        try:
            for block in response.iter_raw():
                self._terms.refuse_to_go_on_after_a_stop()
                if most is not None and self._part.size + len(block) > most:
                    self._part.discard()
                    raise Interrupted("sends more bytes than it said")
                self._part.write(block)
                self._tell(self._part.size, total)
        except httpx.TimeoutException as error:
            raise Interrupted(f"sent nothing for {self._terms.timeout_s:.0f} s") from error
        except httpx.TransportError as error:
            raise Interrupted(f"the connection broke ({_words(error)})") from error
        finally:
            self._part.flush()
        if end is not None and self._part.size != end:
            raise Interrupted("sends fewer bytes than it said")
        if end is None and self._wanted.bytes is not None and self._part.size < self._wanted.bytes:
            raise Interrupted("the connection ended before the file did")

    @contextmanager
    def _opened(self, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer to one request, redirects followed where they may be."""
        import httpx

        url, hops = self._url, 0
        while True:
            try:
                _refuse_unprotected(url, self._url, self._terms)
                response = self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
            except httpx.TimeoutException as error:
                raise Interrupted(f"did not answer within {self._terms.timeout_s:.0f} s") from error
            except httpx.TransportError as error:
                raise Interrupted(f"cannot be reached ({_words(error)})") from error
            except (httpx.InvalidURL, ValueError) as error:
                raise Refused(f"is no address ({_words(error)})") from error
            try:
                location = response.headers.get("location")
                if response.status_code not in (301, 302, 303, 307, 308) or location is None:
                    yield response
                    return
            finally:
                response.close()
            hops += 1
            if hops > MOST_REDIRECTS:
                raise Refused(f"redirects more than {MOST_REDIRECTS} times")
            url = _joined(url, location)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise Refused(f"redirects to what is no address ({_words(error)})") from error


def _refuse_unprotected(url: str, asked: str, terms: Terms) -> None:
    scheme = urlsplit(url).scheme.lower()
    where = "" if url == asked else f"leads on to {url}, which "
    if scheme not in ("https", "http"):
        raise Refused(f"{where}is no address of the web")
    if scheme == "http" and not terms.allow_http:
        raise Refused(f"{where}is not protected by https", "give --allow-http if you trust the network between")


def _refusal(response: httpx.Response) -> Exception:
    code = response.status_code
    if code in _COME_BACK:
        after_s = retry_after_s(response.headers)
        if after_s is not None and after_s > LONGEST_RETRY_AFTER_S:
            return Refused(f"answers {code} and wants to be asked again in {after_s:.0f} s")
        return Interrupted(f"answers {code}", after_s)
    if code in (404, 410):
        return Refused(f"there is no such file ({code})")
    if code in _NOT_FOR_ALL:
        return Refused(f"is not given to everybody ({code})")
    return Refused(f"answers {code}")


def _check_kind(response: httpx.Response, wanted: Wanted) -> None:
    """Refuse what is not the file itself: a page about it, or the file in an encoding that was not asked for."""
    name = wanted.target.name.lower()
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not name.endswith((".html", ".htm")):
        raise Refused("answers with a web page and not with the file")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    # Some servers call a .tar.gz a tar in the encoding gzip: those bytes are the file.
    if encoding not in ("identity", "") and not (encoding in ("gzip", "x-gzip") and name.endswith((".gz", ".tgz"))):
        raise Refused(f"sends the file in the encoding '{encoding}', which was not asked for")


def _same(known: Version, version: Version) -> bool:
    """Whether a 206 is of the version that the part is of: what proved it must stand there again and nothing may differ."""
    if known.validator == known.etag and version.etag != known.etag:
        return False
    pairs = [(known.etag, version.etag), (known.last_modified, version.last_modified), (known.total, version.total)]
    return all(before is None or after is None or before == after for before, after in pairs)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
