# pyright: strict
"""What answers cost, decoded from k candidates or drawn from a fine-tuned model."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """What an answer costs, in generated tokens, and from how many answers on fine-tuning is cheaper.

    answer    tokens of an answer on average; nan where neither the pilot nor the caller says
    prompt    tokens of a prompt, read once however many answers are drawn; 0 where it is not counted
    score     what scoring a token of a candidate costs
    finetune  what fine-tuning costs; nan where it was not stated
    """

    answer: float
    prompt: float
    score: float
    finetune: float

    def decoding(self, k: int) -> float:
        """Of one answer chosen among k: k answers drawn and scored, the prompt read once."""
        return self.prompt + k * self.answer * (1 + self.score)

    def answers(self, k: int) -> float:
        """From how many answers on fine-tuning, after which an answer is drawn once and not scored, costs no more.

        finetune / (what an answer costs by decoding − what it costs then); infinite where decoding costs no more.

        >>> Cost(answer=25, prompt=40, score=0, finetune=3e6).answers(8)
        17143.0
        """
        saved = self.decoding(k) - self.prompt - self.answer
        if math.isnan(self.finetune) or math.isnan(saved):
            return math.nan
        return float(math.ceil(self.finetune / saved)) if saved > 0 else math.inf


def cost_of(
    answer: float | None, prompt: float | None, score: float, finetune: float | None, train: float
) -> Cost:
    """The cost of what is stated, None where it is not; raises ValueError by the names that `plan` gives them.

    finetune  tokens that fine-tuning trains on, times epochs
    train     of each of them, in generated tokens

    >>> cost_of(25.0, None, 0.0, 1e6, 3.0)
    Cost(answer=25.0, prompt=0.0, score=0.0, finetune=3000000.0)
    """
    given = {"answer_tokens": answer, "prompt_tokens": prompt, "score_price": score}
    for name, entry in {**given, "finetune_tokens": finetune, "train_price": train}.items():
        if entry is None:
            continue
        # Whatever is not told by type may still be no number, from outside.
        if isinstance(entry, bool) or not isinstance(entry, int | float) or not 0 <= entry < math.inf:  # pyright: ignore
            raise ValueError(f"{name} must be a number, 0 or more, got {entry!r}")
    if finetune is not None and answer is None:
        raise ValueError(
            "answer_tokens must say how long answers are where finetune_tokens is given and the pilot's column "
            "tokens does not, got None"
        )
    return Cost(
        answer=math.nan if answer is None else float(answer),
        prompt=float(prompt or 0.0),
        score=float(score),
        finetune=math.nan if finetune is None else float(finetune) * float(train),
    )
