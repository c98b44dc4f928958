"""Sampling from a causal language model of Hugging Face, base or chat, on a CPU or a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuepalette.engines import Candidate, Message, Prompt, Sampling
from valuepalette.engines.drawing import candidate_key
from valuepalette.engines.loading import LoadedModel
from valuepalette.engines.templating import chat_template, encode, short_digest, templated, turns_of

if TYPE_CHECKING:
    from torch import Tensor

    from valuepalette.engines.generation import Answer

__all__ = ["Guide", "TransformersEngine"]


@dataclass(frozen=True)
class Guide:
    """Steers every token by a score of the text with it: log p(token) + score(prompts, texts), the `top` likeliest.

    `definition` says what it is, and becomes part of the engine's fingerprint: a guided engine is another p0.
    """

    score: Callable[[Sequence[Prompt], Sequence[str]], Sequence[float]]
    definition: str
    top: int = 10


class TransformersEngine:
    """Draws candidates from a causal language model in memory.

    `template` says how a prompt becomes the model's input: "own" is the model's own chat template where it has
    one, and otherwise the text itself, to be continued; "none" continues the text whatever the model has; any
    other string is a Jinja template in the place of the model's own.

    A batch holds at most `batch_rows` candidates, filled from the prompts in order of their length, so what is
    computed together depends on the prompts handed in and on this number alone. In float32 it does not change
    the candidates; in other precisions it may, and is part of the fingerprint.

    `Candidate.tokens` and `Candidate.logprob` count every token that was drawn, also the one that ended the
    answer and those of a stop string, which is cut from the text.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        template: str = "own",
        batch_rows: int = 128,
        guide: Guide | None = None,
    ) -> None:
        if batch_rows < 1:
            raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
        self._loaded: LoadedModel | None = loaded
        self._template = chat_template(loaded.tokenizer, template)
        self._batch_rows = batch_rows
        self._ends = _end_tokens(loaded)
        self._fingerprint = {**loaded.fingerprint, "template": short_digest(self._template)}
        if loaded.fingerprint["dtype"] != "float32":
            self._fingerprint["batch_rows"] = str(batch_rows)
        self._guide = guide
        if guide is not None:
            self._fingerprint["guide"] = f"{guide.definition}, among the {guide.top} likeliest tokens"

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Model id, revision, precision and template: what makes two engines the same p0."""
        return dict(self._fingerprint)

    @property
    def loaded(self) -> LoadedModel:
        """The model and its tokenizer. Raises ValueError once the engine is closed."""
        if self._loaded is None:
            raise ValueError(f"engine must be open, got the closed engine of {self._fingerprint['model']}")
        return self._loaded

    @property
    def template(self) -> str | None:
        """The Jinja text that a prompt is put into; None where it is continued as it stands."""
        return self._template

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer, the tokenizer's own first."""
        own = self.loaded.tokenizer.eos_token_id
        return tuple(sorted(self._ends, key=lambda token: (token != own, token)))

    @property
    def _limit(self) -> int | None:
        """How many tokens the model's context holds, where it says so."""
        return getattr(self.loaded.model.config.get_text_config(), "max_position_embeddings", None)

    def turns(self, prompt: Prompt, sampling: Sampling) -> str | list[Message]:
        """What the model's template is given: the conversation, system turn included; the text where it has none."""
        if self._template is not None:
            return turns_of(0, prompt, sampling.system_prompt)
        self.encode(prompt, sampling)
        return str(prompt)

    def encode(self, prompt: Prompt, sampling: Sampling) -> list[int]:
        """The token ids that the model reads for a prompt."""
        return encode(self.loaded.tokenizer, self._template, 0, prompt, sampling, self._limit)

    def encode_answer(self, prompt: Prompt, answer: str, sampling: Sampling) -> list[int]:
        """The token ids of an answer's text after its prompt, as they are where both are read in one go.

        Where the end of the prompt and the start of the answer would share a token, the answer is read by itself.
        """
        tokenizer, read = self.loaded.tokenizer, self.encode(prompt, sampling)
        if self._template is None:
            both = tokenizer(f"{prompt}{answer}").input_ids
        else:
            text = templated(tokenizer, self._template, 0, prompt, sampling.system_prompt) + answer
            both = tokenizer(text, add_special_tokens=False).input_ids
        if both[: len(read)] == read:
            return list(both[len(read) :])
        return list(tokenizer(answer, add_special_tokens=False).input_ids)

    def decode(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """The answer that tokens after `prompt` make, as `sample` words it."""
        ended = bool(tokens) and tokens[-1] in self._ends
        return self._text(prompt, tokens[:-1] if ended else tokens)

    def sample(
        self,
        prompts: Sequence[Prompt],
        k: int,
        *,
        sampling: Sampling,
        seed: int,
        logprobs: bool = False,
    ) -> list[list[Candidate]]:
        """`k` candidates for each prompt, in order; see `valuepalette.engines.Engine`.

        Raises ValueError where a prompt does not suit the model: a conversation without a chat template, no
        token at all, or no room for the answer in the model's context.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        from valuepalette.engines.generation import generate

        model = self.loaded.model
        tokenizer = self.loaded.tokenizer
        inputs = [
            encode(tokenizer, self._template, index, prompt, sampling, self._limit)
            for index, prompt in enumerate(prompts)
        ]
        found: list[list[Candidate]] = [[] for _ in prompts]
        for places, columns in _batches([len(ids) for ids in inputs], k, self._batch_rows):
            answers = generate(
                model,
                [inputs[place] for place in places],
                [[candidate_key(seed, prompts[place], column) for column in columns] for place in places],
                sampling,
                ends=lambda row, tokens, places=places: self._ended(inputs[places[row]], tokens, sampling),
                logprobs=logprobs,
                steer=self._steer([prompts[place] for place in places], [inputs[place] for place in places]),
            )
            for place, own in zip(places, answers, strict=True):
                found[place] += [self._candidate(inputs[place], each, sampling, logprobs) for each in own]
        return found

    def close(self) -> None:
        """Lets go of the model; its memory is free once nobody else holds it."""
        self._loaded = None

    def _text(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """What the tokens add to the prompt; a decoder alone may drop the blank they begin with."""
        decode = self.loaded.tokenizer.decode
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        before = decode(prompt[-1:], **options)
        both = decode([*prompt[-1:], *tokens], **options)
        return both[len(before) :] if both.startswith(before) else decode(tokens, **options)

    def _steer(
        self, prompts: Sequence[Prompt], inputs: Sequence[Sequence[int]]
    ) -> Callable[[Tensor, list[tuple[int, list[int]]]], Tensor] | None:
        """What the guide makes of the logits of a batch; None without a guide."""
        if self._guide is None:
            return None
        guide = self._guide

        def steer(logits: Tensor, begun: list[tuple[int, list[int]]]) -> Tensor:
            import torch

            likeliest, tokens = logits.float().log_softmax(-1).topk(min(guide.top, logits.shape[-1]))
            asked: list[Prompt] = []
            texts: list[str] = []
            for (row, before), own in zip(begun, tokens.tolist(), strict=True):
                for token in own:
                    asked.append(prompts[row])
                    texts.append(self._text(inputs[row], before if token in self._ends else [*before, token]))
            scores = torch.tensor(list(guide.score(asked, texts)), device=logits.device, dtype=torch.float32)
            steered = torch.full_like(logits, -torch.inf, dtype=torch.float32)
            return steered.scatter(-1, tokens, likeliest + scores.view_as(likeliest))

        return steer

    def _ended(self, prompt: Sequence[int], tokens: Sequence[int], sampling: Sampling) -> bool:
        if tokens[-1] in self._ends:
            return True
        return bool(sampling.stop) and any(stop in self._text(prompt, tokens) for stop in sampling.stop)

    def _candidate(
        self, prompt: Sequence[int], answer: Answer, sampling: Sampling, logprobs: bool
    ) -> Candidate:
        text = self.decode(prompt, answer.tokens)
        cut = min((at for stop in sampling.stop if (at := text.find(stop)) >= 0), default=len(text))
        return Candidate(
            text=text[:cut],
            tokens=len(answer.tokens),
            finish_reason="stop" if answer.ended else "length",
            logprob=answer.logprob if logprobs else None,
        )


def _batches(lengths: Sequence[int], k: int, rows: int) -> Iterator[tuple[list[int], range]]:
    """Which prompts, by position, are sampled together, and which of their candidates.

    Prompts of like length share a batch, with all of their candidates if these fit; batches are alike in size.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = math.ceil(len(order) / max(1, rows // k))
    for batch in range(batches):
        places = order[batch * len(order) // batches : (batch + 1) * len(order) // batches]
        for first in range(0, k, rows):
            yield places, range(first, min(k, first + rows))


def _end_tokens(loaded: LoadedModel) -> frozenset[int]:
    """The tokens that end an answer: those of the model's own settings and of its tokenizer."""
    found: set[int] = set()
    settings = getattr(loaded.model, "generation_config", None)
    for holder in (settings, loaded.model.config, loaded.tokenizer):
        ends = getattr(holder, "eos_token_id", None)
        found.update([ends] if isinstance(ends, int) else ends or [])
    return frozenset(found)
