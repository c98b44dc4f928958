"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from valuepalette.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_sees_one_line_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream, clock = Terminal(), Clock()
    with Progress("sampling", 60, stream=stream, clock=clock) as progress:
        clock.now = 10.0
        progress.advance(20)
        clock.now = 30.0
        progress.advance(40)
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "sampling: 0 of 60 prompts",
        "sampling: 20 of 60 prompts, 2/s, 20 s left",
        "sampling: 60 of 60 prompts in 30 s\n",
    ]


def test_a_narrow_terminal_is_not_overrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    with Progress("sampling a folder", 60, stream=stream):
        assert stream.getvalue() == "\r\x1b[Ksampling a folder: "


def test_elsewhere_there_are_plain_lines_and_few() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress("sampling", 100, stream=stream, clock=clock) as progress:
        for second in range(1, 26):
            clock.now = float(second)
            progress.advance(4)
    assert stream.getvalue().splitlines() == [
        "sampling: 0 of 100 prompts",
        "sampling: 40 of 100 prompts, 4/s, 15 s left",
        "sampling: 80 of 100 prompts, 4/s, 5 s left",
        "sampling: 100 of 100 prompts in 25 s",
    ]


def test_what_was_done_before_has_no_part_in_the_rate() -> None:
    stream, clock = Terminal(), Clock()
    with Progress("scoring", 100, done=50, unit="parts", stream=stream, clock=clock) as progress:
        clock.now = 5.0
        progress.advance(10)
        assert stream.getvalue().endswith("scoring: 60 of 100 parts, 2/s, 20 s left")


@pytest.mark.parametrize(("quiet", "done"), [(True, 0), (False, 10)])
def test_nothing_is_said_when_quiet_or_when_nothing_is_left(quiet: bool, done: int) -> None:
    stream = Terminal()
    with Progress("sampling", 10, done=done, quiet=quiet, stream=stream):
        pass
    assert stream.getvalue() == ""


def test_an_error_begins_on_a_line_of_its_own() -> None:
    stream = Terminal()
    with pytest.raises(KeyError), Progress("sampling", 10, stream=stream):
        raise KeyError
    assert stream.getvalue().endswith("0 of 10 prompts\n")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min")])
def test_durations_round_into_the_next_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
