"""The decoding loop: a batch of prompts, several candidates each, until every one has ended.

Each prompt is computed once and its cache copied for its candidates. The cache has room for the whole answer from
the start, so that a step writes into it instead of copying it. Rows that have ended leave the batch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from valuepalette.engines import Sampling
from valuepalette.engines.drawing import draw

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Answer", "generate"]

_SHARED = 8  # a beginning of fewer tokens is not worth a pass of its own
_CACHE_NAMES = "cache", "past_key_values"  # what transformers calls it since 5.24, and before
_LEAVE = 16  # rows leave together once one in so many has ended: leaving copies the cache


@dataclass(slots=True)
class Answer:
    """The tokens drawn for one candidate, the one that ended it included."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    logprob: float = 0.0


def generate(
    model: Any,
    prompts: Sequence[list[int]],
    keys: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    ends: Callable[[int, Sequence[int]], bool],
    logprobs: bool = False,
    steer: Callable[[Tensor, list[tuple[int, list[int]]]], Tensor] | None = None,
) -> list[list[Answer]]:
    """Draws `len(keys[i])` answers to prompt i, a list of token ids, all in one batch.

    `keys[i]` holds the 64-bit keys of its candidates; `ends(i, tokens)` says whether an answer is complete.
    `steer(logits, begun)` may change the logits (rows, vocabulary) of what follows (i, tokens) in each row.
    """
    import torch

    owner = [prompt for prompt, own in enumerate(keys) for _ in own]
    answers = [Answer() for _ in owner]
    living = list(range(len(owner)))
    with torch.inference_mode():
        context = _Context(model)
        logits = context.read(prompts)
        rows = torch.tensor(owner, device=model.device)
        key = torch.tensor([key for own in keys for key in own], device=model.device)
        context.keep(rows, room=sampling.max_new_tokens)
        logits = logits[rows]
        for step in range(sampling.max_new_tokens):
            if steer is not None:
                logits = steer(logits, [(owner[index], answers[index].tokens) for index in living])
            tokens = draw(logits, key, step, sampling)
            chances = _log_chances(logits, tokens) if logprobs else [0.0] * len(living)
            for index, token, chance in zip(living, tokens.tolist(), chances, strict=True):
                answer = answers[index]
                if not answer.ended:
                    answer.tokens.append(token)
                    answer.logprob += chance
                    answer.ended = ends(owner[index], answer.tokens)
            stay = [row for row, index in enumerate(living) if not answers[index].ended]
            if not stay or step + 1 == sampling.max_new_tokens:
                break
            if (len(living) - len(stay)) * _LEAVE >= len(living):
                living = [living[row] for row in stay]
                rows = torch.tensor(stay, device=model.device)
                context.keep(rows)
                tokens, key = tokens[rows], key[rows]
            logits = context.step(tokens)
    each = iter(answers)
    return [[next(each) for _ in own] for own in keys]


def _log_chances(logits: Tensor, tokens: Tensor) -> list[float]:
    """The log-probabilities of `tokens` at temperature 1, nothing cut off."""
    logits = logits.float()
    chosen = logits.gather(-1, tokens[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).tolist()


class _Context:
    """What the model has read: its cache, which positions of it are padding, and where each row stands."""

    def __init__(self, model: Any) -> None:
        accepted = inspect.signature(model.forward).parameters
        names = [name for name in _CACHE_NAMES if name in accepted]
        if not names or getattr(model, "_is_stateful", False):
            raise ValueError(
                f"model must keep what it has read in a key-value cache; got {type(model).__name__}"
            )
        self.model = model
        self.cache_name = names[0]
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.positioned = "position_ids" in accepted

    def read(self, prompts: Sequence[list[int]]) -> Tensor:
        """Reads the prompts, padded on the left; the logits of what follows each, (prompts, vocabulary)."""
        import torch
        from transformers import DynamicCache

        self.cache: Any = DynamicCache(config=self.model.config)
        shared = self._read_shared(prompts)
        width = max(map(len, prompts)) - shared
        padding = [width + shared - len(prompt) for prompt in prompts]
        ids = [[0] * pad + prompt[shared:] for pad, prompt in zip(padding, prompts, strict=True)]
        read = torch.arange(width) >= torch.tensor(padding)[:, None]
        mask = torch.cat([torch.ones(len(ids), shared), read], dim=1)
        self.mask = mask.long().to(self.model.device)
        self.position = (self.mask.cumsum(-1) - 1).clamp_min(0)[:, shared:]
        return self._forward(torch.tensor(ids, device=self.model.device))

    def _read_shared(self, prompts: Sequence[list[int]]) -> int:
        """Reads once what all prompts begin with, such as a system prompt; how many tokens that is.

        A sliding window counts the padding that then follows, so models with one read every prompt whole.
        """
        import torch
        from transformers.cache_utils import DynamicLayer

        first, last = min(prompts), max(prompts)
        limit = min(map(len, prompts)) - 1
        shared = next((place for place in range(limit) if first[place] != last[place]), limit)
        plain = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if len(prompts) == 1 or shared < _SHARED or not plain:
            return 0
        self.mask = torch.ones(1, shared, dtype=torch.long, device=self.model.device)
        self.position = self.mask.cumsum(-1) - 1
        self._forward(torch.tensor([first[:shared]], device=self.model.device))
        self.cache.reorder_cache(torch.zeros(len(prompts), dtype=torch.long, device=self.model.device))
        return shared

    def keep(self, rows: Tensor, room: int = 0) -> None:
        """Goes on with `rows`, repeated or left out as they say, with room for so many more tokens."""
        import torch

        self.mask, self.position = self.mask[rows], self.position[rows]
        if room:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(rows), room)], dim=1)
            _make_room(self.cache, room)
        self.cache.reorder_cache(rows)

    def step(self, tokens: Tensor) -> Tensor:
        """Reads one more token in each row; the logits of the next."""
        self.position = self.position[:, -1:] + 1
        return self._forward(tokens[:, None])

    def _forward(self, ids: Tensor) -> Tensor:
        seen = self.cache.get_seq_length() + ids.shape[1]
        positions = {"position_ids": self.position} if self.positioned else {}
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, :seen],
            use_cache=True,
            **{self.cache_name: self.cache},
            **positions,
            **self.last_only,
        )
        return output.logits[:, -1]


def _make_room(cache: Any, room: int) -> None:
    """Replaces the plain layers of a cache by ones with room for so many more tokens."""
    from transformers.cache_utils import DynamicLayer

    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[index] = _roomy_layer()(layer, room)


@functools.cache
def _roomy_layer() -> type:
    """A class of cache layer; made on demand, since its base comes with torch."""
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):
        """Keys and values are the front part of a larger buffer, made when rows are first chosen."""

        def __init__(self, layer: Any, room: int) -> None:
            super().__init__()
            self.lazy_initialization(layer.keys, layer.values)
            self.keys: Any = layer.keys
            self.values: Any = layer.values
            self.buffers: tuple[Any, ...] = ()
            self.room = room

        def reorder_cache(self, beam_idx: Tensor) -> None:
            used = self.keys.shape[-2]
            size = self.buffers[0].shape[-2] if self.buffers else used + self.room
            fresh = []
            for old in (self.keys, self.values):
                buffer = old.new_empty((len(beam_idx), old.shape[1], size, old.shape[3]))
                buffer[:, :, :used] = old[beam_idx]
                fresh.append(buffer)
            self.buffers = tuple(fresh)
            self.keys, self.values = (buffer[:, :, :used] for buffer in self.buffers)

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            start = self.keys.shape[-2]
            end = start + key_states.shape[-2]
            for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[:, :, start:end] = states
            self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
            return self.keys, self.values

    return RoomyLayer
