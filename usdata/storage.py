"""Raw folders and data sets on storage that is no file system of this machine: any address that fsspec reads (`s3://bucket/raw`).

Decoders seek, and read a file in a hundred small pieces; over a network each piece would be a request. So a remote RAW is mirrored, file by
file, into a cache folder, and a remote SET is made in one and then sent. In: addresses. Out: local folders. Guarantees: a file that has not
changed there is not fetched again; a file stands in the mirror whole or not at all; a name that would lead out of the mirror is refused; a
data set's `dataset.json` is removed there first and sent last, so that a half-sent set is never taken for one.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any

from usdata import manifest
from usdata.console import progress
from usdata.errors import UserError
from usdata.files import READ_BLOCK_BYTES, atomic, sha256_file, sha256_text, write_json

AT_ONCE = 8
INDEX = ".usdata-mirror.json"
SENT = ".usdata-sent.json"
_ADVICE = "check the address, the network and your right to read it"


def is_remote(address: str | Path) -> bool:
    """Whether an address is one for fsspec: it has a protocol (`s3://`, `gs://`, `memory://`, ...)."""
    return isinstance(address, str) and "://" in address


def cache_folder(address: str, cache: Path | None) -> Path:
    """Where the mirror of an address lies: below the given folder, or the user's cache folder; by a digest, for addresses hold accounts."""
    root = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "usdata"
    return root / sha256_text(address.rstrip("/"))[:24]


def bring(address: str, mirror: Path) -> Path:
    """Mirror a remote folder; what is no longer there goes here too.

    Raises:
        UserError: The address cannot be reached or listed, holds nothing, holds a name that no path may have, or a file changes while it
            is fetched. What was fetched stays and is not fetched again.
    """
    filesystem, root = _connect(address)
    try:
        listed = filesystem.find(root, detail=True)
    except Exception as error:
        raise UserError(address, f"cannot be listed ({_words(error)})", _ADVICE) from error
    wanted = {_inside(name, root, address): info for name, info in listed.items() if info.get("type") != "directory"}
    if not wanted:
        raise UserError(address, "the folder of raw clips is empty", "put the clips there, or give another folder with --raw")
    files = mirror / "raw"
    known = _index(mirror / INDEX)
    stamps = {path: _stamp(info) for path, info in wanted.items()}
    missing = [path for path in sorted(wanted) if known.get(path) != stamps[path] or not (files / path).is_file()]
    for path in [path for path in files.rglob("*") if path.is_file() and path.relative_to(files).as_posix() not in wanted]:
        path.unlink()
    known = {path: stamp for path, stamp in known.items() if path in wanted and path not in missing}
    total = sum(int(wanted[path].get("size") or 0) for path in missing)
    try:
        with progress(f"fetching {len(missing)} files", total, "bytes") as advance, ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = {pool.submit(_fetch, filesystem, str(wanted[path]["name"]), wanted[path], files / path): path for path in missing}
            try:
                for job in as_completed(jobs):
                    advance(job.result())
                    known[jobs[job]] = stamps[jobs[job]]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except OSError as error:
        raise UserError(address, f"a file cannot be fetched ({_words(error)})", _ADVICE) from error
    finally:
        write_json(mirror / INDEX, known)
    return files


def send(dataset: Path, address: str) -> None:
    """Put a finished data set at a remote address; files that were sent there before and are the same are not sent again.

    Raises:
        UserError: It cannot be written there.
    """
    filesystem, root = _connect(address)
    files = sorted(path.relative_to(dataset).as_posix() for path in dataset.rglob("*") if path.is_file())
    digests = {path: sha256_file(dataset / path) for path in files}
    about, sent = posixpath.join(root, manifest.DATASET_JSON), posixpath.join(root, SENT)
    try:
        before = _sent(filesystem, root) or {}
        if before == digests:
            return
        filesystem.makedirs(root, exist_ok=True)
        filesystem.pipe_file(sent, b"{}")  # from here on what stands there is half of a data set of ours
        if filesystem.exists(about):
            filesystem.rm_file(about)
        others = [path for path in files if before.get(path) != digests[path] and path != manifest.DATASET_JSON]
        with progress("sending files", len(others) + 1, "files") as advance, ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda path: _put(filesystem, dataset / path, posixpath.join(root, path)), others):
                advance(1)
            for path in before.keys() - digests.keys():
                filesystem.rm_file(posixpath.join(root, path))
            filesystem.pipe_file(sent, json.dumps(digests, sort_keys=True).encode())
            _put(filesystem, dataset / manifest.DATASET_JSON, about)
            advance(1)
    except Exception as error:
        raise UserError(address, f"cannot be written ({_words(error)})", _ADVICE) from error


def refuse_occupied_address(address: str, dataset: Path, *, overwrite: bool) -> None:
    """Refuse a remote target that is no data set, or, without `overwrite`, one that was not sent from here.

    Args:
        address: The target.
        dataset: The folder here that would be, or was, sent there.
        overwrite: The user allows another data set to be replaced.

    Raises:
        UserError: It holds something else, or cannot be listed.
    """
    filesystem, root = _connect(address)
    try:
        held = filesystem.exists(root) and bool(filesystem.ls(root, detail=False))
        sent = _sent(filesystem, root) if held else None
        is_set = sent is not None or (held and filesystem.exists(posixpath.join(root, manifest.DATASET_JSON)))
    except Exception as error:
        raise UserError(address, f"cannot be listed ({_words(error)})", _ADVICE) from error
    if held and not is_set:
        raise UserError(address, "is not empty and is not a data set", "give another --out, or empty it yourself")
    about = dataset / manifest.DATASET_JSON
    ours = sent is not None and about.is_file() and sent.get(manifest.DATASET_JSON, sha256_file(about)) == sha256_file(about)
    if held and not ours and not overwrite:
        raise UserError(address, "holds a data set that was not sent from here", "give another --out, or --overwrite to replace it")


def _connect(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(address, f"cannot be opened ({_words(error)})", "install the package that it names, or check it") from None
    except Exception as error:
        raise UserError(address, f"cannot be opened ({_words(error)})", _ADVICE) from error
    return filesystem, str(root).rstrip("/")


def _inside(name: str, root: str, address: str) -> str:
    """A file's path below the root, as one that cannot lead out of a folder."""
    path = name.removeprefix(root).lstrip("/")
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or "\\" in path or "\0" in path or str(PurePosixPath(path)) != path:
        raise UserError(address, f"holds a file named '{name}', which no folder here can hold", "rename it there")
    return path


def _stamp(info: Mapping[str, Any]) -> str:
    """What tells that a file has changed, as far as the protocol knows: size, and tag or time."""
    known = [info.get("size"), *(info.get(key) for key in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "created"))]
    return json.dumps([None if value is None else str(value) for value in known])


def _index(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return index if isinstance(index, dict) else {}


def _fetch(filesystem: Any, name: str, info: Mapping[str, Any], target: Path) -> int:
    """One file, whole or not at all; gives its size."""
    size = 0
    with atomic(target, durable=False) as temporary, filesystem.open(name, "rb") as source, temporary.open("wb") as file:
        while block := source.read(READ_BLOCK_BYTES):
            size += file.write(block)
        if info.get("size") is not None and size != info["size"]:
            raise OSError(f"{name} is listed with {info['size']} bytes and gives {size}")
    return size


def _put(filesystem: Any, source: Path, target: str) -> None:
    filesystem.makedirs(posixpath.dirname(target), exist_ok=True)
    filesystem.put_file(str(source), target)


def _sent(filesystem: Any, root: str) -> dict[str, str] | None:
    """Path to digest of what was sent there; nothing where a sending broke off, None where there was none."""
    if not filesystem.exists(posixpath.join(root, SENT)):
        return None
    found = json.loads(filesystem.cat_file(posixpath.join(root, SENT)))
    return found if isinstance(found, dict) else {}


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
