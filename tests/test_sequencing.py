"""Sequential alignment on a pilot: its end is that of `solve`, and it never holds more than one value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import valuepalette as vp
from valuepalette import Infeasible, Palette, Pilot, Status
from valuepalette.provenance import PilotMetadata
from valuepalette.sequencing import solve_sequentially

NAMES = ("humor", "tone", "care", "length")


def made(seed: int = 0, prompts: int = 60, candidates: int = 6) -> Pilot:
    rng = np.random.default_rng(seed)
    n = prompts * candidates
    prompt = np.repeat(np.arange(prompts), candidates)
    mixing = np.array([[1, 0.5, -0.3, 0.2], [0, 1, 0.4, 0], [0, 0, 1, 0.3], [0, 0, 0, 1]])
    table = rng.normal(size=(n, 4)) @ mixing + rng.normal(size=(prompts, 4))[prompt]
    shuffled = rng.permutation(n)
    return Pilot.from_arrays(
        {name: table[shuffled, i] for i, name in enumerate(NAMES)},
        prompt_id=prompt[shuffled],
        columns={
            "audience": np.where(prompt % 3, "adults", "children")[shuffled],
            "share": 1.0 + prompt[shuffled] % 2,
        },
        metadata=PilotMetadata(rewards={name: {"scale": "real"} for name in NAMES}),
    )


PALETTE = Palette(
    {"humor": ["reach 20%", "P(< -1) <= 0.25"], "tone": "keep", "length": "<= base-0.1"},
    cohorts={"audience=children": {"care": "+0.1"}},
)


@pytest.mark.parametrize(
    "options",
    [{}, {"candidates": 3, "seed": 5}, {"weighting": "share"}],
    ids=["all", "blocks of 3", "weighted"],
)
def test_the_end_is_that_of_solve(options: dict[str, Any]) -> None:
    pilot = made()
    ascent = solve_sequentially(pilot, PALETTE, rounds=300, **options)
    found = vp.solve(pilot, PALETTE, **options)
    assert found.status is Status.OPTIMAL
    assert (found.weights.array != 0).sum() >= 3
    assert ascent.converged
    assert ascent.features == found.features
    assert ascent.asked == found.resolved.asked
    assert np.abs((ascent.weights.array - found.weights.array) * found.spread).max() < 1e-8
    assert ascent.levels.array == pytest.approx(found.levels.array, abs=1e-8)
    assert ascent.kl == pytest.approx(found.kl, abs=1e-8)
    end = ascent.solution
    assert end.status is Status.OPTIMAL
    assert np.array_equal(end.weights.array, ascent.weights.array)
    assert end.weights.se == pytest.approx(found.weights.se)
    assert end.levels.se == pytest.approx(found.levels.se)
    assert end.margin == pytest.approx(found.margin)
    assert end.resolved.to_dict() == found.resolved.to_dict()


def test_joint_mode() -> None:
    pilot = made()
    palette = {"humor": "q70", "care": "+0.2", "length": "<= keep"}
    ascent = solve_sequentially(pilot, palette, mode="joint", rounds=300)
    found = vp.solve(pilot, palette, mode="joint")
    assert np.abs((ascent.weights.array - found.weights.array) * found.spread).max() < 1e-8
    single = Pilot.from_arrays({"a": [0.0, 1.0, 2.0], "b": [0.0, 2.0, 1.0]}, prompt_id=[0, 1, 2])
    with pytest.warns(UserWarning, match="joint") as told:
        solve_sequentially(single, {"a": "+0.1"})
    assert len(told) == 1


def test_blocks_by_the_names_of_values() -> None:
    pilot = made()
    ascent = solve_sequentially(pilot, PALETTE, [["care", "length"], "tone", "humor"], rounds=300)
    assert [step.block for step in ascent.steps[:4]] == [
        ("care", "length"),
        ("tone",),
        ("humor",),
        ("care", "length"),
    ]
    assert [step.turn for step in ascent.steps[:4]] == [1, 1, 1, 2]
    found = vp.solve(pilot, PALETTE)
    assert np.abs((ascent.weights.array - found.weights.array) * found.spread).max() < 1e-8
    # The tail of humor moves with humor, and nothing else does in that step.
    moved = ascent.steps[2].weights.array != ascent.steps[1].weights.array
    assert {name for name, on in zip(ascent.features, moved, strict=True) if on} <= {"humor", "P(humor < -1)"}


def test_one_round_falls_short_and_more_come_closer() -> None:
    pilot = made()
    one = solve_sequentially(pilot, PALETTE, rounds=1)
    five = solve_sequentially(pilot, PALETTE, rounds=5)
    assert not one.converged
    assert len(one.steps) == 4
    assert five.steps[-1].residual < 0.1 * one.steps[-1].residual
    with pytest.raises(ValueError, match="rounds must be enough") as error:
        _ = one.solution
    assert "\n" not in str(error.value)


def test_the_increments_of_the_paper_stop_short() -> None:
    pilot = Pilot.from_arrays({"a": [0.0, 1.0, 1.0], "b": [0.0, 0.0, 1.0]}, prompt_id=[0, 0, 0])
    short = solve_sequentially(pilot, {"a": 0.8, "b": 0.6}, increments=True)
    assert (short.converged, round(short.kl, 4)) == (False, 0.1710)
    assert round(solve_sequentially(pilot, {"a": 0.8, "b": 0.6}).kl, 4) == 0.1483


# ---- one column at a time


@pytest.mark.parametrize("folder", [False, True])
def test_a_path_is_read_column_by_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    pilot, path = made(), tmp_path / "pilot.parquet"
    if folder:
        path = tmp_path / "pilot"
        half = np.arange(pilot.rows) < pilot.rows // 2
        pilot.select(half).write(path / "part-0.parquet")
        pilot.select(~half).write(path / "part-1.parquet")
    else:
        pilot.write(path)
    asked: list[Sequence[str] | None] = []
    read = pq.read_table

    def spy(source: Any, *, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        asked.append(columns)
        return read(source, columns=columns, **options)

    monkeypatch.setattr(pq, "read_table", spy)
    ascent = solve_sequentially(path, PALETTE, rounds=300)
    assert len(asked) > 20
    for columns in asked:
        assert columns is not None
        assert len(set(columns) & set(NAMES)) == 1
    in_memory = solve_sequentially(pilot, PALETTE, rounds=300)
    assert np.array_equal(ascent.weights.array, in_memory.weights.array)
    assert ascent.solution.fingerprint == in_memory.solution.fingerprint
    assert asked[-1] is None  # the solution at the end needs all of them, once


def test_a_parquet_file_of_others(tmp_path: Path) -> None:
    """No metadata: columns of floats are values, and the prompt's text says which rows belong together."""
    path = tmp_path / "theirs.parquet"
    rows = {"prompt": ["one", "two", "one", "two"], "humor": [0.0, 0.0, 1.0, 2.0], "words": [3, 4, 5, 6]}
    pq.write_table(pa.table(rows), path)
    ascent = solve_sequentially(path, {"humor": "reach 50%"})
    assert ascent.features == ("humor",)
    assert ascent.levels["humor"] == pytest.approx(1.125)
    assert ascent.solution.weights["humor"] == pytest.approx(
        vp.solve(Pilot.read(path), {"humor": 1.125}).weights["humor"]
    )


def test_files_whose_columns_cannot_be_read_alone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pilot.csv"
    path.write_text("prompt_id,humor\n0,1.0\n")
    for wrong in (path, tmp_path / "none.parquet", tmp_path):
        with pytest.raises(ValueError, match="pilot must be a Pilot, or the path of a Parquet") as error:
            solve_sequentially(wrong, {"humor": "keep"})
        assert "\n" not in str(error.value)


# ---- what cannot be had, and what makes no sense


def test_what_cannot_be_had_raises_the_proof() -> None:
    with pytest.raises(Infeasible) as alone:
        solve_sequentially(made(), {"humor": 50.0, "tone": "keep"})
    assert alone.value.certificate is not None
    conflict = Pilot.from_arrays({"a": [0.0, 1.0, 0.4], "b": [1.0, 0.0, 0.4]}, prompt_id=[0, 0, 0])
    with pytest.raises(Infeasible):
        solve_sequentially(conflict, {"a": 0.7, "b": 0.7}, rounds=1000)


def test_the_boundary_has_no_weights() -> None:
    pilot = Pilot.from_arrays({"a": [0.0, 1.0]}, prompt_id=[0, 0])
    with pytest.raises(ValueError, match="very edge"):
        _ = solve_sequentially(pilot, {"a": 1.0}).solution


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rounds": 0}, "rounds must be a positive integer, got 0"),
        ({"rounds": True}, "rounds must be a positive integer, got True"),
        ({"blocks": ["humor"]}, "blocks must name every value"),
        ({"blocks": ["humor", "tone", "wit"]}, "blocks must name every value"),
        ({"blocks": ["humor", "tone", []]}, "blocks must name every value"),
        ({"blocks": "humor"}, "blocks must be a list"),
        ({"palette": {"wit": "keep"}}, "the palette names 'wit'"),
        ({"palette": {"humor": "free"}}, "must ask something"),
        ({"palette": {"humor": "max"}}, 'must not ask "max"'),
        ({"candidates": "limit"}, "candidates must be a number"),
    ],
)
def test_arguments_are_named_in_errors(arguments: dict[str, Any], words: str) -> None:
    given = {"palette": {"humor": "keep", "tone": "+0.1"}, **arguments}
    with pytest.raises((ValueError, TypeError), match=words) as error:
        solve_sequentially(made(), **given)
    assert "\n" not in str(error.value)


def test_the_way_can_be_read() -> None:
    ascent = solve_sequentially(made(), PALETTE, rounds=300)
    text = str(ascent)
    assert max(map(len, text.splitlines())) <= 100
    assert "arrived" in text
    assert "…" in text
    for word in ("step", "KL", "humor", "weights:"):
        assert word in text
    assert "not there yet" in str(solve_sequentially(made(), PALETTE, rounds=1))
