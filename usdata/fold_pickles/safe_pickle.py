"""Reading a pickle of arrays without running what it says.

In: a file of Python's pickle. Out: lists, tuples, dicts, strings, bytes, numbers and numpy arrays of plain numbers or text; nothing else.
A pickle is a program: it may name any function of Python and call it. Here the few names by which numpy saves arrays mean stand-ins of our
own, which look at sizes and types before an array is made; every other name is refused before anything is called, and so is whatever
else makes objects. Sizes that a file claims are held against its length first, for a claimed size is memory that is asked for.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from usdata.console import safe_text
from usdata.errors import UserError

MOST_BYTES = 16 << 30
MOST_NESTED = 6
ADVICE = "where you trust its origin, load it there and pickle it anew as numpy arrays in tuples or dicts"
WHOLE = "is it whole? compare its size with that at its source"

# A letter of the kind and the bytes of one: truth values, whole numbers, floats, text, and references to other pickled values.
_PLAIN_TYPE = re.compile(r"[<>|=]?([biuf][1248]|[US][1-9][0-9]{0,3}|O8?)")
# Instructions that make objects of classes, or fetch them from elsewhere. Arrays need none of them.
_REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}


class _Refused(pickle.UnpicklingError):
    """The file holds something that is not allowed; the text says what."""


def load_arrays(path: Path) -> Any:
    """The one value that a pickle holds.

    Raises:
        UserError: It cannot be read, is no whole pickle, or holds more than arrays and plain values; what, is named.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(path, f"is larger than {MOST_BYTES >> 30} GiB", "give the published file of one fold")
        with path.open("rb") as file:
            if size == 0:
                raise UserError(path, "is empty", WHOLE)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _look_over(data)
                data.seek(0)
                return _plain(_Arrays(data, encoding="latin1").load(), {}, MOST_NESTED)
    except _Refused as error:
        reason = f"holds more than arrays ({safe_text(str(error))}), so it was not loaded: that could run a program"
        raise UserError(path, reason, ADVICE) from None
    except MemoryError:
        raise UserError(path, "needs more memory than there is", "free some, or use a machine with more") from None
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror or error})", "check the permissions and the disk") from None
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(path, f"is no readable pickle ({safe_text(' '.join(str(error).split()))[:120]})", WHOLE) from None


# What Python's own reader raises on bytes that are no pickle, or a damaged one.
_DAMAGED = (
    pickle.UnpicklingError, ValueError, EOFError, TypeError, AttributeError, LookupError, OverflowError, RecursionError, ImportError,
)  # fmt: skip


def _look_over(data: mmap.mmap) -> None:
    """Every instruction read and none carried out: names that are not allowed, claimed sizes that are larger than the file."""
    end = count = 0
    # pickletools reads each argument, and finds those that are shorter than their length says.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, data)), 1):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            _stand_in(module, name)
        elif opcode.name in _REFUSED:
            raise _Refused(f"'{str(argument).replace(' ', '.')}'" if opcode.name == "INST" else f"the instruction {opcode.name}")
        elif opcode.name in _MEMO and int(argument or 0) > count:
            raise ValueError(f"place {argument} of a memory of {count} instructions")  # asks for memory up to there
        end = data.tell()
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow its end")


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _stand_in(module, name)

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("a reference to something outside")


class _Call:
    """A function that a pickle may call, and can do nothing else with."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise _Refused("a changed function")


class _Type:
    """Stands for numpy.dtype."""

    __slots__ = ("_order", "_text")

    def __init__(self, text: Any, *_: Any) -> None:
        match = _PLAIN_TYPE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise _Refused(f"arrays of the type {str(text)[:40]!r}")
        self._text, self._order = match[1], "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, sub-array, names, fields, size, alignment, flags, ...): numpy itself would believe sizes and flags.
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(part for part in state[2:5]):
            raise _Refused("arrays of records")
        self._order = state[1]

    @property
    def references(self) -> bool:
        return self._text.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self._text if self._order == "|" else self._order + self._text)


class _Array:
    """Stands for numpy.ndarray while its state is still to come."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _Refused("an array in an unknown form")
        shape, kind, fortran, content = state[-4:]
        self.value = _made(content, kind, shape, "F" if fortran is True or fortran == 1 else "C")


def _made(content: Any, kind: Any, shape: Any, order: Any) -> Any:
    """An array of these bytes, or of these pickled values; one that claims another size than it has is refused."""
    if isinstance(shape, int):
        shape = (shape,)
    sizes = isinstance(shape, tuple) and len(shape) <= 8 and all(type(side) is int and side >= 0 for side in shape)
    if not isinstance(kind, _Type) or not sizes or order not in ("C", "F"):
        raise _Refused("an array in an unknown form")
    if kind.references:
        if not isinstance(content, list) or len(shape) != 1 or shape[0] != len(content):
            raise _Refused("an array of references in an unknown form")
        return content
    if isinstance(content, str):  # as Python 2 wrote bytes
        content = content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise _Refused("an array in an unknown form")
    plain = kind.numpy()
    if math.prod(shape) * plain.itemsize != len(content):
        raise ValueError(f"an array of {shape} {plain} in {len(content)} bytes")
    return np.frombuffer(content, plain).reshape(shape, order=order)


def _scalar(kind: Any, content: Any) -> Any:
    return _made(content, kind, (), "C").item()


def _encoded(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("'_codecs.encode' of another kind than numpy's")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Likewise where there are none."""
    if arguments:
        raise _Refused("'bytes' of something")
    return b""


_NUMPY = ("numpy.core", "numpy._core")  # before and since numpy 2
_ALLOWED: Mapping[tuple[str, str], _Call] = {
    ("numpy", "ndarray"): _Call(lambda *_: _refuse("'numpy.ndarray' called")),
    ("numpy", "dtype"): _Call(_Type),
    ("_codecs", "encode"): _Call(_encoded),
    **{(module, "bytes"): _Call(_no_bytes) for module in ("builtins", "__builtin__")},
    **{(f"{core}.multiarray", "_reconstruct"): _Call(lambda *_: _Array()) for core in _NUMPY},
    **{(f"{core}.multiarray", "scalar"): _Call(_scalar) for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _Call(_made) for core in _NUMPY},
}


def _refuse(what: str) -> NoReturn:
    raise _Refused(what)


def _stand_in(module: str, name: str) -> _Call:
    found = _ALLOWED.get((module, name))
    if found is None:
        raise _Refused(f"'{module}.{name}'"[:120])
    return found


def _plain(value: Any, done: dict[int, Any], deep: int) -> Any:
    """The value with arrays in the place of their stand-ins; what stands in it several times is looked at once."""
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return value
    if deep == 0:
        raise _Refused(f"values nested deeper than {MOST_NESTED}, or in themselves")
    if id(value) not in done:
        done[id(value)] = _plain_parts(value, done, deep - 1)
    return done[id(value)]


def _plain_parts(value: Any, done: dict[int, Any], deep: int) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        return _plain(value.value, done, deep)
    if isinstance(value, list | tuple):
        return type(value)(_plain(each, done, deep) for each in value)
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            raise _Refused("a dict with keys that are neither text nor numbers")
        return {key: _plain(each, done, deep) for key, each in value.items()}
    raise _Refused("a function or a type alone" if isinstance(value, _Call | _Type) else f"a {type(value).__name__}")


Array = NDArray[Any]
