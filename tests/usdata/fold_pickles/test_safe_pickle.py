"""Pickles of arrays read back as numpy wrote them, and nothing in a pickle ever run."""

import builtins
import collections
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from usdata.errors import UserError
from usdata.fold_pickles.safe_pickle import _ALLOWED, load_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
rng = np.random.default_rng(0)


def written(folder: Path, value: Any, protocol: int = 4) -> Path:
    path = folder / "fold.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


def equal(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray) and b.dtype != object:
        # numpy itself turns the bytes of a number around when it reads some protocols.
        return (
            isinstance(a, np.ndarray)
            and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
            and a.shape == b.shape
            and bool((a == b).all())
        )
    if isinstance(b, np.ndarray | list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in b)
    return bool(a == b)


def values() -> dict[str, Any]:
    image = rng.integers(0, 256, (2, 3, 20, 24), dtype=np.uint8)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [image[0], image[1, :, :16]]
    return {
        "published": (image, np.array([0, 2]), image[:1], np.array([1])),
        "fortran": np.asfortranarray(image[0, 0].astype(np.float64)),
        "big-endian": image[0, 0].astype(">f4"),
        "floats, halves, truth": [image / np.float32(255), image.astype(np.float16), image > 3],
        "text": {"labels": np.array(["covid19", "regular"]), "bytes": np.array([b"ab", b"c"])},
        "numbers": [np.int64(3), np.float32(0.5), 7, -(2**70), 1.5, None, True, "é", b"\xff", b"", {1: (2,)}],
        "ragged": ragged,
        "a strided view": image[:, :, ::2],
        "empty": np.zeros((0, 3, 8, 8), np.uint8),
        "no dimension": np.array(4),
        "the same twice": (image, [image, image]),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", values())
def test_what_numpy_writes_comes_back(name: str, protocol: int, tmp_path: Path) -> None:
    value = values()[name]
    assert equal(load_arrays(written(tmp_path, value, protocol)), pickle.loads(pickle.dumps(value, protocol)))


def test_names_of_numpy_before_and_since_2_are_read(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    data = pickle.dumps(array, 2)
    assert b"numpy._core" in data or b"numpy.core" in data
    for core in (b"numpy.core", b"numpy._core"):
        other = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
        assert equal(load_arrays(written(tmp_path, other)), array)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, run: Any, *arguments: Any) -> None:
        self.call = run, arguments

    def __reduce__(self) -> Any:
        return self.call


EVIL = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Calls(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Calls(builtins.exec, f"open({str(mark)!r}, 'w')"),
    "nested": lambda mark: (np.zeros((1, 3, 8, 8), np.uint8), [{"y": (1, [Calls(os.system, f"touch {mark}")])}]),
    "in a ragged array": lambda mark: np.array([Calls(os.system, f"touch {mark}"), None], dtype=object),
    "getattr": lambda mark: Calls(getattr, "text", "upper"),
    "numpy.load": lambda mark: Calls(np.load, str(mark)),
    "os.remove": lambda mark: Calls(os.remove, str(mark)),
    "a harmless class": lambda mark: collections.OrderedDict(a=1),
    "a type": lambda mark: int,
    "a set": lambda mark: {1, 2},
    "a complex array": lambda mark: np.zeros(2, complex),
    "records": lambda mark: np.zeros(2, [("a", "u1"), ("b", "f4")]),
    "times": lambda mark: np.zeros(2, "datetime64[s]"),
    "a masked array": lambda mark: np.ma.masked_array([1, 2], [True, False]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", EVIL)
def test_anything_else_is_refused_and_not_run(name: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    data = pickle.dumps(EVIL[name](mark), protocol)
    with pytest.raises(UserError, match="holds more than arrays"):
        load_arrays(written(tmp_path, data))
    assert not mark.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_refusal_names_what_it_is(protocol: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\((?:'(?:posix|nt)\.system')\), so it was not loaded.*pickle it anew"):
        load_arrays(written(tmp_path, Calls(os.system, "true"), protocol))


def by_hand(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


NDARRAY = text("numpy") + text("ndarray") + b"\x93"
DTYPE = text("numpy") + text("dtype") + b"\x93"
RECONSTRUCT = text("numpy._core.multiarray") + text("_reconstruct") + b"\x93"
U1 = DTYPE + text("u1") + b"\x85R"
REFUSED_BY_HAND = {
    # A name that leads through an allowed one.
    "a dotted name": by_hand(text("numpy") + text("ndarray.__class__") + b"\x93"),
    "a name of an allowed module": by_hand(text("numpy") + text("loadtxt") + b"\x93"),
    "an array as a function": by_hand(NDARRAY + b"J\x00\x00\x00\x7f\x85\x85R"),
    # Names of attributes given to a function: BUILD.
    "a changed function": by_hand(RECONSTRUCT + b"}" + text("_run") + text("x") + b"sb"),
    "objects of classes": by_hand(NDARRAY + b")\x81"),
    "an old instance": b"(ios\nsystem\n.",
    "an old object": by_hand(b"(" + RECONSTRUCT + b"o"),
    "something outside": b"\x80\x04\x8c\x01aQ.",
    "the registry of extensions": b"\x80\x02\x82\x01.",
    "another codec": by_hand(text("_codecs") + text("encode") + b"\x93" + text("x") + text("zlib_codec") + b"\x86R"),
    # A type whose state claims references to Python's objects in raw bytes.
    "references in raw bytes": by_hand(
        RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R" + b"(K\x01K\x01\x85" + DTYPE + text("O8") + b"\x85R\x89C\x08AAAAAAAAtb"
    ),
    "a dict of tuples": by_hand(b"}" + b")K\x01s"),
    "a list in itself": by_hand(b"]\x94h\x00a"),
}


@pytest.mark.parametrize("name", REFUSED_BY_HAND)
def test_pickles_made_by_hand_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds more than arrays"):
        load_arrays(written(tmp_path, REFUSED_BY_HAND[name]))


def test_nothing_of_numpy_itself_is_called() -> None:
    """numpy believes the sizes and flags that a pickle gives it; ours does not."""
    assert all(type(each).__name__ == "_Call" and not hasattr(each, "__dict__") for each in _ALLOWED.values())


def huge() -> dict[str, bytes]:
    array = pickle.dumps(np.zeros((2, 3), np.uint8), 4)
    shape = pickletools.optimize(array)
    assert b"K\x02K\x03\x86" in shape
    return {
        "a string of 2**62 bytes": by_hand(b"\x8e" + struct.pack("<Q", 1 << 62)),
        "a string of 2**40 bytes": by_hand(b"\x8e" + struct.pack("<Q", 1 << 40)),
        "a frame of 2**60 bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "a place of 2**31 in memory": by_hand(b"Nr" + struct.pack("<I", 1 << 31)),
        "an array larger than its bytes": shape.replace(b"K\x02K\x03\x86", b"J\x00\x00\x00\x7fK\x03\x86"),
        "a negative side": shape.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\xffK\x03\x86"),
    }


@pytest.mark.parametrize("name", huge())
def test_claimed_sizes_take_no_memory(name: str, tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"is no readable pickle|holds more than arrays"):
        load_arrays(written(tmp_path, huge()[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere_is_one_line(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps((np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4), [1]), protocol)
    for end in range(0, len(data), 3):
        with pytest.raises(UserError) as caught:
            load_arrays(written(tmp_path, data[:end]))
        assert "\n" not in str(caught.value)


def test_damaged_bytes_give_a_value_or_one_line(tmp_path: Path) -> None:
    data = pickle.dumps((np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4), [1, "a"], {"x": np.float32(2)}), 4)
    for place in range(len(data)):
        for value in rng.integers(0, 256, 2):
            damaged = data[:place] + bytes([value]) + data[place + 1 :]
            told = []
            try:
                load_arrays(written(tmp_path, damaged))
            except UserError as error:
                told.append(str(error))
            assert not any("\n" in line for line in told)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 an archive", b"\x1f\x8b\x08 gzip", b"<html>Sign in</html>", b"\x93NUMPY\x01\x00"])
def test_other_files_are_told(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is empty|is no readable pickle"):
        load_arrays(written(tmp_path, content))


def test_two_pickles_in_one_file_are_not_half_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    for value in (np.zeros(3), [1, 2, 3]):
        pickle.dump(value, file)
    with pytest.raises(UserError, match="bytes follow its end"):
        load_arrays(written(tmp_path, file.getvalue()))
