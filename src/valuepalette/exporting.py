"""Exporting: what a pilot and a solution say, as rows that other trainers read.

Preference pairs come by statistical rejection sampling: candidates are accepted as p_λ would draw them, and of two
accepted ones the better is drawn with the probability that Bradley and Terry give to the reward β·λᵀf. DPO with that β
then has p_λ itself as its optimum. Rows for SFT are drawn as the decoder draws its answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy.special import expit

from valuepalette.engines import Prompt
from valuepalette.folders import digest, replace_file
from valuepalette.grouping import Array
from valuepalette.pilot import Pilot
from valuepalette.provenance import PilotMetadata
from valuepalette.rewards.learning.pairs import weighed_pairs
from valuepalette.rewards.learning.reading import read_rankings
from valuepalette.solution import Solution

__all__ = ["LAYOUTS", "Layout", "Row", "export_pairs", "export_sft", "read_pairs", "write_rows"]

Layout = Literal["trl", "distilabel"]
LAYOUTS: tuple[Layout, ...] = ("trl", "distilabel")

Row = dict[str, Any]


def export_pairs(
    pilot: Pilot,
    solution: Solution,
    *,
    beta: float = 0.1,
    pairs: int = 4,
    labels: Literal["drawn", "score"] = "drawn",
    layout: Layout = "trl",
    seed: int = 0,
) -> list[Row]:
    """Preference pairs for DPO and its kin, at most `pairs` for each prompt.

    solution  of candidates="limit", on a pilot of the model that DPO will train
    beta      of the DPO that will read them: with another β its optimum is another
    labels    "drawn": the better of two is drawn, σ(β·λᵀ(f₁ − f₂)) its chance, so that the optimum is p_λ; the smaller
              β, the more pairs that takes. "score": always the one with the larger λᵀf, which says the direction soon
              and has no optimum
    layout    "trl": prompt, chosen, rejected (messages where the model has a chat template). "distilabel": instruction,
              generations, ratings, of which the chosen answer's is 1 and the other's 0

    Equal answers make no pair. Every row also has `scores`, λᵀf of its two answers, the chosen one's first.

    >>> pilot = Pilot.from_arrays(
    ...     {"humor": [0.0, 1.0, 0.0, 1.0]}, prompts=["Hi."] * 4, responses=["No.", "Ha!", "So?", "Ho!"]
    ... )
    >>> solution = Solution.from_weights(pilot, {"humor": 3.0}, "limit")
    >>> export_pairs(pilot, solution, labels="score")[0]["chosen"] in ("Ha!", "Ho!")
    True
    """
    solution.reward_weights(beta)
    _check(pairs=pairs, layout=layout, labels=labels)
    form = _Form(pilot.metadata)
    rng = np.random.default_rng(seed)
    out: list[Row] = []
    for prompt, texts, features in _pool(pilot, solution):
        scores = features @ solution.weights.array
        taken = _accepted(scores, 2 * pairs, rng)
        for first, second in zip(taken[::2], taken[1::2], strict=False):
            if texts[first] == texts[second]:
                continue
            gap = scores[first] - scores[second]
            chance = expit(beta * gap) if labels == "drawn" else 0.5 * (1 + np.sign(gap))
            if rng.random() >= chance:
                first, second = second, first
            both = float(scores[first]), float(scores[second])
            out.append({**form.pair(prompt, texts[first], texts[second], layout), "scores": list(both)})
    return out


def export_sft(
    pilot: Pilot, solution: Solution, *, answers: int = 1, layout: Layout = "trl", seed: int = 0
) -> list[Row]:
    """Answers to learn from, `answers` for each prompt, drawn as the decoder of `solution` draws its own.

    solution  calibrated for the pilot's K: then the level asked is the level learned
    layout    "trl": prompt and completion (messages where the model has a chat template). "distilabel": instruction,
              generation
    """
    solution.check_learnable(pilot)
    _check(answers=answers, layout=layout)
    form = _Form(pilot.metadata)
    rng = np.random.default_rng(seed)
    out: list[Row] = []
    for prompt, texts, features in _pool(pilot, solution):
        chance = solution.probabilities(features)
        out += [form.answer(prompt, texts[j], layout) for j in rng.choice(len(texts), answers, p=chance)]
    return out


def read_pairs(
    data: object, metadata: PilotMetadata, *, without: Iterable[Prompt] = (), seed: int = 0
) -> list[Row]:
    """Preferences of others as `export_pairs` writes its own, for a trainer of the model that `metadata` names.

    data     a file or table as `train_reward` reads it: `prompt`, `chosen` and `rejected`, or `prompt` and `ranked`,
             lists of which each weighs as much as another
    without  prompts whose pairs are left out, since answers to them will be judged

    Raises ValueError where no pair is left, and for a conversation where the model has no chat template.

    >>> said = {"prompt": ["Hi.", "Bye."], "chosen": ["Ha!", "So long!"], "rejected": ["No.", "Go."]}
    >>> read_pairs(pa.table(said), PilotMetadata(), without=["Bye."])
    [{'prompt': 'Hi.', 'chosen': 'Ha!', 'rejected': 'No.'}]
    """
    form, rankings = _Form(metadata), read_rankings(data)
    unseen = {_asked(prompt) for prompt in without}
    kept = [row for row, prompt in enumerate(rankings.prompts) if _asked(prompt) not in unseen]
    if not kept:
        raise ValueError(f"{rankings.name}: every pair answers a prompt that is held out, so none is left")
    if not form.templated and any(not isinstance(rankings.prompts[row], str) for row in kept):
        raise ValueError(f"{rankings.name}: prompts must be texts for a model without a chat template")
    sizes = [len(answers) for answers in rankings.answers]
    drawn = weighed_pairs(sizes, np.array(kept), np.random.default_rng(seed))
    return [
        form.pair(rankings.prompts[row], rankings.answers[row][best], rankings.answers[row][other], "trl")
        for row, best, other in drawn
    ]


def _asked(prompt: Prompt) -> str:
    """The same for a text and for a conversation of that one turn."""
    if isinstance(prompt, str):
        return digest([["user", prompt]])
    return digest([[turn["role"], turn["content"]] for turn in prompt])


def write_rows(rows: Sequence[Row], path: str | Path) -> None:
    """JSON lines, or Parquet where the name ends so; whole or not at all."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"out must end in .jsonl or .parquet, got {path.name}")
    if not rows:
        raise ValueError("there is no row to write: no prompt has two different answers")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        replace_file(path, lambda to: pq.write_table(pa.Table.from_pylist(list(rows)), to))
        return
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    replace_file(path, lambda to: to.write_text(text, encoding="utf-8"))


def _accepted(scores: Array, count: int, rng: np.random.Generator) -> list[int]:
    """Up to `count` candidates, accepted with probability exp(s − max s) of those left, round after round."""
    left, taken = list(range(len(scores))), list[int]()
    while left and len(taken) < count:
        chance = np.exp(scores[left] - scores[left].max())
        said = rng.random(len(left)) < chance
        order = rng.permutation(np.flatnonzero(said))
        taken += [left[at] for at in order]
        left = [row for row, accepted in zip(left, said, strict=True) if not accepted]
    return [int(row) for row in rng.permutation(taken[:count])]


def _pool(pilot: Pilot, solution: Solution) -> Iterator[tuple[Any, list[str], Array]]:
    """Of each prompt of a pilot: itself, its answers, their features."""
    if pilot.responses is None:
        raise ValueError("pilot must hold responses, got none")
    features, measured = solution.features_of(pilot)
    if (solution.weights.array * ~measured).any():
        raise ValueError("pilot must be scored by every value that has a weight")
    prompts, responses = pilot.texts(), pilot.responses
    for g in range(pilot.prompts):
        rows = pilot.order[pilot.starts[g] : pilot.starts[g + 1]]
        yield prompts[rows[0]], [responses[row] for row in rows], features[rows]


@dataclass(frozen=True)
class _Form:
    """How prompts and answers are written for a trainer of the model that a pilot's metadata names."""

    metadata: PilotMetadata

    @property
    def templated(self) -> bool:
        return self.metadata.model.get("template", "none") != "none"

    def _turns(self, prompt: Any) -> list[dict[str, str]] | None:
        """The conversation that the model was shown; None where it continued a text."""
        if isinstance(prompt, str):
            if not self.templated:
                return None
            prompt = [{"role": "user", "content": prompt}]
        turns: list[dict[str, str]] = [dict(turn) for turn in prompt]
        if self.metadata.system_prompt is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.metadata.system_prompt})
        return turns

    def pair(self, prompt: Any, chosen: str, rejected: str, layout: Layout) -> Row:
        if layout == "distilabel":
            return {**self._instruction(prompt), "generations": [chosen, rejected], "ratings": [1.0, 0.0]}
        turns = self._turns(prompt)
        if turns is None:
            return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return {"prompt": turns, "chosen": _said(chosen), "rejected": _said(rejected)}

    def answer(self, prompt: Any, response: str, layout: Layout) -> Row:
        if layout == "distilabel":
            return {**self._instruction(prompt), "generation": response}
        turns = self._turns(prompt)
        if turns is None:
            return {"prompt": prompt, "completion": response}
        return {"prompt": turns, "completion": _said(response)}

    def _instruction(self, prompt: Any) -> Row:
        """As distilabel's steps for text have it, and those for chats where the prompt is a conversation."""
        told = json.dumps(prompt, ensure_ascii=False, sort_keys=True)
        row: Row = {"prompt_id": hashlib.sha256(told.encode()).hexdigest()}
        if isinstance(prompt, str):
            system = (
                {} if self.metadata.system_prompt is None else {"system_prompt": self.metadata.system_prompt}
            )
            return {**row, **system, "instruction": prompt}
        return {**row, "messages": self._turns(prompt)}


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _check(*, layout: str, labels: str = "drawn", **numbers: object) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if labels not in ("drawn", "score"):
        raise ValueError(f'labels must be "drawn" or "score", got {labels!r}')
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {number!r}")
