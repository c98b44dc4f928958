"""Writes the pages of the commands and of the API; `--check` fails where one is not what would be written."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import reference
from rich.console import Console

from valuepalette.cli import app

FOLDER = Path(__file__).parent
COMMANDS = (
    "demo",
    "sample",
    "score",
    "solve",
    "plan",
    "decode",
    "evaluate",
    "finetune",
    "distill",
    "export",
    "compare",
    "report",
    "serve",
    "monitor",
    "studio",
    "values",
    "doctor",
)
HEAD = """\
# Commands

<!-- Written by `make docs` from `--help`; edit src/valuepalette/cli/ instead. -->

Each command takes a study, `study.toml` where none is named, or plain files. What takes long can be stopped at any
time, `kill -9` included, and goes on where it stopped when it is run again. An error is one line on standard error
and exit code 1; `--debug` shows where it came from. With `--json` a command prints one line of JSON.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [
        name
        for name, page in written().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != page
    ]
    if not check:
        for name in stale:
            (FOLDER / name).write_text(written()[name], encoding="utf-8")
    elif stale:
        print(f"stale, run `make docs`: {', '.join(stale)}", file=sys.stderr)
    return int(check and bool(stale))


def written() -> dict[str, str]:
    """The pages as they should be."""
    return {"commands.md": commands(), "api.md": reference.written()}


def commands() -> str:
    """From `--help`."""
    sections = [HEAD, _section("valuepalette")]
    sections += [_section(f"valuepalette {command}") for command in COMMANDS]
    return "\n".join(sections)


def _section(command: str) -> str:
    shown = io.StringIO()
    console = Console(file=shown, width=100, color_system=None, force_terminal=False)
    app([*command.split()[1:], "--help"], console=console, result_action="return_value")
    text = "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())
    return f"## `{command}`\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
