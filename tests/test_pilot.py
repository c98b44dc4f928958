"""The one table: what it holds, how it groups, splits, grows, is written and comes back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import SHARED, needs_shared
from valuepalette.pilot import Pilot, PilotMetadata

HELLO = [{"role": "user", "content": "Hello"}]

METADATA = PilotMetadata(
    model={"id": "opt-1.3b"},
    sampling={"top_k": 50},
    seed=1,
    rewards={"humor": {"definition": "log p of label 1", "scale": "log-probability"}},
)


def small(**changes: Any) -> Pilot:
    """Five rows of three prompts, not sorted."""
    given: dict[str, Any] = {
        "values": {"humor": [0.0, 1.0, 2.0, 3.0, 4.0], "length": [5, 4, 3, 2, 1]},
        "prompt_id": ["b", "a", "b", "c", "a"],
        "prompts": ["B", "A", "B", HELLO, "A"],
        "responses": ["", "x", " \n", "y", "z"],
        "columns": {"age": [1, 2, 1, 3, 2], "finish_reason": ["length", "stop", "stop", "length", "length"]},
        "metadata": METADATA,
    }
    return Pilot.from_arrays(**{**given, **changes})


def test_rows_and_prompts() -> None:
    pilot = small()
    assert (pilot.rows, pilot.prompts, pilot.candidates) == (5, 3, None)
    assert (pilot.values, pilot.columns) == (("humor", "length"), ("age",))
    assert pilot.array.tolist() == [[0, 5], [1, 4], [2, 3], [3, 2], [4, 1]]
    assert pilot.array.dtype == np.float64
    assert pilot.prompt_index.tolist() == [0, 1, 0, 2, 1]
    assert pilot.sizes.tolist() == [2, 2, 1]
    assert pilot.starts.tolist() == [0, 2, 4, 5]
    assert pilot.order.tolist() == [0, 2, 1, 4, 3]
    assert pilot.table["candidate"].to_pylist() == [0, 0, 1, 0, 1]
    assert pilot.column("age").tolist() == [1, 2, 3]
    assert pilot.column("prompt_id").tolist() == ["b", "a", "c"]
    assert pilot.texts() == ["B", "A", "B", HELLO, "A"]
    assert pilot.responses == ["", "x", " \n", "y", "z"]
    assert (pilot.scale("humor"), pilot.scale("length")) == ("log-probability", "real")
    assert repr(pilot) == "Pilot(5 rows, 3 prompts, 1 to 2 candidates each, values: humor, length)"


def test_blank_and_truncated_responses_are_kept_and_counted() -> None:
    described = small().describe()
    assert (described.rows, described.blank, described.truncated) == (5, 2, 3)
    bare = Pilot.from_arrays({"humor": [1.0]}, prompt_id=[0]).describe()
    assert (bare.blank, bare.truncated) == (None, None)


def test_it_is_immutable() -> None:
    numbers = np.zeros(3)
    ids = np.array([0, 0, 1])
    pilot = Pilot.from_arrays({"humor": numbers}, prompt_id=ids)
    numbers[:], ids[:] = 1, 2
    assert pilot.array.sum() == 0
    assert pilot.table["prompt_id"].to_pylist() == [0, 0, 1]
    for array in (pilot.array, pilot.prompt_index, pilot.order, pilot.starts, pilot.sizes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    with pytest.raises(AttributeError):
        pilot.values = ()  # type: ignore[misc]


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_grouping_is_a_stable_sort(ids: list[int]) -> None:
    pilot = Pilot.from_arrays({"row": np.arange(float(len(ids)))}, prompt_id=ids)
    names = list(dict.fromkeys(ids))
    assert pilot.order.tolist() == sorted(range(len(ids)), key=lambda row: names.index(ids[row]))
    groups = pilot.groups()
    for g, name in enumerate(names):
        rows = groups.values[groups.starts[g] : groups.starts[g + 1], 0]
        assert rows.tolist() == [row for row in range(len(ids)) if ids[row] == name]
    assert pilot.column("prompt_id").tolist() == names


def test_weighting() -> None:
    pilot = small(columns={"weight": [1.0, 2.0, 1.0, 5.0, 2.0]})
    assert pilot.columns == ("weight",)
    assert pilot.groups().weights == pytest.approx([1 / 3] * 3)
    assert pilot.groups("rows").weights == pytest.approx([0.4, 0.4, 0.2])
    assert pilot.groups("rows").base == pytest.approx(pilot.array.mean(axis=0))
    assert pilot.groups("weight").weights == pytest.approx([1 / 8, 2 / 8, 5 / 8])


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        ([1.0, 0.0, 1.0, 5.0, 0.0], r"weight must be positive, got 0\.0 for prompt_id 'a'$"),
        ([1.0, 2.0, 1.0, None, 2.0], r"weight must be positive, got nan for prompt_id 'c'$"),
        (["x", "y", "x", "z", "y"], r"column weight must hold numbers, got 'x'$"),
    ],
)
def test_weights_must_be_positive(weight: list[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small(columns={"weight": weight}).groups("weight")


def test_unknown_names_are_refused_with_those_there_are() -> None:
    pilot = small()
    with pytest.raises(ValueError, match=r"^weighting must be one of prompts, rows, age, got 'ages'$"):
        pilot.groups("ages")
    with pytest.raises(ValueError, match=r"^column must be one of prompt_id, age, got 'ages'$"):
        pilot.column("ages")
    with pytest.raises(ValueError, match=r"^value must be one of humor, length, got 'age'$"):
        pilot.scale("age")
    with pytest.raises(
        ValueError, match=r"^column humor must be the same .* differs in prompt_id 'b' \(row 2, from 0\)$"
    ):
        pilot.column("humor")


def test_a_prompt_is_needed_or_its_id() -> None:
    with pytest.raises(
        ValueError, match=r"^arrays: needs a column prompt_id, prompt or messages, has humor$"
    ):
        Pilot.from_arrays({"humor": [1.0]})
    with pytest.raises(ValueError, match=r"^the pilot holds no prompts, only their prompt_id$"):
        Pilot.from_arrays({"humor": [1.0]}, prompt_id=[0]).texts()
    assert Pilot.from_arrays({"humor": [1.0, 2.0]}, prompts=["", HELLO]).texts() == ["", HELLO]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt_id": ["a"]}, r"^all arrays must have one entry per row, got \{'prompt_id': 1, "),
        ({"values": {"humor": np.zeros((5, 2))}}, r"^humor must be an array with an entry per row: "),
        (
            {"values": {"humor": [0.0, 1.0, "x", 3.0, 4.0]}},
            r"^humor must be an array with an entry per row: ",
        ),
        (
            {"values": {"humor": [0.0, 1.0, np.inf, 3.0, 4.0]}},
            r"^arrays: row 2 \(from 0\), column humor: must be finite",
        ),
        ({"values": {"age": [0.0] * 5}}, r"^age is given twice$"),
        ({"values": {"tokens": [0.0] * 5}, "columns": {}}, r"^values: tokens is reserved"),
        (
            {"prompts": ["B", "A", "C", HELLO, "A"]},
            r"^arrays: row 2 \(from 0\), column prompt.*: differs from the rows",
        ),
        ({"prompts": ["B", "A", "B", 3, "A"]}, r"^prompts must be "),
        (
            {"values": {"humor": [np.datetime64("2020-01-01"), np.float16(2), 0.0, 0.0, 0.0]}},
            r"^humor must be an array with an entry per row: ",
        ),
        ({"prompts": ["B", "A", "B", "\ud800", "A"]}, r"^prompts must be .*surrogates not allowed$"),
        (
            {"values": {"a\nb": [0.0] * 5}},
            r"^arrays: the name of a column must be text of one line, got 'a\\nb'$",
        ),
        (
            {"values": {"humor": [0.0, 1.0, 1e101, 3.0, 4.0]}},
            r"^arrays: row 2 \(from 0\), column humor: must lie between -1e\+100 and 1e\+100, got 1e\+101$",
        ),
        ({"columns": {"age": [1, 2, 3, 3, 2]}}, r"^arrays: row 2 \(from 0\), column age: differs"),
        (
            {"columns": {"candidate": [0, 0, 0, 0, 1]}},
            r"^arrays: row 2 \(from 0\), column candidate: candidate 0 of this",
        ),
    ],
)
def test_arrays_are_checked(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        small(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"values": None}, "^values must map names to arrays, got None$"),
        ({"columns": [1]}, r"^columns must map names to arrays, got \[1\]$"),
        ({"prompts": 7}, "^prompts must be a list of texts or conversations, got 7$"),
        ({"prompts": "BABCA"}, "^prompts must be a list of texts or conversations, got 'BABCA'$"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        small(**changes)


def test_what_parquet_cannot_hold_is_refused_when_it_is_written(tmp_path: Path) -> None:
    pilot = small().select([0])
    pilot = Pilot(pilot.table.append_column("x", pa.array([{}])), pilot.values, pilot.columns, pilot.metadata)
    with pytest.raises(ValueError, match=r"pilot\.parquet: Cannot write struct type 'x'"):
        pilot.write(tmp_path / "pilot.parquet")


def test_parquet_comes_back_as_it_went(tmp_path: Path) -> None:
    pilot = small()
    path = tmp_path / "new" / "pilot.parquet"
    pilot.write(path)
    again = Pilot.read(path)
    assert again.table.equals(pilot.table, check_metadata=True)
    assert (again.values, again.columns, again.metadata) == (pilot.values, pilot.columns, METADATA)
    assert [entry.name for entry in path.parent.iterdir()] == ["pilot.parquet"]
    file = pq.ParquetFile(path)
    assert {file.metadata.row_group(0).column(i).compression for i in range(file.metadata.num_columns)} == {
        "ZSTD"
    }
    entries = json.loads(file.schema_arrow.metadata[b"valuepalette"])
    assert (entries["values"], entries["columns"]) == (["humor", "length"], ["age"])
    assert entries["model"] == {"id": "opt-1.3b"}


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pilot.parquet"
    small().write(path)
    before = path.read_bytes()

    def fail(table: object, to: Path, **options: object) -> None:
        to.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        small().write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_other_metadata_of_a_schema_is_kept(tmp_path: Path) -> None:
    table = small().table.replace_schema_metadata({b"license": b"MIT"})
    Pilot.read(table, values=["humor"]).write(tmp_path / "a.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").metadata[b"license"] == b"MIT"


def test_a_folder_of_parts_is_one_pilot(tmp_path: Path) -> None:
    pilot = small()
    for number, rows in enumerate(([0, 1], [2], [3, 4])):
        pilot.select(rows).write(tmp_path / f"part-{number}.parquet")
    assert Pilot.read(tmp_path).table.equals(pilot.table, check_metadata=True)


@pytest.mark.extra("pandas", "polars")
def test_every_table_reads_alike(tmp_path: Path) -> None:
    import polars as pl

    pilot = small(prompts=["B", "A", "B", "C", "A"], metadata=None)
    table = pilot.table.replace_schema_metadata(None)
    pandas = table.to_pandas().astype({"prompt_id": "category"})
    pandas.to_csv(tmp_path / "a.csv", index=False)
    pandas.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    pandas.to_json(tmp_path / "a.json", orient="records")
    sources = [
        pandas,
        pl.from_arrow(table),
        table,
        *(tmp_path / f"a.{end}" for end in ("csv", "jsonl", "json")),
    ]
    for source in sources:
        read = Pilot.read(source, values=pilot.values)
        assert read.table.equals(pilot.table), source
        assert read.columns == ("age",)


@pytest.mark.extra("pandas")
def test_pandas_nan_is_missing() -> None:
    import pandas as pd

    frame = pd.DataFrame({"prompt_id": [0, 0], "humor": [1.0, np.nan]})
    with pytest.raises(ValueError, match=r"^table: row 1 \(from 0\), column humor: is missing$"):
        Pilot.read(frame)


def test_it_can_be_pickled() -> None:
    pilot = pickle.loads(pickle.dumps(small()))
    assert pilot.table.equals(small().table, check_metadata=True)
    assert (pilot.values, pilot.columns, pilot.metadata) == (small().values, small().columns, METADATA)


def test_rows_are_selected_by_mask_and_by_index() -> None:
    pilot = small()
    picked = pilot.select([4, 0, 2])
    assert picked.responses == ["z", "", " \n"]
    assert picked.table["candidate"].to_pylist() == [1, 0, 1]
    assert (picked.values, picked.columns, picked.metadata) == (pilot.values, pilot.columns, METADATA)
    mask = np.array([True, False, True, False, False])
    assert pilot.select(mask).responses == ["", " \n"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], r"at least one row number, got array\(\[\]"),
        ([0.5], r"rows must be a mask or a list of at least one row number, got array\(\[0\.5\]\)"),
        ([5], r"^rows must lie between 0 and 4, got 5 to 5$"),
        ([-1, 2], r"^rows must lie between 0 and 4, got -1 to 2$"),
        ([True, False], r"^a mask must have shape \(5,\), got \(2,\)$"),
        ([1, 1], r"^pilot: row 1 \(from 0\), column candidate: candidate 0 of this prompt is there already$"),
    ],
)
def test_a_selection_is_checked(rows: list[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small().select(rows)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.floats(0.05, 0.95), st.integers(0, 5))
def test_halves_share_no_prompt_and_lose_no_row(ids: list[int], fraction: float, seed: int) -> None:
    pilot = Pilot.from_arrays({"row": np.arange(float(len(ids)))}, prompt_id=ids)
    if not 0 < round(fraction * pilot.prompts) < pilot.prompts:
        with pytest.raises(ValueError, match="fraction must leave a prompt on both sides"):
            pilot.split(fraction, seed)
        return
    one, two = pilot.split(fraction, seed)
    assert one.prompts == round(fraction * pilot.prompts)
    assert not set(one.column("prompt_id")) & set(two.column("prompt_id"))
    assert sorted([*one.array[:, 0], *two.array[:, 0]]) == list(range(len(ids)))
    assert all((np.diff(half.array[:, 0]) > 0).all() for half in (one, two))
    assert pilot.split(fraction, seed)[0].table.equals(one.table)


def test_the_same_text_stays_on_one_side() -> None:
    """Two prompt_ids with one text are one prompt to a model: held-out prompts must be unseen."""
    pilot = Pilot.from_arrays(
        {"humor": np.zeros(40)}, prompt_id=np.arange(40), prompts=[str(i % 4) for i in range(40)]
    )
    for seed in range(5):
        one, two = pilot.split(0.5, seed)
        assert not set(map(str, one.texts())) & set(map(str, two.texts()))
        assert one.rows == two.rows == 20
    assert pilot.split(0.5, 0)[0].texts() != pilot.split(0.5, 4)[0].texts()


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_lies_between(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"^fraction must lie between 0 and 1, got "):
        small().split(fraction, 0)


def test_values_are_added_by_row() -> None:
    pilot = small().with_values({"tone": np.arange(5)}, rewards={"tone": {"scale": "probability"}})
    assert pilot.values == ("humor", "length", "tone")
    assert pilot.array[:, 2].tolist() == [0, 1, 2, 3, 4]
    assert (pilot.scale("tone"), pilot.scale("humor")) == ("probability", "log-probability")
    assert small().values == ("humor", "length")


def test_values_are_added_by_prompt_and_candidate() -> None:
    pilot = small()
    other = Pilot.from_arrays(
        {"tone": pilot.array[:, 0] * 10},
        prompt_id=pilot.table["prompt_id"],
        prompts=pilot.texts(),
        columns={"candidate": pilot.table["candidate"]},
        metadata=PilotMetadata(rewards={"tone": {"scale": "probability"}, "unused": {}}),
    )
    for rows in ([0, 1, 2, 3, 4], [4, 2, 3, 0, 1]):
        joined = pilot.with_values(other.select(rows))
        assert joined.array[:, 2].tolist() == [0, 10, 20, 30, 40]
        assert joined.scale("tone") == "probability"
        assert set(joined.metadata.rewards) == {"humor", "tone"}
    assert pilot.select([3, 1]).with_values(other).array[:, 2].tolist() == [30, 10]
    with pytest.raises(
        ValueError, match=r"^row 2 \(from 0\), prompt_id 'b', candidate 1: has no counterpart"
    ):
        pilot.with_values(other.select([0, 1, 3, 4]))


def test_candidates_may_have_any_numbers() -> None:
    """Numbers so large that the join must not multiply them."""
    columns = {"candidate": [2**62, 5, 2**62 + 1]}
    pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 2.0]}, prompt_id=[0, 1, 1], columns=columns)
    other = Pilot.from_arrays({"tone": [0.0, 1.0, 2.0]}, prompt_id=[0, 1, 1], columns=columns)
    assert pilot.with_values(other.select([2, 0, 1])).array[:, 1].tolist() == [0, 1, 2]


def test_values_of_other_texts_are_refused() -> None:
    pilot = small()
    texts = ["B", "X", "B", HELLO, "X"]
    renamed = small(values={"tone": np.zeros(5)}, prompts=texts, metadata=None)
    with pytest.raises(
        ValueError, match=r"^row 1 \(from 0\), prompt_id 'a', candidate 0: has another prompt"
    ):
        pilot.with_values(renamed)
    answered = small(values={"tone": np.zeros(5)}, responses=["", "x", " \n", "q", "z"], metadata=None)
    with pytest.raises(
        ValueError, match=r"^row 3 \(from 0\), prompt_id 'c', candidate 0: has another response"
    ):
        pilot.with_values(answered)
    texts_only = small(values={"tone": np.zeros(5)}, prompts=["B", "A", "B", "Hello", "A"], metadata=None)
    with pytest.raises(
        ValueError, match=r"^row 3 \(from 0\), prompt_id 'c', candidate 0: has another prompt"
    ):
        pilot.with_values(texts_only)
    numbered = Pilot.from_arrays({"tone": [0.0]}, prompt_id=[1])
    with pytest.raises(
        ValueError, match=r"^both pilots' prompt_id must be numbers or text, got large_string and int64$"
    ):
        pilot.with_values(numbered)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"humor": np.zeros(5)}, r"^humor is a column of the pilot already$"),
        ({"age": np.zeros(5)}, r"^age is a column of the pilot already$"),
        ({"tone": np.zeros(4)}, r"^tone must have 5 entries, one per row, got 4$"),
        ({"tone": [0, 0, 0, 0, np.nan]}, r"^pilot: row 4 \(from 0\), column tone: must be finite, got nan$"),
        ({"drawn": np.zeros(5)}, r"^values: drawn is reserved"),
    ],
)
def test_added_values_are_checked(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small().with_values(values)


@needs_shared
def test_the_papers_pilots_and_a_seventh_value() -> None:
    pilot = Pilot.read(SHARED / "pilot-llama2chat-anthropic.parquet")
    assert pilot.values == ("humor", "helpfulness", "harmlessness", "diversity", "coherence", "perplexity")
    assert (pilot.rows, pilot.prompts, pilot.columns) == (2312, 2178, ())
    assert np.bincount(pilot.sizes).tolist() == [0, 2048, 126, 4]
    again = Pilot.read(pilot.table.drop_columns(["prompt_id", "candidate"]))
    assert again.table.equals(pilot.table)
    more = pilot.with_values(Pilot.read(SHARED / "pilot-llama2chat-anthropic-logp.parquet"))
    assert more.values[-1] == "harmless_logp"
    assert more.array[:, 6].mean() == pytest.approx(-2.731475, abs=5e-7)
    one, two = more.split(0.5, 0)
    assert one.prompts == two.prompts == 1089


@needs_shared
def test_the_references_json_is_the_pilot() -> None:
    """All 2,312 rows, the five whose echo lost blanks included."""
    names = {"gpt2-helpful": "helpfulness", "gpt2-harmless": "harmlessness"}
    expected = Pilot.read(SHARED / "pilot-opt1.3b-anthropic.parquet")
    read = Pilot.read(SHARED / "reference-opt1.3b-Anthropic-harmless.json")
    assert read.responses == expected.responses
    assert read.texts() == expected.texts()
    for name in ("prompt_id", "candidate"):
        assert read.table[name].equals(expected.table[name])
    assert {names.get(name, name) for name in read.values} == set(expected.values)
    for i, name in enumerate(read.values):
        assert (read.array[:, i] == expected.array[:, expected.values.index(names.get(name, name))]).all()


@needs_shared
def test_preference_pairs_are_candidates() -> None:
    pilot = Pilot.read(SHARED / "hh-harmless-base-test.parquet")
    assert (pilot.rows, pilot.prompts, pilot.values) == (4624, 2310, ())
    assert pilot.describe().blank == 4
    assert isinstance(pilot.texts()[0], list)
