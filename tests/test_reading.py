"""Files and tables of every kind read alike, and what is wrong with them is said in one line."""

from __future__ import annotations

import bz2
import gzip
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from valuepalette.reading import Source, read_source

ROWS = [
    {"prompt_id": 0, "prompt": "a, b", "response": "two\nlines", "humor": 0.25},
    {"prompt_id": 0, "prompt": "a, b", "response": "", "humor": 1.0},
    {"prompt_id": 1, "prompt": "2020-01-01", "response": '"quoted"', "humor": -3.5},
]
TABLE = pa.Table.from_pylist(ROWS)


def jsonl(rows: list[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(TABLE, path)
    elif name.endswith(".csv"):
        pa.csv.write_csv(TABLE, path)
    elif name.endswith(".json"):
        path.write_text(json.dumps(ROWS))
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(jsonl([*ROWS])))
    elif name.endswith(".bz2"):
        path.write_bytes(bz2.compress(jsonl([*ROWS])))
    else:
        path.write_bytes(jsonl([*ROWS]))
    return path


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.csv", "a.json", "a.jsonl", "a.ndjson", "A.JSONL", "a.jsonl.gz", "a.jsonl.bz2"]
)
def test_files_of_every_kind_hold_the_same(tmp_path: Path, name: str) -> None:
    source = read_source(written(tmp_path, name))
    assert source.table.to_pylist() == ROWS
    assert source.parts == ((name, 3),)


class Capsule:
    """A table known by its protocol alone."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return TABLE.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "table",
    [TABLE, TABLE.to_batches()[0], Capsule(), TABLE.to_reader()],
    ids=["table", "batch", "capsule", "reader"],
)
def test_tables_of_every_kind_hold_the_same(table: object) -> None:
    assert read_source(table).table.to_pylist() == ROWS


@pytest.mark.extra("pandas", "polars")
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_hold_the_same(library: str) -> None:
    assert read_source(import_module(library).DataFrame(ROWS)).table.to_pylist() == ROWS


@pytest.mark.extra("pandas")
def test_pandas_that_knows_no_capsule(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    monkeypatch.delattr(pd.DataFrame, "__arrow_c_stream__")
    assert read_source(pd.DataFrame(ROWS)).table.to_pylist() == ROWS


@pytest.mark.extra("pandas")
def test_a_pandas_index_is_data_only_with_a_name() -> None:
    import pandas as pd

    frame = pd.DataFrame(ROWS, index=[5, 6, 9])
    assert read_source(frame).table.column_names == list(ROWS[0])
    assert read_source(frame.set_index("prompt_id")).table["prompt_id"].to_pylist() == [0, 0, 1]


def test_a_table_is_copied_from_arrays_that_change() -> None:
    numbers = np.arange(3.0)
    source = read_source(pa.table({"humor": pa.array(numbers)}))
    numbers[:] = 9
    assert source.table["humor"].to_pylist() == [0, 1, 2]


def test_plain_text_is_a_prompt_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffone\r\n\r\n  two \nthree".encode())
    assert read_source(path).table.to_pylist() == [
        {"prompt": "one"},
        {"prompt": "  two "},
        {"prompt": "three"},
    ]


def test_format_wins_over_the_name(tmp_path: Path) -> None:
    path = tmp_path / "prompts.dat"
    path.write_bytes(jsonl([*ROWS]))
    assert read_source(path, "jsonl").table.num_rows == 3
    with pytest.raises(ValueError, match=r"must end in one of \.parquet, \.jsonl.*got 'prompts.dat'"):
        read_source(path)
    with pytest.raises(ValueError, match=r"format must be one of parquet, jsonl.*got 'xml'"):
        read_source(path, "xml")


def test_numbers_may_be_whole_for_long(tmp_path: Path) -> None:
    """Types come from all rows, not from the first block."""
    count = 300_000
    (tmp_path / "a.csv").write_text("humor\n" + "1\n" * count + "0.5\n")
    (tmp_path / "a.jsonl").write_text('{"humor": 1}\n' * count + '{"humor": 0.5}\n')
    for name in ("a.csv", "a.jsonl"):
        column = read_source(tmp_path / name).table["humor"]
        assert column.type == pa.float64()
        assert column[count].as_py() == 0.5


def test_text_that_looks_like_a_time_is_text(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "2020-01-01"}], "day": "2020-01-01"}]
    (tmp_path / "a.jsonl").write_bytes(jsonl([*rows]))
    assert read_source(tmp_path / "a.jsonl").table.to_pylist() == rows


def test_keys_may_come_in_any_order_and_late(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1.0}, {"b": "x", "a": 2.0}]')
    assert read_source(path).table.to_pylist() == [{"a": 1.0, "b": None}, {"a": 2.0, "b": "x"}]


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(2), tmp_path / "part-00001.parquet")
    pq.write_table(TABLE.slice(0, 2), tmp_path / "part-00000.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / ".part-00002.parquet").write_text("half written")
    source = read_source(tmp_path)
    assert source.table.to_pylist() == ROWS
    assert source.parts == (("part-00000.parquet", 2), ("part-00001.parquet", 1))
    assert source.at(2, "humor") == "part-00001.parquet: row 0 (from 0), column humor"


def test_parts_may_order_their_columns_differently(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(TABLE.slice(2).select(TABLE.column_names[::-1]), tmp_path / "b.parquet")
    assert read_source(tmp_path).table.to_pylist() == ROWS


def test_parts_must_agree(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    pq.write_table(TABLE.drop_columns("humor"), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"^b\.parquet: differs from a\.parquet in column humor$"):
        read_source(tmp_path)
    pq.write_table(TABLE.replace_schema_metadata({b"valuepalette": b"{}"}), tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match=r"^b\.parquet: its valuepalette metadata differs from that of a\.parquet$"
    ):
        read_source(tmp_path)
    pq.write_table(TABLE.set_column(3, "humor", pa.array(["x", "y", "z"])), tmp_path / "b.parquet")
    pq.write_table(TABLE, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"the parts disagree"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"x": 1.0}\n\n{"x": 1.0\n', r"^a\.jsonl: line 3 is not JSON: "),
        ("a.jsonl", b'{"x": 1.0}\n[1]\n', r"^a\.jsonl: row 1 \(from 0\) must be an object, got \[1\]$"),
        (
            "a.jsonl",
            b'{"x": 1.0}\n{"x": "oops"}\n{"x": 2.0}\n',
            r"^a\.jsonl: row 1 \(from 0\), column x: must be a number as in other rows, got 'oops'$",
        ),
        (
            "a.json",
            b'[{"x": "oops"}, {"x": 1}, {"x": 2.5}]',
            r"^a\.json: row 0 \(from 0\), column x: must be a number as in other rows, got 'oops'$",
        ),
        ("a.jsonl", b'{"x": 1, "x": 2}', r"^a\.jsonl: line 1 is not JSON: x is there twice$"),
        ("a.jsonl", b'{"x": "\xff"}', r"^a\.jsonl: line 1 is not UTF-8$"),
        ("a.json", b'[{"x": %d}]' % 10**30, r"^a\.json: column x: "),
        ("a.jsonl", b"", r"^a\.jsonl: holds no rows$"),
        ("a.json", b"[]", r"^a\.json: holds no rows$"),
        ("a.json", b'{"x": [1]}', r"^a\.json: must be a list of objects, got dict"),
        ("a.json", b"{", r"^a\.json: not JSON: "),
        ("a.csv", b"", r"^a\.csv: holds no rows$"),
        ("a.csv", b"x,y\n", r"^a\.csv: holds no rows$"),
        ("a.csv", b"x,y\n1,2\n1,2,3\n", r"^a\.csv: .*Row #3: Expected 2 columns, got 3"),
        ("a.csv", b"x,x\n1,2\n", r"^a\.csv: column x is there twice$"),
        ("a.csv", b'"x\ny"\n1\n', r"^a\.csv: the name of a column must be text of one line, got 'x\\ny'$"),
        ("a.csv", b"\xed\xa0\x80\n1\n", r"^a\.csv: the name of a column is not UTF-8$"),
        ("a.jsonl", b'{"\xed\xa0\x80": 0}', r"^a\.jsonl: line 1 is not UTF-8$"),
        ("a.jsonl", b'{"": 0}', r"^a\.jsonl: the name of a column must be text of one line, got ''$"),
        (
            "a.json",
            b'[{"\\ud800": 0}]',
            r"^a\.json: the name of a column must be text of one line, got '\\ud800'$",
        ),
        ("a.json", b'[{"x": "\\ud800"}]', r"^a\.json: column x: .*surrogates not allowed$"),
        ("a.json", b"[" * 100_000, r"^a\.json: not JSON: "),
        ("a.csv", b"prompt\n\xff\n", r"^a\.csv: .*invalid UTF8"),
        ("a.txt", b"\n \n", r"^a\.txt: holds no rows$"),
        ("a.parquet", b"PAR1 no more", r"^a\.parquet: "),
        ("a.jsonl.gz", b"not compressed", r"^a\.jsonl\.gz: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_source(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file or folder"):
        read_source(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"holds no \.parquet file"):
        read_source(tmp_path)
    with pytest.raises(TypeError, match=r"source must be a path, .* got list"):
        read_source([1, 2])
    with pytest.raises(ValueError, match=r"column x is there twice"):
        read_source(pa.table([[1], [2]], names=["x", "x"]))


@pytest.mark.extra("pandas")
def test_pandas_with_text_among_numbers() -> None:
    import pandas as pd

    frame = pd.DataFrame({"humor": pd.Series([1.0, "oops", 2.0], dtype=object)})
    with pytest.raises(
        ValueError, match=r"^table: row 1 \(from 0\), column humor: must be a number .* got 'oops'$"
    ):
        read_source(frame)


def test_rows_made_in_pairs_are_counted_as_in_the_file() -> None:
    source = Source(TABLE, (("a", 2), ("b", 1)), each=2)
    assert source.at(3, "x").startswith("a: row 1 ")
    assert source.at(5, "x").startswith("b: row 0 ")
