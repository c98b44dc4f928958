"""The numbers in a scikit-learn pickle, read without running any of its code.

A pickle names functions to call, so loading one trusts its author. Here every class it names becomes an empty
`Holder` that keeps the state stored for it; nothing is imported or called but the few constructors of NumPy
arrays and scalars. So no scikit-learn is needed either, and no version of it can misread the file.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Holder", "numbers_of"]


class Holder:
    """Stands in for an object: its state as attributes, whatever it was constructed with dropped."""

    def __new__(cls, *_args: Any) -> Holder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


class _Stored(Holder):
    """An array as joblib stores it: a header in the pickle, its bytes behind it in the stream."""

    stream: io.BufferedReader
    array: np.ndarray[Any, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # joblib aligns the bytes and says by how much in a byte of its own.
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.read(self.stream.read(1)[0])
        dtype, shape = state["dtype"], state["shape"]
        if dtype.hasobject:
            raise pickle.UnpicklingError("an array of Python objects is not numbers")
        raw = self.stream.read(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self.array = np.frombuffer(raw, dtype).reshape(shape, order=state["order"])


_NUMPY = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numpy._core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
}


class _Reader(pickle.Unpickler):
    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__(_Unbuffered(stream))
        self._stored = type("_StoredHere", (_Stored,), {"stream": stream})

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "joblib.numpy_pickle" and name == "NumpyArrayWrapper":
            return self._stored
        if module == "builtins" and name == "set":
            return set
        return _NUMPY.get((module, name), Holder)


class _Unbuffered:
    """A stream without `peek`, so that the unpickler never reads past the array header it has come to."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.read = stream.read
        self.readline = stream.readline
        self.readinto = stream.readinto


def numbers_of(path: Path) -> Any:
    """The object stored at `path`, as `Holder`s, NumPy arrays and plain Python values."""
    with path.open("rb") as stream:
        return _Reader(stream).load()
