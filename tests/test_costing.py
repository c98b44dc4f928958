"""What answers cost, and from how many on fine-tuning is cheaper: by hand, and beside the paper's clock."""

from __future__ import annotations

import math

import pytest

from valuepalette.costing import Cost, cost_of


def test_by_hand() -> None:
    """Eight answers of 20 tokens after a prompt of 100: 260; a fine-tuned model draws one: 120."""
    cost = cost_of(20.0, 100.0, 0.0, 7_000.0, 3.0)
    assert cost.decoding(8) == 260
    assert cost.answers(8) == 150  # 150 answers cost 39,000 decoded, and 18,000 + 21,000 fine-tuned
    assert 149 * cost.decoding(8) < 149 * 120 + 21_000
    assert cost_of(20.0, 100.0, 0.5, 7_000.0, 3.0).decoding(8) == 340


def test_a_fine_tuned_model_can_be_never_cheaper() -> None:
    assert cost_of(20.0, None, 0.0, 100.0, 3.0).answers(1) == math.inf
    assert math.isnan(cost_of(20.0, None, 0.0, None, 3.0).answers(8))
    assert math.isnan(cost_of(None, None, 0.0, None, 3.0).decoding(8))


def test_the_papers_table_6() -> None:
    """OPT-1.3B, six values, minutes for 100 and 2,000 answers: 4.25 and 107.32 decoded, 27.16 and 29.54 fine-tuned.

    One decoded answer takes .05425 minutes, one of a fine-tuned model .00125, so 16 answers and their scores take 43
    times as long as one without: scoring costs 1.7 times what drawing does.
    """
    decoded, tuned = (107.32 - 4.25) / 1900, (29.54 - 27.16) / 1900
    score = decoded / tuned / 16 - 1
    assert score == pytest.approx(1.71, abs=0.01)
    training = 27.16 - 100 * tuned
    cost = Cost(answer=tuned, prompt=0.0, score=score, finetune=training)
    lines_meet = training / (decoded - tuned)
    assert cost.answers(16) == math.ceil(lines_meet) == 511


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((-1.0, None, 0.0, None, 3.0), "answer_tokens must be a number, 0 or more, got -1.0"),
        ((1.0, math.nan, 0.0, None, 3.0), "prompt_tokens must be a number, 0 or more, got nan"),
        ((1.0, None, True, None, 3.0), "score_price must be a number, 0 or more, got True"),
        ((1.0, None, 0.0, math.inf, 3.0), "finetune_tokens must be a number, 0 or more, got inf"),
        ((1.0, None, 0.0, 1.0, "3"), "train_price must be a number, 0 or more, got '3'"),
        ((None, None, 0.0, 1.0, 3.0), "answer_tokens must say how long answers are where finetune_tokens"),
    ],
)
def test_what_makes_no_sense_is_one_line(given: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cost_of(*given)
