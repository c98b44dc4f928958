"""Other layouts become ours: transcripts, pairs, and the reference's echo, its five odd rows included."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import SHARED, needs_shared
from valuepalette.reading import Source, read_source
from valuepalette.transcripts import as_prompts, transcript, without_echo, without_pairs

ASKED = "\n\nHuman: Tea?\n\nAssistant: Yes.\n\nHuman: Green?"


def source(**columns: object) -> Source:
    table = pa.table(columns)
    return Source(table, (("file", table.num_rows),))


def test_turns_become_messages() -> None:
    assert transcript(ASKED) == [
        {"role": "user", "content": "Tea?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Green?"},
    ]


def test_a_marker_inside_a_turn_is_text() -> None:
    text = "\n\nHuman: He said: Assistant: no.  Human: yes\nHuman: so"
    assert transcript(text) == [{"role": "user", "content": "He said: Assistant: no.  Human: yes\nHuman: so"}]


def test_a_speaker_who_goes_on_has_one_turn() -> None:
    assert transcript("\n\nHuman: a\n\nAssistant: b\n\nAssistant:  c \n\nHuman: d")[1] == {
        "role": "assistant",
        "content": "b\n\nc",
    }


def test_an_empty_turn_stays_but_not_the_place_of_the_answer() -> None:
    assert transcript("Human: a\n\nAssistant:") == [{"role": "user", "content": "a"}]
    assert [turn["content"] for turn in transcript("Human: a\n\nAssistant: \n\nHuman: b")] == ["a", "", "b"]


@pytest.mark.parametrize("text", ["", "hello", "hello\n\nHuman: a", "System: x\n\nHuman: a"])
def test_what_is_no_transcript(text: str) -> None:
    with pytest.raises(ValueError, match=r"a transcript must start with a Human: or Assistant: turn, got"):
        transcript(text)


def test_pairs_become_two_candidates() -> None:
    found = without_pairs(
        source(
            chosen=[ASKED + "\n\nAssistant: Please.", "\n\nHuman: a\n\nAssistant: b"],
            rejected=[ASKED + "\n\nAssistant: ", "\n\nHuman: a\n\nAssistant: c"],
            chosen_humor=[1.0, 2.0],
            rejected_humor=[3.0, 4.0],
            audience=["adults", "children"],
        )
    )
    assert found.table.to_pydict() == {
        "audience": ["adults", "adults", "children", "children"],
        "messages": [transcript(ASKED)] * 2 + [transcript("Human: a")] * 2,
        "response": ["Please.", "", "b", "c"],
        "humor": [1.0, 3.0, 2.0, 4.0],
    }
    assert found.at(3, "humor") == "file: row 1 (from 0), column humor"


def test_pairs_of_plain_text_stay_text() -> None:
    found = without_pairs(source(prompt=["Tea?"], chosen=[" Yes "], rejected=["No"]))
    assert found.table.to_pydict() == {"prompt": ["Tea?", "Tea?"], "response": [" Yes ", "No"]}


def test_conversations_that_part_early_share_less() -> None:
    found = as_prompts(
        source(
            chosen=["\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"],
            rejected=["\n\nHuman: a\n\nAssistant: bad"],
        )
    )
    assert found.table["messages"].to_pylist() == [transcript("Human: a")]


def test_hh_rlhf_refuses_what_it_is_not() -> None:
    with pytest.raises(
        ValueError, match=r"^file: hh-rlhf needs chosen and rejected, or prompt; columns are x$"
    ):
        as_prompts(source(x=[1]))
    with pytest.raises(
        ValueError, match=r"^file: row 1 \(from 0\), column prompt: a transcript must start .* 'Hi'$"
    ):
        as_prompts(source(prompt=[ASKED, "Hi"]))
    with pytest.raises(ValueError, match=r"^file: row 0 \(from 0\), column chosen: no Assistant: turn, got "):
        as_prompts(source(chosen=[ASKED.replace("Assistant", "Nobody")], rejected=["x"]))
    with pytest.raises(ValueError, match=r"^file: row 1 \(from 0\), column rejected: is missing$"):
        as_prompts(source(chosen=[ASKED, ASKED], rejected=[ASKED, None]))
    with pytest.raises(ValueError, match=r"^file: row 0 \(from 0\), column chosen: must be text, got int64$"):
        as_prompts(source(chosen=[1], rejected=[ASKED]))


@needs_shared
def test_hh_rlhf_prompts_are_recovered_from_the_full_transcripts() -> None:
    """All 2,312 pairs, four that part before the last turn and four blank answers among them."""
    split = pq.read_table(SHARED / "hh-harmless-base-test.parquet").to_pydict()
    answer = "\n\nAssistant:"
    whole = source(
        **{
            side: [prompt + answer + text for prompt, text in zip(split["prompt"], split[side], strict=True)]
            for side in ("chosen", "rejected")
        }
    )
    expected = [transcript(prompt) for prompt in split["prompt"]]
    assert as_prompts(whole).table["messages"].to_pylist() == expected
    pairs = without_pairs(whole).table
    assert pairs["messages"].to_pylist()[::2] == expected
    assert pairs["response"].to_pylist()[::2] == [text.strip() for text in split["chosen"]]
    assert without_pairs(read_source(SHARED / "hh-harmless-base-test.parquet")).table.equals(pairs)
    # Every word is still there, in order, and speakers alternate.
    for prompt, messages in zip(split["prompt"], expected, strict=True):
        words = re.sub(r"\n\n(Human|Assistant):", " ", prompt).split()
        assert " ".join(turn["content"] for turn in messages).split() == words
        assert {turn["role"] for turn in messages[::2]} == {"user"}
        assert {turn["role"] for turn in messages[1::2]} <= {"assistant"}


def test_an_echo_is_cut() -> None:
    found = without_echo(source(prompt=["Pay  my ticket ?", "a"], generated=["Pay my ticket? you do", "a"]))
    assert found.table.to_pydict() == {"prompt": ["Pay  my ticket ?", "a"], "response": [" you do", ""]}


def test_blanks_that_are_there_belong_to_the_echo() -> None:
    found = without_echo(source(prompt=["a b ?", "a "], generated=["a b?  c", "ac"]))
    assert found.table["response"].to_pylist() == ["  c", "c"]


@pytest.mark.parametrize("generated", ["Pay your ticket", "Pay", ""])
def test_an_answer_without_its_echo_is_refused(generated: str) -> None:
    with pytest.raises(
        ValueError, match=r"^file: row 0 \(from 0\), column generated: must start with the prompt, got"
    ):
        without_echo(source(prompt=["Pay my"], generated=[generated]))


def test_generated_beside_a_response_is_a_column_like_others() -> None:
    given = source(prompt=["a"], generated=["b"], response=["c"])
    assert without_echo(given) is given


@needs_shared
def test_every_response_of_the_reference_is_recovered() -> None:
    found = without_echo(read_source(SHARED / "reference-opt1.3b-Anthropic-harmless.json"))
    expected = pq.read_table(SHARED / "pilot-opt1.3b-anthropic.parquet")
    assert found.table.num_rows == 2312
    for name in ("prompt", "response"):
        assert found.table[name].to_pylist() == expected[name].to_pylist()
    odd = [208, 324, 725, 1737, 2243]
    raw = read_source(SHARED / "reference-opt1.3b-Anthropic-harmless.json").table.take(odd).to_pylist()
    assert not any(row["generated"].startswith(row["prompt"]) for row in raw)
