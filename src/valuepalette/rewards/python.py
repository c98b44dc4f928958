"""A value by a Python function of one's own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Column
from valuepalette.rewards.exchange import Reads, answer_of, reads_or_raise

__all__ = ["PythonFunction", "imported"]

_SCALES = ("real", "probability", "log-probability")
_RANGES = {"probability": (0.0, 1.0), "log-probability": (-float("inf"), 0.0)}


def imported(path: str) -> Callable[..., Any]:
    """The function at an import path `module:name`; a module beside the current folder's files is found too.

    Raises ValueError where the path has another form, where the module or the name is missing, and where what it
    names cannot be called.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise ValueError(f"function must be an import path such as 'my_rewards:tone'; got {path!r}")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        function: Any = importlib.import_module(module_name)
        for part in name.split("."):
            function = getattr(function, part)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"function must name something that can be imported; got {path!r}: {error}"
        ) from error
    if not callable(function):
        raise ValueError(f"function must name a function; got {path!r}, a {type(function).__name__}")
    return function


class PythonFunction:
    """What a Python function of one's own returns: `function(prompts, responses)`.

    The function takes a list of prompts (texts, or lists of messages) and the list of the responses to them, and
    returns a number per response; with `columns`, a row of numbers per response. Responses come without the
    thoughts before `</think>` unless `thinking` is set. Whatever it returns must be such that larger is better.
    `version` should change whenever its numbers would; without it a checksum of its source stands in.
    """

    def __init__(
        self,
        *,
        function: str | Callable[..., Any],
        name: str = "python",
        definition: str | None = None,
        scale: str = "real",
        range: Sequence[float] | None = None,
        columns: Sequence[str] | None = None,
        reads: str = "conversation",
        thinking: bool = False,
        version: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if scale not in _SCALES:
            raise ValueError(f"scale must be one of {', '.join(map(repr, _SCALES))}; got {scale!r}")
        if range is not None and (len(range) != 2 or not range[0] <= range[1]):
            raise ValueError(f"range must be two numbers, the smaller first; got {range!r}")
        if isinstance(columns, str) or (columns is not None and not columns):
            raise ValueError(f"columns must be a list of names; got {columns!r}")
        self._function = imported(function) if isinstance(function, str) else function
        label = function if isinstance(function, str) else getattr(function, "__qualname__", repr(function))
        definition = definition or (inspect.getdoc(self._function) or "").split("\n")[0] or f"by {label}"
        bounds = _RANGES.get(scale, (-float("inf"), float("inf"))) if range is None else (range[0], range[1])
        kind = cast(Literal["real", "probability", "log-probability"], scale)
        self.columns = tuple(Column(column, definition, kind, bounds) for column in columns or (name,))
        self.reads: Reads = reads_or_raise(reads)
        self.thinking, self.options = thinking, dict(options or {})
        self.version = f"python 1, {label} {version or _checksum(self._function)}"
        if self.options:
            self.version += f" {sorted(self.options.items())}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        answers = [answer_of(response, thinking=self.thinking) for response in responses]
        returned = np.asarray(self._function(list(prompts), answers, **self.options), dtype=np.float64)
        return returned[:, None] if returned.ndim == 1 else returned

    def close(self) -> None:
        """Nothing to free."""


def _checksum(function: Callable[..., Any]) -> str:
    """A checksum of the file that defines the function, so that its helpers count; of its name where there is none."""
    try:
        source = Path(inspect.getsourcefile(function) or "").read_bytes()
    except (TypeError, OSError):
        source = repr(getattr(function, "__qualname__", type(function))).encode()
    return hashlib.sha256(source).hexdigest()[:12]
