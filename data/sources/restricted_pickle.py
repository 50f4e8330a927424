"""Reader of pickles that were published as data, with an unpickler that can build nothing but data.

A pickle may name any function of any installed module and have it called. Here the only names known are the three that
NumPy's arrays need, and those lead to stand-ins below that check what they get: no code of NumPy is handed to the file.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {"u1": np.uint8, "i4": np.int32, "i8": np.int64}


class _Dtype:
    """Stand-in for `numpy.dtype`."""

    def __init__(self, code: str, *_: object) -> None:
        """Accept the `code` of a plain integer type; other arguments in the pickle are ignored."""
        if code not in _DTYPES:
            raise pickle.UnpicklingError(f"arrays of type {code!r} are not expected")
        self.dtype = np.dtype(_DTYPES[code]).newbyteorder("<")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Accept little-endian numbers, and bytes, which have no order."""
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError(f"arrays of byte order {state[1]!r} are not expected")


class _Array:
    """Stand-in for an array under construction."""

    def __init__(self, *_: object) -> None:
        """Start empty and ignore the pickle's arguments; the state follows."""
        self.array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Build the array from (version, shape, dtype, whether Fortran-ordered, bytes)."""
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, str | bytes):
            raise pickle.UnpicklingError("an array is not stored as plain numbers")
        content = content.encode("latin1") if isinstance(content, str) else content
        self.array = np.frombuffer(content, dtype=dtype.dtype).reshape(shape, order="F" if is_fortran else "C")


_KNOWN = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): "ndarray",  # only ever an argument of the function that starts an array
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}

# What the unpickler of Python raises for a file that is cut short or made up, besides its own error.
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _DataUnpickler(pickle.Unpickler):
    """Unpickler that builds numbers, text, lists, tuples, dicts and the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a known name; every other name is refused."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which data does not need")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to the outside."""
        raise pickle.UnpicklingError(f"it refers to {pid!r} outside the file")


def load_pickle(path: Path) -> dict[str, Any]:
    """The dict in the pickle file `path`, with texts decoded as Latin-1 if Python 2 wrote them.

    Values are numbers, texts, lists, tuples, dicts and integer arrays. Raises ValueError naming the file if it is cut
    short, is not a pickle of a dict, or holds anything else; OSError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = _DataUnpickler(file, encoding="latin1").load()
    except _UNPICKLING_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: this is not the published data file ({reason}); unpack the archive again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: this is not the published data file (it holds no dict); unpack the archive again")
    return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
