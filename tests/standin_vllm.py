"""A stand-in for vLLM with the public names the engine uses; it draws characters by a hash of tokens and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


@dataclass
class SamplingParams:
    """As vLLM's, of which only these are used; another name is a TypeError."""

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int | None = 16
    stop: list[str] | None = None
    seed: int | None = None
    logprobs: int | None = None
    include_stop_str_in_output: bool = False


@dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    finish_reason: str | None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """Loads the folder's tokenizer alone. `made` lists every one made, `calls` what each was handed."""

    made: list[LLM]

    def __init__(self, *, model: str, dtype: str = "auto", **options: Any) -> None:
        from transformers import AutoTokenizer

        if model.endswith("broken"):
            raise RuntimeError("Engine core initialization failed.\nSee the root cause above.")
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.options = {"dtype": dtype, **options}
        kind = "torch.float32" if dtype == "auto" else f"torch.{dtype}"
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=256, dtype=kind))
        self.calls: list[tuple[list[Any], list[SamplingParams]]] = []
        self.reason: str | None = None
        self.made.append(self)

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def generate(
        self, prompts: Sequence[Any], sampling_params: Sequence[SamplingParams], *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        assert len(prompts) == len(sampling_params)
        assert not use_tqdm
        self.calls.append((list(prompts), list(sampling_params)))
        return [
            RequestOutput(prompt["prompt_token_ids"], [self._drawn(prompt["prompt_token_ids"], own)])
            for prompt, own in zip(prompts, sampling_params, strict=True)
        ]

    def _drawn(self, ids: list[int], own: SamplingParams) -> CompletionOutput:
        return drawn(self.tokenizer, ids, own, self.reason)


def drawn(tokenizer: Any, ids: list[int], own: SamplingParams, reason: str | None = None) -> CompletionOutput:
    """Tokens up to the one that ends answers, a stop text, or as many as may be; the text has neither end nor stop."""
    assert own.max_tokens is not None
    source = hashlib.sha256(f"{ids}|{own.seed}|{own.temperature}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(source[:8], "little"))
    length = int(rng.integers(1, own.max_tokens + 1))
    tokens = rng.integers(10, 90, length).tolist()
    if length < own.max_tokens:
        tokens[-1] = tokenizer.eos_token_id
    text, finish = "", "length"
    for count, token in enumerate(tokens, start=1):
        text += tokenizer.decode([token], skip_special_tokens=True)
        stop = next((stop for stop in own.stop or [] if stop in text), None)
        if stop is not None or token == tokenizer.eos_token_id:
            kept = stop if stop and own.include_stop_str_in_output else ""
            text = text if stop is None else text[: text.index(stop)] + kept
            tokens, finish = tokens[:count], "stop"
            break
    chance = None if own.logprobs is None else -1.5 * len(tokens)
    return CompletionOutput(text, tokens, chance, reason or finish)


def module() -> ModuleType:
    """The stand-in as a module, to be put where vLLM would be."""
    found = ModuleType("vllm")
    found.__spec__ = ModuleSpec("vllm", None)
    made: list[LLM] = []
    found.__dict__.update(
        LLM=type("LLM", (LLM,), {"made": made}), SamplingParams=SamplingParams, __version__="0.0", made=made
    )
    return found
