"""Implicit rewards: what a preference-tuned model prefers, read from how it differs from the one it was tuned from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt, Sampling
from valuepalette.engines.loading import LoadedModel, load_causal_lm
from valuepalette.engines.transformers import TransformersEngine
from valuepalette.rewards import Column
from valuepalette.rewards.exchange import Reads
from valuepalette.rewards.perplexity import fingerprint_of, log_likelihoods

__all__ = ["ImplicitReward"]


class ImplicitReward:
    """β·log p(y|x)/p0(y|x): the reward that a model tuned by DPO has learned without ever stating it.

    `model` is the tuned model p, `base` the one it was tuned from, p0: the study's model where it names none. Both
    are an id that an engine takes. A prompt is put to both as an engine puts it to `base`: in its own chat template
    where it has one, in none (`template = "none"`), or in a Jinja text, after `system_prompt`. The number is the sum
    over the tokens of the whole response, thoughts included, in nats; with `end` the token that ends an answer counts
    too, which belongs to an answer that is complete. `beta` is the one of the tuning.

    Both models are in memory while it scores, in float32 unless `dtype` says otherwise: the difference of two numbers
    that are nearly the same is lost in the rounding of bfloat16. They must read a text as the same tokens. Raises
    ValueError where they do not.
    """

    reads: Reads = "conversation"

    def __init__(
        self,
        *,
        model: str,
        base: str,
        name: str = "implicit",
        beta: float = 0.1,
        end: bool = False,
        system_prompt: str | None = None,
        template: str = "own",
        batch_size: int = 16,
        dtype: str = "float32",
        device: str | None = None,
    ) -> None:
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < math.inf:
            raise ValueError(f"beta must be a positive number; got {beta!r}")
        self.model, self.base, self.beta, self.end = model, base, float(beta), end
        self.template, self.batch_size, self.dtype, self.device = template, batch_size, dtype, device
        # The prompt must fit; the answer is at hand and not to be drawn.
        self._sampling = Sampling(max_new_tokens=1, system_prompt=system_prompt)
        self.columns = (Column(name, f"{beta:g} log p/p0 of the response, p {model} and p0 {base}"),)

    @cached_property
    def _tuned(self) -> LoadedModel:
        return load_causal_lm(self.model, dtype=self.dtype, device=self.device)

    @cached_property
    def _engine(self) -> TransformersEngine:
        loaded = load_causal_lm(self.base, dtype=self.dtype, device=self.device)
        return TransformersEngine(loaded, template=self.template)

    @property
    def version(self) -> str:
        tuned = fingerprint_of(self.model, self.dtype, lambda: self._tuned)
        base = fingerprint_of(self.base, self.dtype, lambda: self._engine.loaded)
        rule = f"beta {self.beta:g}, end {self.end}, template {self.template!r}"
        return f"implicit 1, {tuned} over {base}, {rule}, system {self._sampling.system_prompt!r}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        if not responses:
            return np.empty((0, 1))
        read = [self._tokens(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        contexts, targets = [context for context, _ in read], [target for _, target in read]
        tuned, base = (
            log_likelihoods(loaded, contexts, targets, batch_size=self.batch_size)
            for loaded in (self._tuned, self._engine.loaded)
        )
        return self.beta * (tuned - base)[:, None]

    def _tokens(self, prompt: Prompt, response: str) -> tuple[list[int], list[int]]:
        """The prompt's tokens, and the response's after them."""
        base = self._engine.loaded.tokenizer
        context = self._engine.encode(prompt, self._sampling)
        target = self._engine.encode_answer(prompt, response, self._sampling)
        if self._tuned.tokenizer(response).input_ids != base(response).input_ids:
            raise ValueError(
                f"model and base must read a text as the same tokens; {self.model} and {self.base} differ"
            )
        return context, [*target, base.eos_token_id] if self.end else target

    def close(self) -> None:
        """Frees both models."""
        self.__dict__.pop("_tuned", None)
        self.__dict__.pop("_engine", None)
