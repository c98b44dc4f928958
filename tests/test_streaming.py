"""A pilot in pieces: the same solution as in memory, on every kind of palette, within a budget."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import valuepalette as vp
from oracles import Problem
from problems import asked, at_margin, lattice, many, planted
from valuepalette import Palette, Pilot, Solution, Status
from valuepalette.provenance import PilotMetadata
from valuepalette.shards import WORK, ParquetShards, open_shards

NAMES = ("humor", "tone", "care", "wit", "calm")
NUMBERS = (
    "q60",
    "q45 within",
    "keep",
    "reach 35%",
    "base-0.05",
    "<= q80",
    "== keep",
    "P(> 0.3) >= reach 20%",
    "P(< q30) <= keep",
    ">= reach 20%",
    "free",
)


def table_of(p: Problem, rng: np.random.Generator) -> pa.Table:
    """The rows of a problem; weights and cohorts are columns of the prompt."""
    prompt = p.prompt
    cohort = np.array(["young", "old", None], dtype=object)[rng.integers(0, 3, len(p.weights))]
    return pa.table(
        {
            "prompt_id": prompt,
            "share": p.weights[prompt],
            "audience": pa.array(cohort[prompt], pa.large_string()),
            **{name: p.values[:, i] for i, name in enumerate(NAMES[: p.features])},
        }
    )


def written(table: pa.Table, folder: Path, rng: np.random.Generator, starts: Any) -> Path:
    """In up to four files, cut between prompts, of row groups that are not."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = np.unique(rng.choice(starts[1:], size=3)) if len(starts) > 2 else starts[1:]
    for number, (a, b) in enumerate(zip([0, *cuts], [*cuts, table.num_rows], strict=True)):
        if a < b:
            path = folder / f"part-{number}.parquet"
            pq.write_table(table.slice(a, b - a), path, row_group_size=int(rng.integers(1, 9)))
    return folder


def tiny(folder: Path, rng: np.random.Generator, **told: Any) -> ParquetShards:
    """A budget so small that a piece is a prompt or two, and nothing is kept."""
    opened = open_shards(folder, **told)
    return replace(opened, memory=int(rng.integers(1, 12)) * WORK * max(4, len(opened.head.values)))


def both(
    table: pa.Table, shards: ParquetShards, palette: Palette, *args: Any, **told: Any
) -> tuple[Solution | str, Solution | str]:
    """What memory and pieces answer; an error is answered by its one line."""
    answers: list[Solution | str] = []
    for source in (Pilot.read(table, values=list(shards.head.values)), shards):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                answers.append(vp.solve(source, palette, *args, on_infeasible="return", **told))
        except ValueError as error:
            answers.append(str(error))
    return answers[0], answers[1]


def assert_same(
    memory: Solution | str, pieces: Solution | str, *, margins: bool = True, ties: bool = False
) -> None:
    if isinstance(memory, str) or isinstance(pieces, str):
        assert memory == pieces
        return
    unit = np.where(memory.spread > 0, memory.spread, 1.0)
    tight = 1e-9

    def near(ours: Any, theirs: Any, scale: Any = 1.0) -> bool:
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        with np.errstate(invalid="ignore"):
            close = np.abs(ours - theirs) <= tight * scale
        return bool(np.all(close | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))

    assert memory.status is pieces.status
    assert memory.features == pieces.features
    assert memory.asked == pieces.asked
    assert memory.mode == pieces.mode
    assert memory.candidates == pieces.candidates
    assert memory.prompts == pieces.prompts
    assert dict(memory.fingerprint) == dict(pieces.fingerprint)
    assert near(memory.spread, pieces.spread, unit)
    for name in ("base", "lower", "upper", "quantiles"):
        ours, theirs = (np.asarray(getattr(s.resolved, name)) for s in (memory, pieces))
        assert near(ours.T, theirs.T, unit + np.abs(memory.resolved.base)), name
    if memory.status is Status.INFEASIBLE:
        assert memory.certificate is not None
        assert pieces.certificate is not None
        if ties:
            # Several certificates are as sharp as any, to the 1 % that is promised.
            assert pieces.certificate.margin == pytest.approx(memory.certificate.margin, rel=0.02)
            return
        assert near(memory.certificate.gap, pieces.certificate.gap, 1 + abs(memory.certificate.asked))
        assert near(memory.certificate.directions.array * unit, pieces.certificate.directions.array * unit)
        assert near(memory.certificate.se, pieces.certificate.se, 1 + memory.certificate.se)
        assert str(memory.certificate) == str(pieces.certificate)
        return
    factor = memory.resolved.factor * unit
    assert near(memory.levels.array, pieces.levels.array, factor)
    assert near(memory.gains.array, pieces.gains.array, factor)
    assert near(memory.levels.se, pieces.levels.se, factor)
    assert near(memory.gains.se, pieces.gains.se, factor)
    assert near(memory.kl, pieces.kl, 1 + memory.kl)
    free = np.flatnonzero(memory.weights.array)
    V = memory.covariance[np.ix_(free, free)] / np.outer(unit[free], unit[free])
    # How far apart the two can be: what is proved of each, or where nothing is, what their residuals leave.
    left = 2 * np.sqrt(len(free)) * (memory.kkt_residual + pieces.kkt_residual)
    left *= np.linalg.norm(np.linalg.pinv(V), 2) if len(free) else 0.0
    errors = (solution.weights.error * unit for solution in (memory, pieces))
    proved = sum(np.where(np.isnan(error), left, error) for error in errors)
    apart = np.abs(memory.weights.array - pieces.weights.array) * unit
    assert np.all(apart <= 1e-9 * (1 + np.abs(memory.weights.array * unit)) + proved)
    assert near(memory.faces, pieces.faces)
    settled = 1 + 1e3 * proved.max(initial=0.0)
    assert near(memory.ess, pieces.ess, settled * memory.ess)
    assert near(memory.covariance, pieces.covariance, settled * np.outer(unit, unit))
    assert memory.bound_covariance is not None
    assert pieces.bound_covariance is not None
    assert near(memory.bound_covariance, pieces.bound_covariance, settled * np.outer(unit, unit))
    if len(free):
        # The errors of weights go through V⁻¹.
        settled *= float(np.linalg.cond(V))
    size = 1 + np.nan_to_num(memory.weights.se * unit)
    assert near(memory.weights.se * unit, pieces.weights.se * unit, settled * size)
    if margins:
        assert near(memory.margin, pieces.margin, 10.0)


def by_bounds(p: Problem) -> Palette:
    """The palette that asks for the bounds of a problem."""
    entries: dict[str, object] = {}
    for name, lower, upper in zip(NAMES, p.lower.tolist(), p.upper.tolist(), strict=False):
        ends = [f">= {lower!r}"] * (lower > -np.inf) + [f"<= {upper!r}"] * (upper < np.inf)
        entries[name] = f"== {lower!r}" if lower == upper else ends or "free"
    return Palette(entries)


# ---- the same answer as in memory


@pytest.mark.parametrize("kind", ["planted", "asked", "edge", "lattice"])
def test_bounds_in_numbers(kind: str, tmp_path: Path) -> None:
    """Feasible, infeasible and exactly on the boundary; prompt and joint mode, ragged, weighted."""
    _in_numbers(kind, tmp_path, 700, 12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["planted", "asked", "edge", "lattice"])
def test_more_bounds_in_numbers(kind: str, tmp_path: Path) -> None:
    _in_numbers(kind, tmp_path, 706, 120)


def _in_numbers(kind: str, tmp_path: Path, seed: int, count: int) -> None:
    for number, rng in enumerate(many(seed, count)):
        if kind == "planted":
            p = planted(rng).problem
        elif kind == "asked":
            p = asked(rng)
        elif kind == "lattice":
            p = lattice(rng, joint=bool(rng.integers(2)))
        else:
            p = at_margin(lattice(rng, joint=bool(rng.integers(2))), float(rng.choice([1e-3, -1e-3])))
        table = table_of(p, rng)
        shards = tiny(written(table, tmp_path / str(number), rng, p.starts), rng, values=NAMES[: p.features])
        k = None if p.joint else int(p.sizes.min())
        told: dict[str, Any] = {"mode": "joint" if p.joint else "prompt", "weighting": "share"}
        ties = kind in ("edge", "lattice")
        assert_same(*both(table, shards, by_bounds(p), k, **told), margins=number % 8 == 0, ties=ties)


@pytest.mark.parametrize("weighting", ["prompts", "rows", "share"])
def test_everything_that_can_be_asked(weighting: str, tmp_path: Path) -> None:
    """Quantiles, reach, tails, cohorts, factors; k below K in blocks of a seed; the limit."""
    _of_everything(weighting, tmp_path, 701, 15)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["prompts", "rows", "share"])
def test_more_of_everything(weighting: str, tmp_path: Path) -> None:
    _of_everything(weighting, tmp_path, 707, 120)


def _of_everything(weighting: str, tmp_path: Path, seed: int, count: int) -> None:
    for number, rng in enumerate(many(seed, count)):
        even = int(rng.integers(4, 9)) // 2 * 2 if rng.integers(2) else None
        p = asked(rng, candidates=even, prompts=int(rng.choice([5, 12, 30])))
        table = table_of(p, rng)
        shards = tiny(written(table, tmp_path / str(number), rng, p.starts), rng, values=NAMES[: p.features])
        entries = {
            name: [str(e) for e in rng.choice(NUMBERS[:-1], size=rng.integers(1, 3), replace=False)]
            for name in NAMES[: p.features]
        }
        cohorts = {"audience=old": {NAMES[0]: str(rng.choice(["keep", "q55", "reach 20%"]))}}
        joint = bool(rng.integers(3) == 0)
        palette = Palette(entries, cohorts=cohorts if rng.integers(2) and not joint else {})
        k: Any = int(rng.integers(1, p.sizes.min() + 1))
        if even and rng.integers(4) == 0:
            k = "limit"
        told: dict[str, Any] = {"mode": "joint" if joint else "prompt", "weighting": weighting}
        memory, pieces = both(table, shards, palette, None if joint else k, seed=number, **told)
        if isinstance(memory, str) and "cohort" in memory:
            assert isinstance(pieces, str)
            continue
        assert_same(memory, pieces, margins=number % 8 == 0)


def test_single_precision_and_large_offsets(tmp_path: Path) -> None:
    for number, rng in enumerate(many(702, 10)):
        p = planted(rng, candidates=4).problem
        values = {
            name: (p.values[:, i] + 10.0 ** (number % 4)).astype(np.float32)
            for i, name in enumerate(NAMES[: p.features])
        }
        table = pa.table({"prompt_id": p.prompt, **values})
        shards = tiny(written(table, tmp_path / str(number), rng, p.starts), rng)
        assert shards.head.single
        palette = Palette(dict.fromkeys(shards.head.values[:2], "reach 30%"))
        assert_same(*both(table, shards, palette, mode="prompt"))


def test_one_file_of_many_row_groups(tmp_path: Path) -> None:
    """A prompt that runs through several row groups stays whole."""
    rng = np.random.default_rng(703)
    p = asked(rng, candidates=8, prompts=30, features=2)
    table = table_of(p, rng)
    pq.write_table(table, tmp_path / "pilot.parquet", row_group_size=3)
    shards = tiny(tmp_path / "pilot.parquet", rng, values=NAMES[:2])
    sizes = [np.diff(piece.starts).tolist() for piece in shards.map(lambda piece: piece)]
    assert [size for piece in sizes for size in piece] == [8] * 30
    assert len(sizes) > 5
    assert_same(*both(table, shards, Palette({"humor": "reach 50%", "tone": "keep"})))


def test_what_fits_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(704)
    p = asked(rng, candidates=4, prompts=30, features=2)
    written(table_of(p, rng), tmp_path, rng, p.starts)
    shards = open_shards(tmp_path, values=NAMES[:2])
    vp.solve(shards, {"humor": "reach 20%"})
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    assert vp.solve(shards, {"humor": "reach 40%"}).status is Status.OPTIMAL
    small = replace(shards, memory=1000, _kept={})
    with pytest.raises(ValueError, match="No such file"):
        vp.solve(small, {"humor": "reach 20%"})


def test_newton_begins_on_a_sample(tmp_path: Path) -> None:
    """Of a pilot that is worth it: fewer passes over all of it, the same answer."""
    rng = np.random.default_rng(705)
    values = rng.exponential(size=(40_000, 6, 2)) + rng.normal(size=(40_000, 1, 2))
    columns = {name: values.reshape(-1, 2)[:, i] for i, name in enumerate(NAMES[:2])}
    table = pa.table({"prompt_id": np.repeat(np.arange(40_000), 6), **columns})
    pq.write_table(table, tmp_path / "pilot.parquet")
    palette = Palette({"humor": "reach 70%", "tone": "reach 20%"})
    memory, pieces = both(table, open_shards(tmp_path, memory="64 MB"), palette)
    assert_same(memory, pieces)
    assert isinstance(memory, Solution)
    assert isinstance(pieces, Solution)
    assert pieces.passes < memory.passes
    assert pieces.passes <= 4


LIMITED = """
import resource, sys
import numpy, pyarrow.parquet, scipy.optimize, scipy.special
import valuepalette as vp
import valuepalette.solving

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

vp.solve(vp.Pilot.from_arrays({"a": [0.0, 1.0], "b": [0.0, 2.0]}, prompt_id=[0, 0]), {"a": "reach 20%"})
before = peak()
shards = vp.open_shards(sys.argv[1], memory=int(sys.argv[2]))
solution = vp.solve(shards, {"a": "reach 20%", "b": "keep"}, int(sys.argv[3]))
print(peak() - before, solution.status.name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("k", [8, 3])
def test_memory_stays_within_the_budget(k: int, tmp_path: Path) -> None:
    """96 MB of numbers in row groups of 48 MB on a budget of 64 MB; also in blocks, laid out four times."""
    for number in range(3):
        rng = np.random.default_rng(number)
        columns = {name: rng.normal(size=2_000_000) for name in ("a", "b")}
        ids = np.repeat(np.arange(250_000) + 250_000 * number, 8)
        table = pa.table({"prompt_id": ids, **columns})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=2_000_000, compression="none")
    budget = 64_000_000
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(budget), str(k)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=quiet)
    taken, status = done.stdout.split()
    assert status == "OPTIMAL"
    assert int(taken) <= budget


# ---- what is refused


def refused(source: Any, palette: Mapping[str, object], *words: str, **told: Any) -> None:
    with pytest.raises(ValueError) as error:
        vp.solve(source, palette, **told)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def two(tmp_path: Path, first: Mapping[str, Any], second: Mapping[str, Any]) -> Path:
    for name, columns in (("a", first), ("b", second)):
        pq.write_table(pa.table(dict(columns)), tmp_path / f"{name}.parquet")
    return tmp_path


@pytest.mark.parametrize("key", [int, str])
def test_a_prompt_in_two_places_is_refused(key: type, tmp_path: Path) -> None:
    """In two files, or twice in one."""
    first = {"prompt_id": [key(1), key(1), key(2)], "humor": [0.0, 1.0, 2.0]}
    again = {"prompt_id": [key(3), key(1)], "humor": [0.0, 1.0]}
    refused(two(tmp_path, first, again), {"humor": "keep"}, "prompt_id", "must stand together")
    apart = {"prompt_id": [key(5), key(4), key(5)], "humor": [0.0, 1.0, 2.0]}
    refused(two(tmp_path, first, apart), {"humor": "keep"}, "prompt_id", "must stand together")


def test_ids_that_do_not_ascend_need_memory(tmp_path: Path) -> None:
    first = {"prompt_id": [4, 4, 2, 2], "humor": [0.0, 1.0, 2.0, 0.0]}
    folder = two(tmp_path, first, {"prompt_id": [9, 9], "humor": [0.0, 1.0]})
    shards = open_shards(folder)
    assert vp.solve(shards, {"humor": "keep"}).prompts == 3
    refused(replace(shards, memory=60, _kept={}), {"humor": "keep"}, "prompt_id must ascend", "memory")


def test_files_that_differ_are_refused(tmp_path: Path) -> None:
    good = {"prompt_id": [1, 1], "humor": [0.0, 1.0]}
    refused(two(tmp_path, good, {"prompt_id": [2], "wit": [0.0]}), {"humor": "keep"}, "b.parquet", "humor")
    refused(two(tmp_path, good, {"prompt_id": [2], "humor": ["x"]}), {"humor": "keep"}, "must hold numbers")
    refused(two(tmp_path, good, {"prompt_id": [2], "humor": [np.nan]}), {"humor": "keep"}, "row 0", "finite")
    refused(two(tmp_path, good, {"prompt_id": [2], "humor": [None]}), {"humor": "keep"}, "b.parquet")
    refused(two(tmp_path, good, {"prompt_id": [None], "humor": [0.0]}), {"humor": "keep"}, "is missing")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        vp.solve(tmp_path / "nothing", {"humor": "keep"})
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", {"humor": "keep"}, "no .parquet file")
    (tmp_path / "bad.parquet").write_text("text")
    refused(tmp_path / "bad.parquet", {"humor": "keep"}, "bad.parquet")
    folder = tmp_path / "good"
    folder.mkdir()
    columns = {"prompt_id": [1, 1, 2, 2], "humor": [0.0, 1.0, 0.0, 2.0], "age": [1, 1, 2, 3]}
    two(folder, columns, {name: [7] if name != "humor" else [0.5] for name in columns})
    refused(folder, {"wit": "keep"}, "wit", candidates=1)
    refused(folder, {"humor": "keep"}, "candidates", "got None")
    refused(folder, {"humor": "keep"}, "got 2 where 1 prompts have fewer", candidates=2)
    refused(folder, {"humor": "keep"}, "weighting", "'size'", weighting="size", candidates=1)
    refused(folder, {"humor": "keep"}, "a.parquet: row 3", "differs inside", weighting="age", candidates=1)
    refused(folder, {"humor": "x1.2"}, "palette['humor']", "scale", candidates=1)
    refused(folder, {"humor": "max"}, "max", "in memory", candidates=1)
    refused(folder, {"humor": "keep"}, "confidence", "in memory", candidates=1, confidence=0.9)
    refused(open_shards(folder), {"humor": "keep"}, "seed", seed=-1)


@pytest.mark.parametrize("memory", ["1 MB", 0, "much", True, "-3 GB", float("nan")])
def test_a_budget_that_is_none_is_refused(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory must be"):
        open_shards(tmp_path, memory=memory)


def test_metadata_travels(tmp_path: Path) -> None:
    told = PilotMetadata(model={"id": "m"}, rewards={"humor": {"scale": "probability"}})
    pilot = Pilot.from_arrays({"humor": [0.2, 0.4, 0.1, 0.5]}, prompt_id=[0, 0, 1, 1], metadata=told)
    pilot.write(tmp_path / "pilot.parquet")
    solution = vp.solve(tmp_path / "pilot.parquet", {"humor": "x1.1"})
    assert_same(vp.solve(pilot, {"humor": "x1.1"}), solution)
    solution.save(tmp_path / "solution.json")
    assert_same(Solution.load(tmp_path / "solution.json"), solution)
