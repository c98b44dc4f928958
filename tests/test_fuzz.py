"""Hostile input: a result that is right, or one line of ours that names what is wrong; never anything else.

Errors are ValueError or TypeError (FileNotFoundError where nothing is there), raised by a `raise` of the package and
not inside NumPy, SciPy or Arrow; warnings are the package's own. Verdicts are checked by linear programmes, with bounds
worked out anew from the entries. Each property runs on a few hundred examples, always the same, and in its slow form on
thousands of new ones.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import oracles
import valuepalette
from valuepalette.adjusting import adjust
from valuepalette.dual import Status
from valuepalette.features import Feature
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.reading import plain
from valuepalette.solution import Solution
from valuepalette.solving import levels, reach, solve

HOME = Path(valuepalette.__file__).parent
ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # all that str.splitlines takes for the end of a line

few = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
many = settings(
    max_examples=10_000,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


# ---- what an answer to hostile input may be


@cache
def _raises(path: str) -> tuple[tuple[int, int], ...]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return tuple((node.lineno, node.end_lineno or node.lineno) for node in found)


def fair(error: BaseException) -> bool:
    """Whether an error is one line, of a documented type, from a `raise` of the package."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    path = at.tb_frame.f_code.co_filename if at else ""
    ours = Path(path).is_relative_to(HOME) and any(a <= at.tb_lineno <= b for a, b in _raises(path))
    text = str(error)
    line = 10 <= len(text) <= 10_000 and not any(end in text for end in ENDS)
    return isinstance(error, ValueError | TypeError | FileNotFoundError) and ours and line


@contextmanager
def refused_fairly(told: list[BaseException]):
    """Errors that are fair are kept in `told`; others, and warnings that are not the package's own, fail."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            yield
        except Exception as error:
            if not fair(error):
                raise
            note(f"refused: {error}")
            told.append(error)
    for warning in seen:
        assert warning.category is UserWarning, warning
        assert not any(end in str(warning.message) for end in ENDS)


def attempt(what: Callable[[], object]) -> object:
    """The result, or None where it was refused fairly."""
    with refused_fairly([]):
        return what()
    return None


def test_only_errors_of_our_own_pass() -> None:
    def refusal(what: Callable[[], object]) -> BaseException:
        with pytest.raises(Exception) as told:
            what()
        return told.value

    assert fair(refusal(lambda: Palette({"humor": "nonsense"})))
    assert not fair(refusal(lambda: Feature.from_dict({})))
    assert not fair(refusal(lambda: np.zeros(2) + np.zeros(3)))
    assert not fair(refusal(lambda: pa.array(["text"], pa.int64())))

    def two_lines() -> None:
        raise ValueError("one line\nand another")

    assert not fair(refusal(two_lines))


# ---- what is hostile

odd_numbers = st.one_of(
    st.sampled_from(
        [
            0.0,
            -0.0,
            1.0,
            0.5,
            math.nan,
            math.inf,
            -math.inf,
            1e300,
            -1e300,
            1.7e308,
            5e-324,
            1e-310,
            1e16,
            1e-16,
        ]
    ),
    st.floats(),
    st.floats(-3, 3),
)
odd_names = st.one_of(
    st.sampled_from(
        [
            "humor", "tone", "a", "", " ", "\t", "\n", "a\nb", "x" * 900, "keep", "q60", "free", "P(humor < -2)",
            "humor @ audience=children", "prompt_id", "candidate", "prompt", "response", "messages", "drawn", "tokens",
            "prompts", "rows", "笑い", "لطافة", "🙂", "e\u0301", "\u2028", "\x00", "\ud800", "__index_level_0__", "=1",
            "max", "\ufeff", "None", "nan",
        ]
    ),
    st.text(max_size=8),
    st.text(st.characters(), max_size=4),
)  # fmt: skip
odd_things = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(2**63), 2**64]),
    odd_numbers,
    odd_names,
    st.binary(max_size=4),
    st.sampled_from([Decimal("1.5"), Decimal("NaN"), date(2020, 1, 1), 1j, object()]),
    st.sampled_from([np.float16(2), np.datetime64("2020"), np.datetime64("2020-01-01", "s")]),
    st.lists(st.one_of(odd_numbers, odd_names), max_size=3),
    st.dictionaries(odd_names, odd_numbers, max_size=2),
)  # fmt: skip

words = [
    "q", "q60", "q-1", "q101", "q1e999", "q nan", "keep", "free", "max", "reach", "reach 50%", "reach 1e999%",
    "reach -1%", "+0.3", "+-1", "base-0.3", "base - 1e400", "x1.2", "x0", "x-1", "x1e999", "within", "q80 within",
    "P(< -2) <= 0.02", "P(<= q5) <= 0.1", "P(> 1e999) >= 0.5", "P(< 0) <= 2", "P()", "P(", ">=", "<=", "==", ">= 0.5",
    "== keep", "<= q40", "== reach 5%", "1e400", "-1e300", "5e-324", "nan", "inf", "-inf", "0x10", "１２", "½", "0.5;",
    "@", "keep @ a=b",
]  # fmt: skip
odd_entries = st.recursive(
    st.one_of(
        st.sampled_from(words),
        st.lists(st.sampled_from(words), min_size=2, max_size=3).map(" ".join),
        odd_numbers,
        odd_things,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner),
    max_leaves=4,
)


# ---- palettes


def check_palette(entries: object, cohorts: object, kl: object) -> None:
    palette = attempt(lambda: Palette(entries, cohorts=cohorts, kl=kl))
    if palette is None:
        return
    assert isinstance(palette, Palette)
    repr(palette)
    # What was read says itself again, and means the same.
    again = attempt(lambda: Palette(palette.entries, cohorts=palette.cohorts, kl=palette.kl))
    assert again == palette
    assert hash(again) == hash(palette)


keys = odd_names | odd_things.filter(lambda thing: thing.__hash__ is not None)
cohorts = st.one_of(odd_names, st.sampled_from(["a=b", "a=", "a == b"]))
hostile_palettes = (
    st.dictionaries(keys, odd_entries, max_size=3) | odd_things,
    st.none()
    | odd_things
    | st.dictionaries(cohorts, st.dictionaries(odd_names, odd_entries, max_size=2), max_size=2),
    st.none() | odd_things | st.just(0.5),
)


@few
@given(*hostile_palettes)
def test_a_palette_is_read_or_refused_in_one_line(entries: object, cohorts: object, kl: object) -> None:
    check_palette(entries, cohorts, kl)


@pytest.mark.slow
@many
@given(*hostile_palettes)
def test_palettes_by_the_thousand(entries: object, cohorts: object, kl: object) -> None:
    check_palette(entries, cohorts, kl)


# ---- pilots


def check_pilot(pilot: object, folder: Path | None = None) -> None:
    """A pilot that was read is whole: finite numbers, each row of a prompt, and it survives being written."""
    if pilot is None:
        return
    assert isinstance(pilot, Pilot)
    assert pilot.array.shape == (pilot.rows, len(pilot.values))
    assert np.isfinite(pilot.array).all()
    assert pilot.sizes.sum() == pilot.rows >= pilot.prompts >= 1
    told: list[BaseException] = []
    with refused_fairly(told):
        str(pilot.describe())
        repr(pilot)
        pilot.select([0])
    assert not told
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "pilot.parquet"
        again = attempt(lambda: pilot.write(path) or Pilot.read(path))
    if again is None:  # Parquet holds no structure without fields
        return
    assert isinstance(again, Pilot)
    assert (again.values, again.columns, again.rows) == (pilot.values, pilot.columns, pilot.rows)
    assert np.array_equal(again.array, pilot.array)


def as_given(rows: list[object]) -> st.SearchStrategy[object]:
    """A list, or the arrays that NumPy or Arrow make of it."""

    def arrays(kind: str) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if kind == "numpy":
                    return np.array(rows)
                if kind == "float":
                    return np.array(rows, float)
                if kind == "object":
                    return np.array([*rows, None], object)[:-1]
                if kind == "arrow":
                    return pa.array(plain(rows))
                return np.array([rows, rows])
            except Exception:
                return rows

    return st.sampled_from(["list", "numpy", "float", "object", "arrow", "square"]).map(
        lambda kind: rows if kind == "list" else arrays(kind)
    )


@st.composite
def columns_of(draw: st.DrawFn, rows: int) -> object:
    """A column of about `rows` entries: numbers, mostly of one kind, with a stray thing in it now and then."""
    kind = draw(st.sampled_from([st.floats(-3, 3), odd_numbers, st.integers(0, 3), odd_names, odd_things]))
    size = rows if draw(st.integers(0, 9)) else draw(st.integers(0, 5))
    entries: list[object] = draw(st.lists(kind, min_size=size, max_size=size))
    if entries and not draw(st.integers(0, 4)):
        entries[draw(st.integers(0, len(entries) - 1))] = draw(odd_things)
    return draw(as_given(entries)) if draw(st.integers(0, 12)) else draw(odd_things)


@st.composite
def array_arguments(draw: st.DrawFn) -> dict[str, object]:
    rows = draw(st.integers(0, 6))
    given: dict[str, object] = {
        "values": draw(
            st.dictionaries(odd_names, columns_of(rows), max_size=3)
            if draw(st.integers(0, 9))
            else odd_things
        )
    }
    for name in ("prompt_id", "prompts", "responses"):
        if draw(st.booleans()):
            given[name] = draw(columns_of(rows))
    if not draw(st.integers(0, 2)):
        given["columns"] = draw(st.dictionaries(odd_names, columns_of(rows), max_size=2))
    if not draw(st.integers(0, 1)):
        given["prompt_id"] = [row // 2 for row in range(rows)]
    return given


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[object]]]:
    rows = draw(st.integers(0, 5))
    names = draw(st.lists(odd_names, max_size=3))
    if draw(st.booleans()):
        names = ["prompt_id", *names, "humor"]
    kinds = [st.floats(-3, 3), st.integers(0, 2), odd_numbers, odd_names, odd_things]
    columns = [draw(st.lists(draw(st.sampled_from(kinds)), min_size=rows, max_size=rows)) for _ in names]
    return names, [list(row) for row in zip(*columns, strict=True)]


def as_json(thing: object) -> object:
    return thing if isinstance(thing, str | int | float | bool | list | dict | None) else str(thing)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name and bytes: a table as a file holds it, some bytes of it lost or changed, or anything at all."""
    suffix = draw(st.sampled_from([".csv", ".jsonl", ".json", ".parquet", ".txt", ".csv.gz", ".xyz"]))
    if not draw(st.integers(0, 5)):
        return suffix, draw(
            st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8"))
        )
    names, rows = draw(tables())
    if suffix == ".parquet":
        columns = {}
        for name, column in zip(names, zip(*rows, strict=True) if rows else [[]] * len(names), strict=False):
            try:
                one = pa.table({name: pa.array(plain(column))})
                pq.write_table(one, io.BytesIO())
            except Exception:  # what Parquet cannot hold cannot come from it
                continue
            columns[name] = one[name]
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        data = sink.getvalue()
    elif suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, escapechar="\\")
        writer.writerows([names, *rows])
        data = text.getvalue().encode("utf-8", "surrogatepass")
    else:
        records = [dict(zip(names, map(as_json, row), strict=True)) for row in rows]
        ascii_ = draw(st.booleans())
        lines = [json.dumps(record, default=str, ensure_ascii=ascii_) for record in records]
        text = "\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]"
        data = text.encode("utf-8", "surrogatepass")
    if data and not draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 3)) :]
    return suffix, data


def check_arrays(arguments: Mapping[str, object]) -> None:
    check_pilot(attempt(lambda: Pilot.from_arrays(**arguments)))  # pyright: ignore[reportArgumentType]


def check_file(file: tuple[str, bytes], values: object, columns: object) -> None:
    suffix, data = file
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / f"pilot{suffix}"
        path.write_bytes(data)
        check_pilot(attempt(lambda: Pilot.read(path, values=values, columns=columns)))  # pyright: ignore[reportArgumentType]


def check_object(thing: object) -> None:
    if not isinstance(thing, str | Path):
        check_pilot(attempt(lambda: Pilot.read(thing)))


roles = st.one_of(st.none(), st.none(), st.lists(odd_names, max_size=2), odd_things)


@st.composite
def objects(draw: st.DrawFn) -> object:
    """What is no file: Arrow tables of any columns, dictionaries, anything."""
    names, rows = draw(tables())
    columns = dict(
        zip(names, map(list, zip(*rows, strict=True)) if rows else [[]] * len(names), strict=False)
    )
    if draw(st.booleans()):
        return draw(st.sampled_from([columns, rows]) | odd_things)
    made, called = [], []
    for name, column in columns.items():
        try:
            name.encode("utf-8")
            made.append(pa.array(plain(column)))
            called.append(name)
        except Exception:
            continue
    if draw(st.booleans()) and called:
        made.append(made[0])
        called.append(called[0])
    return pa.Table.from_arrays(made, names=called)


@few
@given(array_arguments())
def test_arrays_become_a_pilot_or_one_line(arguments: Mapping[str, object]) -> None:
    check_arrays(arguments)


@few
@given(files(), roles, roles)
def test_a_file_becomes_a_pilot_or_one_line(file: tuple[str, bytes], values: object, columns: object) -> None:
    check_file(file, values, columns)


@few
@given(objects())
def test_a_table_becomes_a_pilot_or_one_line(thing: object) -> None:
    check_object(thing)


@pytest.mark.slow
@many
@given(array_arguments())
def test_arrays_by_the_thousand(arguments: Mapping[str, object]) -> None:
    check_arrays(arguments)


@pytest.mark.slow
@many
@given(files(), roles, roles)
def test_files_by_the_thousand(file: tuple[str, bytes], values: object, columns: object) -> None:
    check_file(file, values, columns)


@pytest.mark.slow
@many
@given(objects())
def test_tables_by_the_thousand(thing: object) -> None:
    check_object(thing)


# ---- solving


@dataclass(frozen=True)
class Wish:
    """An entry, and what it means: `(lower, upper)` of one column of numbers by prompt, and k (None in joint mode)."""

    text: object
    means: Callable[[list[Column], int | None], tuple[float, float]]


Column = np.ndarray


def mean(by_prompt: list[Column]) -> float:
    return float(np.mean([np.mean(numbers) for numbers in by_prompt]))


def quantiles(by_prompt: list[Column], share: float) -> float:
    return float(np.mean([np.quantile(numbers, share) for numbers in by_prompt]))


def at_least(
    level: Callable[[list[Column]], float],
) -> Callable[[list[Column], int | None], tuple[float, float]]:
    return lambda column, k: (level(column), math.inf)


def farthest(column: list[Column], k: int | None, sign: int) -> float:
    """The mean over prompts of the largest of k candidates, all subsets alike; of all rows in joint mode."""
    if k is None:
        return sign * max(float((sign * numbers).max()) for numbers in column)
    tops = []
    for numbers in column:
        ranked = np.sort(sign * numbers)
        tops.append(ranked @ oracles.largest_of_subset(k, len(ranked)))
    return sign * float(np.mean(tops))


def reached(share: float, sign: int) -> Callable[[list[Column], int | None], tuple[float, float]]:
    def means(column: list[Column], k: int | None) -> tuple[float, float]:
        level = mean(column) + share * (farthest(column, k, sign) - mean(column))
        return (level, math.inf) if sign > 0 else (-math.inf, level)

    return means


@st.composite
def wishes(draw: st.DrawFn, size: float, centre: float) -> Wish:
    """An entry for a value of about that size, that asks for little, for much, or for what cannot be."""
    kind = draw(st.integers(0, 9))
    step = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, -0.5, -1.0, 1e3]) | st.floats(-2, 2))
    level = float(centre + step * size)
    if kind <= 1:
        return Wish(level, lambda column, k: (level, math.inf))
    if kind == 2:
        return Wish(f"<= {level!r}", lambda column, k: (-math.inf, level))
    if kind == 3:
        return Wish(f"== {level!r}", lambda column, k: (level, level))
    if kind == 4:
        return Wish("keep", at_least(mean))
    if kind == 5:
        offset = abs(step) * size
        return Wish(f"+{offset!r}", at_least(lambda column: mean(column) + offset))
    if kind == 6:
        share = draw(st.sampled_from([0, 10, 50, 90, 99.9, 100, 100]))
        sign = draw(st.sampled_from([1, -1]))
        return Wish(f"{'>=' if sign > 0 else '<='} reach {share}%", reached(share / 100, sign))
    if kind == 7:
        share = draw(st.sampled_from([0, 5, 50, 60, 95, 100]))
        return Wish(
            f"q{share} within",
            at_least(lambda column: quantiles(column, share / 100)),
        )
    if kind == 8:
        return Wish("free", lambda column, k: (-math.inf, math.inf))
    wide = abs(step) * size
    return Wish([f">= {level!r}", f"<= {level + wide!r}"], lambda column, k: (level, level + wide))


@dataclass(frozen=True)
class Case:
    sizes: list[int]
    values: dict[str, np.ndarray]
    wishes: dict[str, Wish]
    options: dict[str, object]

    def pilot(self) -> Pilot:
        return Pilot.from_arrays(self.values, prompt_id=np.repeat(np.arange(len(self.sizes)), self.sizes))

    @property
    def palette(self) -> dict[str, object]:
        return {name: wish.text for name, wish in self.wishes.items()}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A small pilot with ties, outliers, constants, copies and any units, and a palette for it."""
    prompts = draw(st.integers(1, 4))
    each = draw(st.integers(1, 4))
    sizes = (
        [each] * prompts
        if draw(st.integers(0, 4))
        else draw(st.lists(st.integers(1, 4), min_size=prompts, max_size=prompts))
    )
    rows = sum(sizes)
    values: dict[str, np.ndarray] = {}
    asked: dict[str, Wish] = {}
    names = draw(
        st.lists(
            st.sampled_from(["humor", "笑い", "keep", "q60", "x" * 99, "a @ b=c", "é"]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    for name in names:
        size = draw(
            st.sampled_from([1.0, 1.0, 1.0, 1.0, 1e6, 1e-6, 1e30, 1e-30, 1e99, 1e-99, 1e-300, 5e-324])
        )
        centre = draw(st.sampled_from([0.0, 0.0, 0.0, 5.0, -1e3, 1e8, 1e16])) * size
        kind = draw(
            st.sampled_from(["ties", "ties", "any", "any", "outlier", "constant", "by prompt", "copy"])
        )
        if kind == "ties":
            numbers = np.array(draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)), float)
        elif kind == "constant":
            numbers = np.zeros(rows)
        elif kind == "by prompt":
            numbers = np.repeat(np.arange(len(sizes), dtype=float), sizes)
        elif kind == "copy" and values:
            size, numbers = draw(st.sampled_from([1.0, -1.0, 2.0])), next(iter(values.values()))
        else:
            numbers = np.array(draw(st.lists(st.floats(-3, 3), min_size=rows, max_size=rows)))
            if kind == "outlier":
                numbers[0] = draw(st.sampled_from([1e3, -1e9]))
        values[name] = numbers * size + centre
        if draw(st.integers(0, 7)):
            asked[name] = draw(wishes(size, centre))
    if not asked:
        asked[names[0]] = draw(wishes(1.0, 0.0))
    options: dict[str, object] = {}
    if draw(st.integers(0, 2)):
        options["mode"] = draw(st.sampled_from(["prompt", "prompt", "joint"]))
    if min(sizes) < max(sizes) or not draw(st.integers(0, 4)):
        options["candidates"] = draw(st.integers(1, min(sizes)))
    return Case(sizes, values, asked, options)


def asked_of(case: Case, joint: bool, k: int | None) -> oracles.Problem:
    """The case as linear programmes see it, with bounds from the entries."""
    at = np.concatenate([[0], np.cumsum(case.sizes)])
    bounds = dict.fromkeys(case.values, (-math.inf, math.inf))
    for name, wish in case.wishes.items():
        bounds[name] = wish.means([case.values[name][a:b] for a, b in pairwise(at)], k)
    low, high = np.array(list(bounds.values())).T
    table = np.column_stack(list(case.values.values()))
    return oracles.problem(table, case.sizes, low, high, joint=joint)


def check_case(case: Case) -> None:
    pilot = attempt(case.pilot)
    if pilot is None:
        return
    assert isinstance(pilot, Pilot)
    solution = attempt(lambda: solve(pilot, case.palette, on_infeasible="return", **case.options))  # pyright: ignore[reportArgumentType]
    if solution is None:
        return
    assert isinstance(solution, Solution)
    assert attempt(lambda: (str(solution), solution.to_dict())) is not None
    check_verdict(case, solution)
    check_others(case, pilot, solution)


def check_others(case: Case, pilot: Pilot, solution: Solution) -> None:
    """What else a palette can be given to ends in a result or in one line."""
    options: Any = case.options
    attempt(lambda: str(levels(pilot, dict.fromkeys(case.palette, 1e3), **options)))
    attempt(lambda: str(reach(pilot, case.palette, next(iter(case.values)), **options)))
    if solution.status is Status.INFEASIBLE:
        attempt(lambda: str(adjust(pilot, case.palette, **options)))


def judged(whole: oracles.Problem, k: int | None) -> str:
    """The verdict of linear programmes; "either" where they stop short, or in their zone of doubt.

    The solver's own is 1e-8 standard deviations wide. It is 1e-7 where a column holds differences small enough to
    fall into it, and as wide as the rounding of the numbers themselves beside a large offset.
    """
    problem = whole if k is None else oracles.subsets(whole, k)
    try:
        says, room = oracles.verdict(problem), oracles.margin(problem)
        room = room if np.isfinite(room) else oracles.distance(problem)
    except RuntimeError:
        return "either"
    steps = [np.diff(np.unique(column)) for column in problem.values.T]
    fine = any(gaps.size and gaps.min() < 1e-5 * gaps.max() for gaps in steps)
    varies = ~oracles.constant(whole)
    largest, spread = np.abs(whole.values).max(axis=0), oracles.spread(whole)
    rounding = 64 * np.finfo(float).eps * float((largest[varies] / spread[varies]).max(initial=0.0))
    doubt = max(
        1e-7 if fine else 0.0, rounding if rounding > 1e-9 else 0.0, 1e-8 if says == "infeasible" else 0.0
    )
    # One candidate leaves nothing to choose, and no spread of its own to measure a doubt in.
    only = oracles.constant(problem) & varies
    base = oracles.tilt(whole, np.zeros(whole.features)).levels
    lacks = np.maximum(whole.lower - base, base - whole.upper)[only] / spread[only]
    alone = ((lacks > 0) & (lacks < max(1e-8, rounding))).any() or (rounding > 1e-9 and only.any())
    return "either" if abs(room) < doubt or alone or (largest[~varies] < 1e-280).any() else says


def check_verdict(case: Case, solution: Solution) -> None:
    k = solution.candidates if isinstance(solution.candidates, int) else None
    problem = asked_of(case, k is None, k)
    if (problem.lower > problem.upper).any():
        assert solution.status is Status.INFEASIBLE
        return
    says = judged(problem, k)
    note(f"{says}; {solution}")
    allowed = {
        "optimal": {Status.OPTIMAL},
        "boundary": {Status.BOUNDARY},
        "infeasible": {Status.INFEASIBLE},
        "either": set(Status),
    }
    assert solution.status in allowed[says]


@few
@given(cases())
def test_a_verdict_is_right_or_refused_in_one_line(case: Case) -> None:
    check_case(case)


@pytest.mark.slow
@many
@given(cases())
def test_verdicts_by_the_thousand(case: Case) -> None:
    check_case(case)
