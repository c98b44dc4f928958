"""Who is who in a table, and everything that is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from valuepalette.layout import Layout, lay_out
from valuepalette.pilot import Pilot
from valuepalette.provenance import PilotMetadata
from valuepalette.reading import Source, read_source


def laid(table: dict[str, Any], loose: bool = False, **options: Any) -> Layout:
    made = pa.table(table)
    return lay_out(Source(made, (("file", made.num_rows),), loose), **options)


TABLE = {
    "length": [3, 4, 5],
    "humor": [0.0, 0.5, 1.0],
    "prompt_id": [1, 1, 0],
    "weight": [2.0, 2.0, 1.0],
    "audience": ["all", "all", "kids"],
}


def test_floats_are_values_and_what_a_prompt_shares_is_its_column() -> None:
    layout = laid(TABLE)
    assert layout.values == ("humor", "weight")
    assert layout.columns == ("audience",)


def test_the_caller_decides() -> None:
    assert laid(TABLE, columns=["weight"]).values == ("humor",)
    layout = laid(TABLE, values=["length", "humor"])
    assert layout.values == ("length", "humor")
    assert layout.columns == ("weight", "audience")
    assert layout.table["length"].type == pa.float64()
    assert laid(TABLE, values=[], columns=[]).columns == ()


def test_the_schema_decides_where_the_caller_does_not() -> None:
    metadata = PilotMetadata(seed=3, rewards={"humor": {"scale": "probability"}})
    table = pa.table(TABLE)

    def read(schema: dict[bytes, bytes], **options: Any) -> Layout:
        return lay_out(Source(table.replace_schema_metadata(schema), (("file", 3),)), **options)

    layout = read(metadata.to_schema(["length"], ["weight"]))
    assert (layout.values, layout.columns, layout.metadata) == (("length",), ("weight",), metadata)
    layout = read(metadata.to_schema(["length", "weight"], []), columns=["weight"])
    assert (layout.values, layout.columns) == (("length",), ("weight",))
    layout = read(metadata.to_schema())
    assert (layout.values, layout.columns) == (("humor",), ("weight", "audience"))
    assert read(PilotMetadata().to_schema()).values == ()
    assert read(metadata.to_schema(), metadata=PilotMetadata(seed=4)).metadata.seed == 4


def test_the_order_of_columns_is_fixed_and_rows_stay() -> None:
    layout = laid({**TABLE, "response": ["a", "", " "], "prompt": ["p", "p", "q"]})
    assert layout.table.column_names == [
        *("prompt_id", "candidate", "prompt", "response"),
        *("length", "audience"),
        *("humor", "weight"),
    ]
    assert layout.table["prompt_id"].to_pylist() == [1, 1, 0]
    assert layout.table["response"].to_pylist() == ["a", "", " "]


def test_prompt_id_and_candidate_are_derived_in_order() -> None:
    layout = laid({"prompt": ["b", "a", "b", "b"], "humor": [0.0, 1.0, 2.0, 3.0]})
    assert layout.table["prompt_id"].to_pylist() == [0, 1, 0, 0]
    assert layout.table["candidate"].to_pylist() == [0, 0, 1, 2]


def test_text_may_number_prompts_and_any_numbers_are_values() -> None:
    layout = laid(
        {
            "prompt_id": pa.array(["x", "y"]).dictionary_encode(),
            "candidate": pa.array([5, 0], pa.uint8()),
            "half": pa.array(np.array([0.5, 1], np.float16)),
            "tenth": pa.array([Decimal("0.1"), Decimal("2.0")]),
            "flag": [True, False],
        },
        values=["half", "tenth", "flag"],
    )
    assert layout.table["prompt_id"].to_pylist() == ["x", "y"]
    assert layout.table.select(layout.values).to_pylist() == [
        {"half": 0.5, "tenth": 0.1, "flag": 1.0},
        {"half": 1.0, "tenth": 2.0, "flag": 0.0},
    ]


def test_columns_of_a_row() -> None:
    layout = laid(
        {
            "prompt_id": [0, 0],
            "drawn": [True, False],
            "tokens": [3.0, None],
            "finish_reason": ["stop", None],
            "logprob": [-1.5, None],
            "probability": pa.array([1, 0], pa.int32()),
        }
    )
    assert layout.table.schema.types[2:] == [
        *(pa.bool_(), pa.int64(), pa.large_string()),
        *(pa.float64(), pa.float64()),
    ]
    assert (layout.values, layout.columns) == ((), ())


IDS = {"prompt_id": [0, 0, 1]}


@pytest.mark.parametrize(
    ("table", "options", "says"),
    [
        ({"humor": [1.0]}, {}, r"needs a column prompt_id, prompt or messages, has humor$"),
        (
            {**IDS, "humor": [1.0, float("nan"), 0.0]},
            {},
            r"row 1 \(from 0\), column humor: must be finite, got nan$",
        ),
        (
            {**IDS, "humor": [1.0, 0.0, float("-inf")]},
            {},
            r"row 2 \(from 0\), column humor: must be finite, got -inf$",
        ),
        ({**IDS, "humor": [1.0, None, 0.0]}, {}, r"row 1 \(from 0\), column humor: is missing$"),
        (
            {**IDS, "humor": ["1", "2", "x"]},
            {"values": ["humor"]},
            r"row 2 .*, column humor: must be a number, got 'x'$",
        ),
        (
            {**IDS, "humor": ["1", "2", "3"]},
            {"values": ["humor"]},
            r"row 0 .*, column humor: must be a number, got '1'$",
        ),
        (
            {**IDS, "humor": [[1], [2], [3]]},
            {"values": ["humor"]},
            r"row 0 .*, column humor: must be a number, got list",
        ),
        ({**IDS, "humor": [1.0] * 3}, {"values": ["humour"]}, r"has no column humour; there are humor$"),
        ({**IDS, "humor": [1.0] * 3}, {"columns": ["age"]}, r"has no column age; there are humor$"),
        ({"prompt_id": [0, None, 1]}, {}, r"row 1 \(from 0\), column prompt_id: is missing$"),
        ({"prompt_id": [0.0, 0.5, 1]}, {}, r"column prompt_id: must be whole numbers or text, got double$"),
        (
            {**IDS, "candidate": [0, 0, 0]},
            {},
            r"row 1 \(from 0\), column candidate: candidate 0 of this prompt is there",
        ),
        (
            {**IDS, "candidate": [0, -1, 0]},
            {},
            r"row 1 \(from 0\), column candidate: must be 0 or more, got -1$",
        ),
        (
            {"prompt_id": pa.array([0, 2**63], pa.uint64())},
            {},
            r"row 1 \(from 0\), column prompt_id: must be below 2\^63, got 9223372036854775808$",
        ),
        ({**IDS, "candidate": [0, None, 0]}, {}, r"row 1 \(from 0\), column candidate: is missing$"),
        ({**IDS, "candidate": [0.0, 1.0, 0.0]}, {}, r"column candidate: must be a whole number, got double$"),
        (
            {**IDS, "prompt": ["a", "b", "c"]},
            {},
            r"row 1 \(from 0\), column prompt: differs from the rows of the same",
        ),
        ({**IDS, "prompt": ["a", None, "c"]}, {}, r"row 1 \(from 0\), column prompt: is missing$"),
        ({**IDS, "response": ["a", None, "c"]}, {}, r"row 1 \(from 0\), column response: is missing$"),
        ({**IDS, "response": [1, 2, 3]}, {}, r"column response: must be text, got int64$"),
        (
            {**IDS, "age": ["a", "b", "c"]},
            {"columns": ["age"]},
            r"row 1 \(from 0\), column age: differs from the rows",
        ),
        (
            {**IDS, "age": [[1], [1], [2]]},
            {"columns": ["age"]},
            r"column age: must be text, a number or true or false",
        ),
        ({**IDS, "drawn": [True, None, False]}, {}, r"row 1 \(from 0\), column drawn: is missing$"),
        ({**IDS, "drawn": ["yes", "no", "no"]}, {}, r"column drawn: must be bool, got large_string$"),
        ({**IDS, "tokens": [1.5, 2.0, 3.0]}, {}, r"column tokens: must be int64, got double$"),
        ({**IDS, "finish_reason": [1, 2, 3]}, {}, r"column finish_reason: must be large_string, got int64$"),
        (
            {**IDS, "logprob": [0.0, float("nan"), 0.0]},
            {},
            r"row 1 \(from 0\), column logprob: must be finite, got nan$",
        ),
        (
            {**IDS, "x": [1.0] * 3},
            {"values": ["x"], "columns": ["x"]},
            r"x can be a value or a column of the prompt",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(table: dict[str, Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^file: {says}|^file: .*{says}") as caught:
        laid(table, **options)
    assert "\n" not in str(caught.value)


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^values: prompt_id is reserved"):
        laid(TABLE, values=["prompt_id"])
    with pytest.raises(ValueError, match=r"^values must name a column once, got humor, humor$"):
        laid(TABLE, values=["humor", "humor"])
    with pytest.raises(TypeError, match=r"^values must be a list of column names, got False$"):
        laid(TABLE, values=False)
    with pytest.raises(TypeError, match=r"^values must be a list of column names, got 7 among them$"):
        laid(TABLE, values=["humor", 7])
    with pytest.raises(TypeError, match=r"^columns must be a list of column names, got 'audience'$"):
        laid(TABLE, columns="audience")


def test_a_row_is_named_in_its_own_part() -> None:
    table = pa.table({**IDS, "humor": [0.0, 1.0, float("inf")]})
    with pytest.raises(ValueError, match=r"^b: row 0 \(from 0\), column humor"):
        lay_out(Source(table, (("a", 2), ("b", 1))))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_one_stray_text_among_numbers_is_not_passed_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [("a", 0.5), ("a", "oops"), ("b", 1e-3)]
    if name == "a.csv":
        path.write_text("prompt,humor\n" + "".join(f"{prompt},{humor}\n" for prompt, humor in rows))
        says = r"^a\.csv: row 1 \(from 0\), column humor: text among numbers, 'oops'; where text is meant name it"
    else:
        path.write_text(
            "".join(json.dumps({"prompt": prompt, "humor": humor}) + "\n" for prompt, humor in rows)
        )
        says = r"^a\.jsonl: row 1 \(from 0\), column humor: must be a number as in other rows, got 'oops'$"
    with pytest.raises(ValueError, match=says):
        lay_out(read_source(path))


def test_text_that_is_meant_is_taken() -> None:
    ages = {"prompt": ["a", "b", "c"], "age": ["7", "8", "9-12"]}
    with pytest.raises(ValueError, match=r"text among numbers, '9-12'"):
        laid(ages, loose=True)
    assert laid(ages, loose=True, columns=["age"]).columns == ("age",)
    assert laid(ages, loose=False).columns == ("age",)
    assert laid({**ages, "age": ["7", "young", "old"]}, loose=True).columns == ("age",)


def test_a_number_that_a_pair_shares_is_no_value() -> None:
    pairs = {
        "prompt": ["a", "b"],
        "chosen": ["x", "y"],
        "rejected": ["z", "z"],
        "chosen_humor": [1.0, 2.0],
        "rejected_humor": [3.0, 4.0],
        "margin": [0.5, 0.6],
    }
    layout = laid(pairs)
    assert (layout.values, layout.columns) == (("humor",), ("margin",))
    assert layout.table["candidate"].to_pylist() == [0, 1, 0, 1]
    assert laid(pairs, values=["margin"]).values == ("margin",)
    with pytest.raises(ValueError, match=r"^file: row 1 \(from 0\), column humor: must be finite, got inf$"):
        laid({**pairs, "rejected_humor": [3.0, float("inf")]})


def test_a_type_whose_names_break_the_line_is_told_on_one() -> None:
    odd = pa.array([{"\n": 1.0}, {"\n": 2.0}])
    with pytest.raises(ValueError, match=r"must be whole numbers or text, got struct< ?: double>") as caught:
        Pilot.read(pa.table({"prompt_id": odd, "humor": [0.0, 1.0]}))
    assert "\n" not in str(caught.value)
