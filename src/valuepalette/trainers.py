"""What a trainer is told: β·λ by feature, and how to pass it to TRL, OpenRLHF and verl so that the optimum stays.

KL-regularised learning with coefficient β, a sequence-level KL to the original model and the reward R has the optimum
p0·exp(R/β)/Z(x). So R = β·λᵀf gives the palette's own p_λ, whatever β is. Anything that rescales or clips rewards,
truncates sampling or moves the reference has another optimum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

__all__ = ["FRAMEWORKS", "Framework", "RewardWeights", "sampling_faults"]

Framework = Literal["trl", "openrlhf", "verl"]
FRAMEWORKS: tuple[Framework, ...] = ("trl", "openrlhf", "verl")

_WHOLE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


class RewardWeights(Mapping[str, float]):
    """β·λ by feature: what multiplies each reward. `str()` is the code that passes it to TRL.

    beta  the trainer's KL coefficient, which the weights belong to

    >>> weights = RewardWeights({"humor": 2.0, "P(harmlessness < -2)": -5.0}, beta=0.1)
    >>> weights["humor"], list(weights.values())
    (0.2, [0.2, -0.5])
    """

    def __init__(self, weights: Mapping[str, float], beta: float, *, tokens: int | None = None) -> None:
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < math.inf:
            raise ValueError(f"beta must be a positive number, got {beta!r}")
        self.beta = float(beta)
        self._tokens = tokens
        self._weights = {name: self.beta * float(weight) for name, weight in weights.items()}

    def __getitem__(self, name: str) -> float:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return f"RewardWeights({self._weights}, beta={self.beta:g})"

    def __str__(self) -> str:
        return self.snippet("trl")

    def snippet(self, framework: Framework = "trl") -> str:
        """What to write for a trainer: Python for TRL and for the reward of the others, with their settings."""
        if framework not in FRAMEWORKS:
            raise ValueError(f"framework must be one of {', '.join(FRAMEWORKS)}, got {framework!r}")
        return {"trl": self._trl, "openrlhf": self._openrlhf, "verl": self._verl}[framework]().rstrip()

    def _trl(self) -> str:
        numbers = ", ".join(repr(float(f"{weight:.6g}")) for weight in self.values())
        length = (
            "" if self._tokens is None else f"    max_completion_length={self._tokens},  # as the pilot's\n"
        )
        return (
            "from trl import RLOOConfig\n\n"
            f"# one reward function for each, in this order: {', '.join(self)}\n"
            "config = RLOOConfig(\n"
            f"    reward_weights=[{numbers}],  # beta times the weights of the palette\n"
            f"    beta={self.beta!r},\n"
            f"{length}"
            "    temperature=1.0,\n    top_k=0,\n    top_p=1.0,\n"
            "    normalize_advantages=False,\n    reward_clip_range=None,\n    num_iterations=1,\n"
            "    disable_dropout=True,\n    sync_ref_model=False,\n    mask_truncated_completions=False,\n"
            ")\n"
        )

    def _sum(self) -> str:
        terms = [f"{weight:.6g} * score[{name!r}]" for name, weight in self.items()]
        return "\n        + ".join(terms) or "0.0"

    def _openrlhf(self) -> str:
        length = "" if self._tokens is None else f"#   --generate_max_len {self._tokens}\n"
        return (
            "# train_ppo_ray with\n"
            "#   --remote_rm_url reward_func.py  --advantage_estimator rloo  --n_samples_per_prompt 8\n"
            f"#   --init_kl_coef {self.beta!r}  --kl_estimator k1  --gamma 1  --temperature 1  --top_p 1\n"
            f"{length}"
            "#   --reward_clip_range -1e9 1e9\n"
            "# and without --use_kl_loss, --kl_target, --normalize_reward, --dynamic_filtering\n"
            "import torch\n\n\n"
            "def reward_func(queries, prompts, labels):\n"
            "    # your scores: a number for each of these names\n"
            "    rewards = [\n"
            f"        {self._sum()}\n"
            "        for score in scores(queries, prompts)\n"
            "    ]\n"
            '    return {"rewards": torch.tensor(rewards), "scores": torch.tensor(rewards), "extra_logs": {}}\n'
        )

    def _verl(self) -> str:
        length = "" if self._tokens is None else f"#   data.max_response_length={self._tokens}\n"
        return (
            "# python -m verl.trainer.main_ppo\n"
            "#   algorithm.adv_estimator=rloo  algorithm.use_kl_in_reward=True  algorithm.kl_penalty=kl\n"
            f"#   algorithm.kl_ctrl.type=fixed  algorithm.kl_ctrl.kl_coef={self.beta!r}  algorithm.gamma=1\n"
            "#   actor_rollout_ref.actor.use_kl_loss=False  actor_rollout_ref.actor.entropy_coeff=0\n"
            "#   actor_rollout_ref.rollout.temperature=1  actor_rollout_ref.rollout.top_k=-1\n"
            "#   actor_rollout_ref.rollout.top_p=1  actor_rollout_ref.rollout.n=8\n"
            f"{length}"
            "#   custom_reward_function.path=reward.py  custom_reward_function.name=compute_score\n"
            "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
            "    score = scores(solution_str, extra_info)  # your scores: a number for each of these names\n"
            f"    return (\n        {self._sum()}\n    )\n"
        )


def sampling_faults(sampling: Mapping[str, Any]) -> list[str]:
    """What in the settings of a pilot makes its answers other than p0's own, such as `top_k 50`."""
    return [
        f"{name} {sampling[name]}"
        for name, whole in _WHOLE.items()
        if name in sampling and float(sampling[name]) != whole
    ]
