"""Prompts are texts or conversations, in one form whatever they came in, and numbered by what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import SHARED, needs_shared
from valuepalette.prompts import encoded, prompt_codes, read_prompts, with_prompts
from valuepalette.reading import Source
from valuepalette.transcripts import MESSAGES

USER = {"role": "user", "content": "Tea?"}
SYSTEM = {"role": "system", "content": "Be kind."}
ASSISTANT = {"role": "assistant", "content": "Yes."}


def source(table: object) -> Source:
    made = pa.table(table)
    return Source(made, (("file", made.num_rows),))


def lines(folder: Path, *rows: object, name: str = "prompts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_and_conversations_may_be_mixed(tmp_path: Path) -> None:
    path = lines(
        tmp_path, {"prompt": "a", "audience": "all"}, {"messages": [SYSTEM, USER], "audience": "kids"}
    )
    assert read_prompts(path, columns=["audience"]).to_pylist() == [
        {"prompt": "a", "messages": None, "audience": "all"},
        {"prompt": None, "messages": [SYSTEM, USER], "audience": "kids"},
    ]
    assert read_prompts(path).column_names == ["prompt", "messages"]


def test_prompts_from_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\none\n")
    (tmp_path / "a.csv").write_text('prompt,n\n"one, or",1\n')
    assert read_prompts(tmp_path / "a.txt").to_pydict() == {"prompt": ["one", "two", "one"]}
    assert read_prompts(tmp_path / "a.csv", columns=["n"]).to_pydict() == {"prompt": ["one, or"], "n": [1]}
    assert read_prompts(lines(tmp_path, {"prompt": [USER]})).to_pydict() == {"messages": [[USER]]}
    assert read_prompts(pa.table({"messages": [[USER]]})).to_pydict() == {"messages": [[USER]]}
    assert read_prompts(lines(tmp_path, {"prompt": "a"}, name="b.dat"), "jsonl").num_rows == 1


def test_messages_keep_role_and_content_alone(tmp_path: Path) -> None:
    path = lines(tmp_path, {"messages": [{"content": "Tea?", "name": "x", "role": "user"}]})
    table = read_prompts(path)
    assert table["messages"].type == MESSAGES
    assert table["messages"].to_pylist() == [[USER]]


@needs_shared
def test_hh_rlhf_gives_conversations() -> None:
    table = read_prompts(SHARED / "hh-harmless-base-test.parquet", format="hh-rlhf", columns=["chosen"])
    assert table.column_names == ["messages", "chosen"]
    assert table.num_rows == 2312
    assert all(row[-1]["role"] == "user" for row in table["messages"].to_pylist())


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "a"}, {"prompt": "  "}], r"row 1 \(from 0\), column prompt: is blank$"),
        ([{"prompt": "a"}, {"x": 1}], r"row 1 \(from 0\), column prompt: is missing$"),
        (
            [{"prompt": "a"}, {"messages": [USER]}, {"x": 1}],
            r"row 2 \(from 0\), column prompt or messages: is missing$",
        ),
        ([{"prompt": "a", "messages": [USER]}], r"row 0 \(from 0\), column messages: there is a prompt too"),
        ([{"prompt": 3}], r"row 0 \(from 0\), column prompt: must be text, got int64$"),
        (
            [{"messages": [USER, ASSISTANT]}],
            r"row 0 \(from 0\), column messages: must end where the answer begins",
        ),
        (
            [{"messages": [USER]}, {"messages": []}],
            r"row 1 \(from 0\), column messages: the conversation is empty$",
        ),
        (
            [{"messages": [USER]}, {"messages": [USER, {"role": "user"}]}],
            r"row 1 \(from 0\), column messages: the content of every message must be text$",
        ),
        (
            [{"messages": "[]"}],
            r"row 0 \(from 0\), column messages: must be a list of \{role, content\}, got 'string'$",
        ),
        ([{"messages": [{"role": "user"}]}], r"must be a list of \{role, content\}"),
        ([{"messages": [{"role": "user", "content": ["x"]}]}], r"the content of every message must be text$"),
        ([{"messages": [USER], "prompt": [USER]}], r"columns prompt and messages both hold conversations$"),
        ([{"text": "a"}], r"needs a column prompt or messages, has text$"),
        ([{"chosen": "a"}], r'has chosen; for hh-rlhf transcripts say format="hh-rlhf"$'),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, rows: list[object], says: str) -> None:
    with pytest.raises(ValueError, match=f"^prompts.jsonl: .*{says}|^prompts.jsonl: {says}"):
        read_prompts(lines(tmp_path, *rows))


def test_arguments_are_checked(tmp_path: Path) -> None:
    path = lines(tmp_path, {"prompt": "a", "audience": "b"})
    with pytest.raises(ValueError, match=r"has no column age; columns are prompt, audience$"):
        read_prompts(path, columns=["age"])
    with pytest.raises(ValueError, match=r"^format must be one of .*, hh-rlhf, got 'hh'$"):
        read_prompts(path, format="hh")


def test_numbers_follow_first_appearance() -> None:
    column = pa.chunked_array([["b", "a"], ["c", None], ["a", None, "b"]])
    assert encoded(column).tolist() == [0, 1, 2, 3, 1, 3, 0]


turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system"]), "content": st.sampled_from(["", "a", "b"])}
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(["", "a", "b"]), turns), min_size=1, max_size=12), st.integers(0, 11)
)
def test_equal_prompts_have_equal_numbers(prompts: list[str | list[dict[str, str]]], cut: int) -> None:
    """However the rows are cut into chunks, and where the column is a slice of a longer one."""
    texts = pa.array([p if isinstance(p, str) else None for p in ["x", *prompts]], pa.string())
    messages = pa.array([None if isinstance(p, str) else p for p in [[USER], *prompts]], MESSAGES)
    halves = [slice(1, 1 + cut), slice(1 + cut, None)]
    table = {
        name: pa.chunked_array([column[half] for half in halves], column.type)
        for name, column in (("prompt", texts), ("messages", messages))
        if column[1:].null_count < len(prompts)
    }
    made = with_prompts(source(table)).table
    keys = [json.dumps(prompt, sort_keys=True) for prompt in prompts]
    first = list(dict.fromkeys(keys))
    codes = prompt_codes(made)
    assert codes is not None
    assert codes.tolist() == [first.index(key) for key in keys]
    given_back = [row.get("messages") or row["prompt"] for row in made.to_pylist()]
    assert given_back == prompts
