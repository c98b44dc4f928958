"""What a reward model gives a prompt and its response: one number, or one per head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Column
from valuepalette.rewards.exchange import Reads, answer_of, conversation_of, last_turn
from valuepalette.rewards.learned import CARD, Learned
from valuepalette.rewards.models import Checkpoint, Row

__all__ = ["RewardModel", "checked_template", "filled", "rows_of", "signs_of"]

_FORMATS = ("pair", "chat", "text")


class RewardModel:
    """The raw outputs of a sequence classifier that was trained as a reward model.

    `format` is how the exchange is put to the model; a model of `train_reward` says so itself:

    - "pair", the default: two texts, the question and the answer, as the tokenizer joins them. `template` turns the
      prompt's last turn into the question: `"{prompt}"` by default.
    - "text": one text, `template` with `{prompt}` (the last turn) and `{answer}` filled in.
    - "chat": the whole conversation in the model's own chat template.

    Answers are stripped of blanks at both ends. `heads` names the outputs that become columns: a mapping from
    column to the output's number or label, or a list of names for all outputs in order; without it the model must
    have one output, and the column bears the value's name. `negate` (true, or a list of columns) turns round
    outputs that are bad to have, so that larger is better. A pair or text of more than `max_tokens`, or too long for
    the model, loses its end, a conversation its beginning.
    """

    def __init__(
        self,
        *,
        model: str,
        name: str = "reward_model",
        format: str | None = None,
        template: str | None = None,
        heads: Mapping[str, int | str] | Sequence[str] | None = None,
        negate: bool | Sequence[str] = False,
        thinking: bool = False,
        max_tokens: int | None = None,
        batch_size: int = 16,
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        pickle: bool = False,
        remote_code: bool = False,
    ) -> None:
        put = _put(model) if format is None and template is None else {}
        format = format or put.get("format", "pair")
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {', '.join(map(repr, _FORMATS))}; got {format!r}")
        self.format, self.template = format, checked_template(format, put.get("template", template))
        self.max_tokens = put.get("max_tokens", max_tokens)
        self.checkpoint = Checkpoint(model, revision, dtype, device, pickle, remote_code)
        self.reads: Reads = "conversation" if format == "chat" else "last turn and answer"
        self.thinking, self.batch_size = thinking, batch_size
        self.heads = self._heads(name, heads)
        self.signs = signs_of(tuple(self.heads), negate)
        self.columns = tuple(
            Column(column, f"{'minus ' if sign < 0 else ''}output {head} of {model}")
            for (column, head), sign in zip(self.heads.items(), self.signs, strict=True)
        )

    def _heads(self, name: str, heads: Mapping[str, int | str] | Sequence[str] | None) -> dict[str, int]:
        """Column -> number of the output."""
        config = self.checkpoint.config
        count: int = config.num_labels
        if heads is None:
            if count != 1:
                raise ValueError(f"heads must name the {count} outputs of {self.checkpoint.id}; got none")
            return {name: 0}
        if isinstance(heads, str) or not heads:
            raise ValueError(f"heads must be a list of names or a table of name = output; got {heads!r}")
        if not isinstance(heads, Mapping):
            if len(heads) != count or len(set(heads)) != count:
                raise ValueError(f"heads must be {count} different names, one per output; got {list(heads)}")
            return {column: index for index, column in enumerate(heads)}
        labels: dict[str, int] = getattr(config, "label2id", None) or {}
        found = {
            column: labels.get(head, -1) if isinstance(head, str) else head for column, head in heads.items()
        }
        for column, index in found.items():
            if not 0 <= index < count:
                raise ValueError(
                    f"heads: {column!r} must be an output of {self.checkpoint.id}, 0 to {count - 1}"
                    f"{' or ' + ', '.join(labels) if labels else ''}; got {heads[column]!r}"
                )
        return found

    @cached_property
    def _model(self) -> Any:
        return self.checkpoint.load("AutoModelForSequenceClassification")

    @property
    def version(self) -> str:
        cut = f"{self.max_tokens} tokens, " if self.max_tokens else ""
        rule = f"{self.format} {self.template!r}, {cut}heads {list(self.heads.values())}, signs {self.signs.tolist()}"
        return f"reward model 1, {self.checkpoint.fingerprint}, {rule}, thinking {self.thinking}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        if not responses:
            return np.empty((0, len(self.columns)))
        answers = [answer_of(response, thinking=self.thinking).strip() for response in responses]
        outputs = self.checkpoint.run(
            self._model,
            rows_of(self.checkpoint, prompts, answers, self.format, self.template, self.max_tokens),
            lambda out, _: out.logits,
            batch_size=self.batch_size,
        )
        return outputs[:, list(self.heads.values())] * self.signs

    def close(self) -> None:
        """Frees the model."""
        self.__dict__.pop("_model", None)


def rows_of(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    format: str,
    template: str,
    max_tokens: int | None = None,
) -> list[Row]:
    """The tokens that a reward model reads of each exchange, at most `max_tokens` and what it takes."""
    cut: dict[str, Any] = {} if max_tokens is None else {"max_length": min(max_tokens, checkpoint.max_tokens)}
    if format == "chat":
        conversations = [
            conversation_of(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)
        ]
        tokenizer = checkpoint.tokenizer
        if not tokenizer.chat_template:
            raise ValueError(f"format must be 'pair' or 'text': {checkpoint.id} has no chat template")
        texts = [tokenizer.apply_chat_template(turns, tokenize=False) for turns in conversations]
        tokenizer.truncation_side = "left"
        return checkpoint.rows(texts, add_special_tokens=False, **cut)
    last = [last_turn(prompt) for prompt in prompts]
    if format == "pair":
        return checkpoint.rows([filled(template, prompt=prompt) for prompt in last], answers, **cut)
    texts = [filled(template, prompt=p, answer=a) for p, a in zip(last, answers, strict=True)]
    return checkpoint.rows(texts, **cut)


def _put(model: str) -> Mapping[str, Any]:
    """How an exchange is put to a model that was trained by `train_reward`, which has a card; else empty."""
    return Learned.load(model).card.get("put", {}) if (Path(model) / CARD).is_file() else {}


def checked_template(format: str, template: str | None) -> str:
    """The template in force. Raises ValueError where it has no place for what it must hold."""
    if format == "chat":
        if template is not None:
            raise ValueError("template belongs to the formats 'pair' and 'text'; 'chat' has the model's own")
        return ""
    needed = ("{prompt}",) if format == "pair" else ("{prompt}", "{answer}")
    template = template if template is not None else "{prompt}" if format == "pair" else "{prompt}\n{answer}"
    for place in needed:
        if place not in template:
            raise ValueError(f"template for format {format!r} must contain {place}; got {template!r}")
    return template


def filled(template: str, **texts: str) -> str:
    """The template with its places filled; braces in the texts mean nothing."""
    before, place, after = template.partition("{prompt}")
    prompt = texts["prompt"] if place else ""
    if "answer" not in texts:
        return before + prompt + after
    before, after = (part.replace("{answer}", texts["answer"]) for part in (before, after))
    return before + prompt + after


def signs_of(columns: Sequence[str], negate: bool | Sequence[str]) -> NDArray[np.float64]:
    """-1 for each column that is turned round, 1 for the others."""
    if isinstance(negate, bool):
        return np.full(len(columns), -1.0 if negate else 1.0)
    unknown = [column for column in negate if column not in columns]
    if isinstance(negate, str) or unknown:
        raise ValueError(
            f"negate must be true, false or a list of columns among {', '.join(columns)}; got {negate!r}"
        )
    return np.array([-1.0 if column in negate else 1.0 for column in columns])
