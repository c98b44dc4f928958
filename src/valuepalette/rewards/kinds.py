"""Kinds of reward models: how vLLM serves each, how it is asked, and the line by which it runs in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RAW", "TABLE", "Kind", "in_memory"]

RAW: Mapping[str, Any] = {"use_activation": False, "truncate_prompt_tokens": -1}
"""What every request says: raw outputs, and texts that are too long cut to what the model takes."""


@dataclass(frozen=True)
class Kind:
    """A kind of reward model, and how it is served and asked.

    model     what it is, as transformers knows it
    serve     what `vllm serve MODEL` is told besides, where anything
    line      its line of a study, beside `model` and `base_url`
    endpoint  where it is asked
    sends     what it is asked with, besides the texts
    memory    the line by which the same model runs in memory; None where nothing here runs it
    """

    model: str
    serve: str
    line: Mapping[str, Any]
    endpoint: str
    sends: Mapping[str, Any]
    memory: Mapping[str, Any] | None


_CUT_END = {**RAW, "truncation_side": "right"}
_CUT_START = {**RAW, "truncation_side": "left"}

TABLE: tuple[Kind, ...] = (
    Kind(
        "AutoModelForSequenceClassification, several labels",
        "",
        {"task": "classify", "label": 1},
        "/classify",
        _CUT_END,
        {"reward": "classifier", "label": 1},
    ),
    Kind(
        "AutoModelForSequenceClassification, several labels at once (multi-label)",
        "",
        {"task": "classify", "label": 1, "multi_label": True},
        "/classify",
        _CUT_END,
        {"reward": "classifier", "label": 1},
    ),
    Kind(
        "AutoModelForSequenceClassification, one label, of one text",
        "",
        {"task": "classify", "label": 0, "output": "logit"},
        "/classify",
        _CUT_END,
        {"reward": "classifier", "label": 0, "output": "logit"},
    ),
    Kind(
        "cross-encoder or reward model of a question and an answer, one label",
        "",
        {"task": "score"},
        "/score",
        _CUT_END,
        {"reward": "reward_model", "format": "pair"},
    ),
    Kind(
        "reward model of a conversation in its chat template, one label",
        "",
        {"task": "pooling"},
        "/pooling",
        {"task": "classify", **_CUT_START},
        {"reward": "reward_model", "format": "chat"},
    ),
    Kind(
        "the same with several heads",
        "",
        {"task": "pooling", "heads": ["helpful", "brief"]},
        "/pooling",
        {"task": "classify", **_CUT_START},
        {"reward": "reward_model", "format": "chat", "heads": ["helpful", "brief"]},
    ),
    Kind(
        "reward model of one text in a template",
        "",
        {"task": "pooling", "format": "text", "template": "Q: {prompt}\nA: {answer}"},
        "/pooling",
        {"task": "classify", **_CUT_END},
        {"reward": "reward_model", "format": "text", "template": "Q: {prompt}\nA: {answer}"},
    ),
    Kind(
        "ForRewardModel, a number per token (InternLM2, Qwen2.5-Math-RM): the last token's",
        "--trust-remote-code",
        {"task": "pooling", "pooling": "token_classify"},
        "/pooling",
        {"task": "token_classify", **_CUT_START},
        None,
    ),
    Kind(
        "language model judging by one token, such as no or yes",
        '--hf-overrides \'{"architectures": ["Qwen3ForSequenceClassification"], '
        '"classifier_from_token": ["no", "yes"]}\'',
        {"task": "score"},
        "/score",
        _CUT_END,
        None,
    ),
)
"""Kinds of reward models. A language model that writes its judgement is asked by `reward = "judge"`."""


def in_memory(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a study by which the model of a `reward = "vllm"` line runs in memory, the same number for number.

    Raises ValueError where nothing here runs such a model.

    >>> in_memory({"reward": "vllm", "model": "me/judge", "base_url": "http://host", "task": "score"})
    {'reward': 'reward_model', 'model': 'me/judge', 'format': 'pair'}
    """
    task = line.get("task", "classify")
    kept = ("model", "label", "output", "reads", "negate", "thinking", "revision", "template", "heads")
    shared = {option: line[option] for option in kept if option in line}
    if line.get("pooling", "classify") != "classify":
        raise ValueError(f"pooling must be 'classify' to be run in memory too; got {line['pooling']!r}")
    if task == "classify":
        return {"reward": "classifier", **shared}
    return {
        "reward": "reward_model",
        **shared,
        "format": "pair" if task == "score" else line.get("format", "chat"),
    }
