"""Token guidance: rewards weigh every token as it is drawn, not whole answers (ARGS, Khanov et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from valuepalette.engines import Prompt
from valuepalette.engines.transformers import Guide
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score

__all__ = ["guide"]


def guide(rewards: Mapping[str, Reward], weights: Mapping[str, float], top: int = 10) -> Guide:
    """A guide for `TransformersEngine`: log p(token) + Σ λ_i r_i(prompt, answer so far with the token).

    rewards  by name; each scores answers that are not finished, `top` of them for each token that is drawn
    weights  λ by the name of a reward's column, in its raw units; columns without one are not looked at
    top      how many of the likeliest tokens are tried

    Nothing says which levels come of it: rewards judge half sentences, and a token's share of a reward is not its
    effect on the answer.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    columns = {name: [column.name for column in reward.columns] for name, reward in rewards.items()}
    measured = {column for names in columns.values() for column in names}
    if missing := [name for name in weights if name not in measured]:
        raise ValueError(
            f"weights must name columns of the rewards ({', '.join(sorted(measured))}), got {missing[0]!r}"
        )

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> Sequence[float]:
        total = np.zeros(len(texts))
        for name, reward in rewards.items():
            at = np.array([weights.get(column, 0.0) for column in columns[name]])
            if at.any():
                total += checked_score(reward, name, prompts, texts) @ at
        return total.tolist()

    told = " + ".join(f"{weight:.6g}·{name}" for name, weight in weights.items())
    return Guide(score, f"log p + {told}", top)
