"""What an operator decides: what is refused, what is served and marked, and how much is let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Policies", "Refusal"]


@dataclass(frozen=True)
class Policies:
    """The defaults refuse whatever would not be what was solved.

    infeasible        a palette that cannot be had: "refuse" with the proof, or "adjust" and name what is served
    mismatch          a sampling setting or system turn that is not the pilot's: "refuse", or serve it "unaligned"
    extras            tools, images, `response_format` and what else only the model's server understands: "refuse", or
                      hand the request on, "unaligned"
    reward_failure    no scores, or a canary that drifted: "refuse" with 503, or the base answer, "unaligned"
    palettes          "any": requests may bring palettes of their own; "named": the study's alone
    show_candidates   requests may ask for all candidates
    most_answers      of a request: `n`, times its prompts
    most_candidates   k that a request may ask for; the study's where None
    concurrency       requests under way at a time; `queue` as many more wait
    deadline          seconds that a request may take, the wait included
    scoring           seconds that the rewards may take
    keep_alive        seconds between signs of life before the answer streams
    body_limit        bytes of a request
    canary            seconds from one look at the rewards to the next
    canary_tolerance  how far the canary's numbers may move, in standard deviations within prompts
    log_texts         prompts and answers in the log; for debugging alone
    """

    infeasible: Literal["refuse", "adjust"] = "refuse"
    mismatch: Literal["refuse", "unaligned"] = "refuse"
    extras: Literal["refuse", "unaligned"] = "refuse"
    reward_failure: Literal["refuse", "unaligned"] = "refuse"
    palettes: Literal["any", "named"] = "any"
    show_candidates: bool = False
    most_answers: int = 16
    most_candidates: int | None = None
    concurrency: int = 32
    queue: int = 128
    deadline: float = 120.0
    scoring: float = 30.0
    keep_alive: float = 5.0
    body_limit: int = 1_000_000
    canary: float = 3600.0
    canary_tolerance: float = 0.01
    log_texts: bool = False


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - an answer to the client, not a failure
    """What a client is told instead of an answer: an HTTP status, one line, and more where there is more to say.

    after   seconds until it is worth trying again
    """

    status: int
    code: str
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    after: int | None = None

    def __str__(self) -> str:
        return self.message
