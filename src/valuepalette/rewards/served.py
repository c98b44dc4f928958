"""Classifiers and reward models that vLLM serves: the same texts as in memory, the same numbers back.

The server is asked for raw outputs (`use_activation = false`, vLLM 0.11.1 or later); what a value makes of them is
computed here, as `classifier` and `reward_model` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.requesting import Limits
from valuepalette.rewards import Column
from valuepalette.rewards.checking import RowError
from valuepalette.rewards.classifier import output_column
from valuepalette.rewards.exchange import Reads, answer_of, conversation_of, last_turn, read, reads_or_raise
from valuepalette.rewards.kinds import RAW
from valuepalette.rewards.remote import Source, address, batches, key_from, number, plain_prompt, shown
from valuepalette.rewards.reward_model import checked_template, filled, signs_of

__all__ = ["Served"]

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "classify": ("label", "output", "multi_label", "reads"),
    "score": ("template",),
    "pooling": ("format", "template", "heads", "pooling"),
}
"""What belongs to a task alone."""


class Served:
    """What a classifier or reward model served by vLLM at `base_url` gives each response.

    `task` is how the model is asked:

    - "classify": as `classifier`, one label of one text; options `label`, `output`, `reads`, and `multi_label` for a
      model whose labels exclude none of the others.
    - "score": as `reward_model` with format "pair", a question and an answer; option `template` for the question.
    - "pooling": as `reward_model` with format "chat" (the server's chat template, one conversation a request) or
      "text" (`template`); option `heads`. `pooling = "token_classify"` is for models that give each token a number.

    Texts are formed as `classifier` and `reward_model` form them, and cut where they are too long. `negate` turns
    round what is bad to have. `key` is the name of the environment variable that holds the key. The server does not
    tell what it runs: `revision` is for you to state, and counts as part of the version.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str,
        task: str = "classify",
        name: str = "vllm",
        label: int | None = None,
        output: str | None = None,
        multi_label: bool | None = None,
        reads: str | None = None,
        format: str | None = None,
        template: str | None = None,
        heads: Mapping[str, int] | Sequence[str] | None = None,
        pooling: str | None = None,
        negate: bool | Sequence[str] = False,
        thinking: bool = False,
        revision: str | None = None,
        key: str | None = None,
        batch_size: int = 32,
        concurrency: int = 16,
        timeout: float = 120.0,
        tries: int = 6,
    ) -> None:
        given = {
            "label": label,
            "output": output,
            "multi_label": multi_label,
            "reads": reads,
            "format": format,
            "template": template,
            "heads": heads,
            "pooling": pooling,
        }
        _check_task(task, given)
        batches(0, batch_size)
        self.model, self.task, self.thinking, self.batch_size = model, task, thinking, batch_size
        self._label, self._output, self._multi = label or 0, output or "log-probability", bool(multi_label)
        self._format = format or ("chat" if task == "pooling" else "pair")
        self._pooling = pooling or "classify"
        self._template = ""
        if task == "classify":
            self._label = 1 if label is None else _label(label)
            self.reads: Reads = reads_or_raise(reads or "answer")
            if not isinstance(negate, bool):
                raise ValueError(f"negate must be true or false, got {negate!r}")
            definition = f"of label {self._label} by {model}"
            self.columns = (output_column(name, definition, self._output, negate=negate),)
            self._heads, self.signs = {name: self._label}, np.array([-1.0 if negate else 1.0])
            rule = f"label {self._label} {self._output}{' of several' if self._multi else ''}, reads {self.reads}"
        else:
            self._template = checked_template(self._format, template)
            self.reads = "conversation" if self._format == "chat" else "last turn and answer"
            self._heads = _heads(name, heads)
            self.signs = signs_of(tuple(self._heads), negate)
            self.columns = tuple(
                Column(column, f"{'minus ' if sign < 0 else ''}output {head} of {model}")
                for (column, head), sign in zip(self._heads.items(), self.signs, strict=True)
            )
            rule = f"{self._format} {self._template!r}, {self._pooling}, heads {list(self._heads.values())}"
        self._listed = heads is not None and not isinstance(heads, Mapping)
        self._alone = heads is None and task != "classify"
        server, path = address(base_url, "base_url")
        # vLLM has these endpoints beside /v1, not in it.
        url = server + path.removesuffix("/v1")
        self._source = Source(
            url, key=key_from(key), limits=Limits(concurrency=concurrency, timeout=timeout, tries=tries)
        )
        stated = f"@{revision}" if revision else ""
        self.version = (
            f"vllm 1, {task} by {model}{stated}, {rule}, signs {self.signs.tolist()}, thinking {thinking}"
        )

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        parts = batches(
            len(responses), 1 if self._format == "chat" and self.task == "pooling" else self.batch_size
        )
        texts = self._texts(prompts, responses)
        requests = [
            (rows.start, f"/{self.task}", self._content([texts[row] for row in rows])) for rows in parts
        ]
        found = np.empty((len(responses), len(self.columns)))
        for rows, answer in zip(parts, self._source.post(requests), strict=True):
            found[rows.start : rows.stop] = self._taken(_outputs(answer, rows), rows)
        return found * self.signs

    def _texts(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Any]:
        """What is judged of each exchange: a text, a question and an answer, or a conversation."""
        if self.task == "classify":
            return list(read(self.reads, prompts, responses, thinking=self.thinking))
        answers = [answer_of(response, thinking=self.thinking).strip() for response in responses]
        if self._format == "chat":
            return [
                plain_prompt(conversation_of(prompt, answer))
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        last = [last_turn(prompt) for prompt in prompts]
        if self._format == "pair":
            return [(filled(self._template, prompt=p), a) for p, a in zip(last, answers, strict=True)]
        return [filled(self._template, prompt=p, answer=a) for p, a in zip(last, answers, strict=True)]

    def _content(self, texts: Sequence[Any]) -> dict[str, Any]:
        side = "left" if self._format == "chat" and self.task == "pooling" else "right"
        content: dict[str, Any] = {"model": self.model, **RAW, "truncation_side": side}
        if self.task == "classify":
            return {**content, "input": list(texts)}
        if self.task == "score":
            return {
                **content,
                "queries": [one for one, _ in texts],
                "documents": [other for _, other in texts],
            }
        content["task"] = self._pooling
        if self._format == "chat":
            return {**content, "messages": texts[0]}
        return {**content, "input": list(texts)}

    def _taken(self, outputs: Sequence[Sequence[float]], rows: range) -> NDArray[np.float64]:
        """The columns of raw outputs."""
        count = len(outputs[0])
        for row, own in zip(rows, outputs, strict=True):
            if len(own) != count or not own:
                raise RowError(f"the server gave {len(own)} outputs, and {count} for the one before", row)
        last = max(self._heads.values())
        if last >= count:
            raise RowError(
                f"the model has {count} outputs, 0 to {count - 1}, and number {last} is asked", rows.start
            )
        if (self._alone and count != 1) or (self._listed and count != len(self._heads)):
            told = "heads must name them" if self._alone else f"heads names {len(self._heads)}"
            raise RowError(f"the model has {count} outputs: {told}", rows.start)
        logits = np.array(outputs)
        if count > 1 and (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1.0, atol=1e-3):
            raise RowError(
                "the server gave probabilities where raw outputs were asked (use_activation = false): it takes "
                "vLLM 0.11.1 or later",
                rows.start,
            )
        if self.task != "classify" or self._output == "logit":
            return logits[:, list(self._heads.values())]
        if count == 1 or self._multi:
            chances = -np.logaddexp(0.0, -logits)
        else:
            chances = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        taken = chances[:, self._label : self._label + 1]
        return np.exp(taken) if self._output == "probability" else taken

    def close(self) -> None:
        """Nothing to free: connections end with each call."""


def _check_task(task: str, given: Mapping[str, Any]) -> None:
    if task not in _OPTIONS:
        raise ValueError(f"task must be one of {', '.join(map(repr, _OPTIONS))}; got {task!r}")
    odd = next(
        (name for name, told in given.items() if told is not None and name not in _OPTIONS[task]), None
    )
    if odd is not None:
        raise ValueError(f"task {task!r} takes {', '.join(_OPTIONS[task])}; got {odd}")
    if given["format"] not in (None, "chat", "text"):
        raise ValueError(f"format must be 'chat' or 'text'; got {given['format']!r}")
    if given["pooling"] not in (None, "classify", "token_classify"):
        raise ValueError(f"pooling must be 'classify' or 'token_classify'; got {given['pooling']!r}")


def _label(label: Any) -> int:
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise ValueError(f"label must be a label's number, which a server knows it by; got {label!r}")
    return label


def _heads(name: str, heads: Mapping[str, int] | Sequence[str] | None) -> dict[str, int]:
    """Column -> number of the output."""
    if heads is None:
        return {name: 0}
    if isinstance(heads, str) or not heads:
        raise ValueError(f"heads must be a list of names or a table of name = output; got {heads!r}")
    if isinstance(heads, Mapping):
        return {column: _label(head) for column, head in heads.items()}
    if len(set(heads)) != len(heads):
        raise ValueError(f"heads must be different names; got {list(heads)}")
    return {column: index for index, column in enumerate(heads)}


def _outputs(answer: Mapping[str, Any], rows: range) -> list[list[float]]:
    """The raw outputs of each row, in vLLM's shape of any of the endpoints."""
    entries = answer.get("data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RowError(f"the server answered without data: {shown(answer)}", rows.start)
    if len(entries) != len(rows):
        raise RowError(f"the server gave {len(rows)} responses {len(entries)} results", rows.start)
    places = {entry.get("index", place): entry for place, entry in enumerate(entries)}
    if set(places) != set(range(len(rows))):
        raise RowError(f"the server's results must be numbered 0 to {len(rows) - 1}", rows.start)
    found: list[list[float]] = []
    for place, row in enumerate(rows):
        entry = places[place]
        told = entry.get("probs", entry.get("data", entry.get("score")))
        if isinstance(told, list) and told and isinstance(told[-1], list):
            told = told[-1]  # a row per token: the last has read everything
        cells = told if isinstance(told, list) else [told]
        found.append([number(cell, row) for cell in cells])
    return found
