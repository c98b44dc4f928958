"""Engines: prompts in, sampled candidates out.

An engine draws `k` candidates for each prompt from the base model p0. Everything above this floor talks to the
`Engine` protocol alone, so a fake of ten lines stands in for a model in tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, runtime_checkable

__all__ = ["Candidate", "Engine", "Message", "Prompt", "Sampling"]


class Message(TypedDict):
    """One turn of a conversation: who speaks (`system`, `user`, `assistant`) and what is said."""

    role: str
    content: str


Prompt = str | Sequence[Message]
"""A prompt is a text, or a conversation that ends where the answer begins."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How candidates are drawn. The defaults are the paper's: top-k 50, temperature 1, 50 new tokens.

    `top_k = 0` and `top_p = 1` switch truncation off, which fine-tuning needs.
    """

    max_new_tokens: int = 50
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    system_prompt: str | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer: its text, its length in tokens, and why it ended.

    `logprob` is the sum of the natural-log probabilities of its tokens under p0 at temperature 1 without
    truncation, where it was asked for.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]
    logprob: float | None = None


@runtime_checkable
class Engine(Protocol):
    """Draws candidates from a base model."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What makes two engines the same p0: model id and revision or checksum, template, precision."""
        ...

    def sample(
        self,
        prompts: Sequence[Prompt],
        k: int,
        *,
        sampling: Sampling,
        seed: int,
        logprobs: bool = False,
    ) -> list[list[Candidate]]:
        """`k` candidates for each prompt, in order.

        Randomness belongs to the candidate: it depends on (seed, prompt, index of the candidate) alone, so in
        float32 what else is in the batch changes nothing.
        """
        ...

    def close(self) -> None:
        """Frees the model."""
        ...
