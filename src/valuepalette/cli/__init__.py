"""The commands. What is heavy is imported by the command that needs it, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import CycloptsError

# Each adds its commands to the app.
from valuepalette.cli import looking, reporting, steps, telling, training, watching  # noqa: F401
from valuepalette.cli.shared import app, fail

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 where all went well, 1 after an error, which is one line on standard error."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it leaves
        return 1
    except Exception as error:
        if "--debug" in tokens:
            raise
        expected = isinstance(error, ValueError | TypeError | OSError | ModuleNotFoundError)
        kind = "" if expected else f"{type(error).__name__}: "
        return fail(
            kind + (str(error) or type(error).__name__) + ("" if expected else " (--debug says where)")
        )


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
