"""The answers that a report shows side by side: drawn by a seed from those that changed, losses in their share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array
from valuepalette.pilot import Pilot
from valuepalette.report.content import Answer, Answers, Candidate
from valuepalette.solution import Solution

__all__ = ["SHOWN", "chosen_by", "side_by_side"]

SHOWN = 12
LONGEST = 4000
"""Characters of a prompt or an answer that are kept; the page may show fewer."""


def chosen_by(answers: Pilot, solution: Solution) -> bool:
    """Whether the chances that are recorded with `answers` are those of this solution."""
    if "probability" not in answers.table.column_names:
        return True
    features, measured = solution.features_of(answers)
    if not measured[solution.weights.array != 0].all():
        return False
    chance = np.asarray(answers.table["probability"], float)
    for g in range(answers.prompts):
        rows = _rows(answers, g)
        if not np.allclose(solution.probabilities(features[rows]), chance[rows], atol=1e-6):
            return False
    return True


def side_by_side(
    answers: Pilot, solution: Solution, others: Sequence[str] = (), base: Pilot | None = None
) -> Answers | None:
    """Before and after on at most `SHOWN` prompts; None where no texts are kept.

    answers  those of a decoder, with their chances and the one drawn; or a trained model's, of which the first counts
    others   values shown beside those that are asked of
    base     what the model said before training, for a trained model's answers; prompts it lacks are left out

    Before is what the model says first. Of the prompts whose answer changed, some that got better and some that got
    worse are drawn by the solution's seed, each in its share; one that got worse is there if there is any.
    """
    first = answers if base is None else base
    if answers.responses is None or first.responses is None or not _have_prompts(answers, first):
        return None
    ours = _Side(answers, solution, others)
    theirs = ours if base is None else _Side(base, solution, others)
    place = {str(prompt): g for g, prompt in enumerate(theirs.prompts)}
    pairs = [(g, place[str(prompt)]) for g, prompt in enumerate(ours.prompts) if str(prompt) in place]
    moved: dict[int, tuple[float, bool]] = {}
    same = 0
    for g, h in pairs:
        after, before = ours.after[g], theirs.before[h]
        if ours.texts[after] == theirs.texts[before]:
            same += 1
        else:
            step = ours.features[after] - theirs.features[before]
            moved[g] = float(solution.weights.array @ step), _better(solution, step)
    rng = np.random.default_rng(solution.seed)
    order = [g for g in rng.permutation(len(ours.prompts)).tolist() if g in moved]
    shown = _drawn(order, {g: better for g, (_, better) in moved.items()})
    before_of = dict(pairs)
    better = sum(good for _, good in moved.values())
    return Answers(
        names=tuple(ours.names),
        shown=tuple(_answer(ours, theirs, g, before_of[g], *moved[g]) for g in shown),
        seed=solution.seed,
        prompts=len(pairs),
        better=better,
        worse=len(moved) - better,
        same=same,
    )


def _have_prompts(*pilots: Pilot) -> bool:
    return all({"prompt", "messages"} & set(pilot.table.column_names) for pilot in pilots)


def _drawn(order: Sequence[int], better: dict[int, bool]) -> list[int]:
    """Of what changed, losses in their share and at least one, in the order of the draw."""
    losses = [g for g in order if not better[g]]
    gains = [g for g in order if better[g]]
    wanted = min(SHOWN, len(order))
    worse = min(len(losses), max(round(wanted * len(losses) / max(len(order), 1)), min(len(losses), 1)))
    worse = max(worse, wanted - len(gains))
    kept = {*losses[:worse], *gains[: wanted - worse]}
    return [g for g in order if g in kept]


def _better(solution: Solution, step: Array) -> bool:
    """By the palette's own order: on a boundary its faces in turn, then the weights."""
    for face in solution.faces:
        along = float(face @ step)
        if abs(along) > 1e-9 * float(np.abs(face) @ solution.spread):
            return along > 0
    return float(solution.weights.array @ step) >= 0


class _Side:
    """A table of answers as the page needs it: texts, numbers, and which row comes first or was drawn."""

    def __init__(self, pilot: Pilot, solution: Solution, others: Sequence[str]) -> None:
        self.pilot = pilot
        self.texts = pilot.responses or []
        heads = pilot.order[pilot.starts[:-1]]
        prompts = pilot.texts()
        self.prompts = [prompts[row] for row in heads]
        self.features, _ = solution.features_of(pilot)
        asked = [i for i, text in enumerate(solution.resolved.asked) if text != "free"]
        numbers = solution.resolved.numbers_of(pilot.array, pilot.values)
        kept = [name for name in others if name in pilot.values]
        self.names = [solution.features[i] for i in asked] + kept
        self.values = np.column_stack(
            [numbers[:, asked], *(np.asarray(pilot.table[name], float) for name in kept)]
        )
        columns = pilot.table.column_names
        self.numbers = np.asarray(pilot.table["candidate"])
        none = np.full(pilot.rows, np.nan)
        chosen = "probability" in columns
        self.chance = np.asarray(pilot.table["probability"], float) if chosen else none
        self.drawn = (
            np.asarray(pilot.table["drawn"], bool) if "drawn" in columns else np.zeros(pilot.rows, bool)
        )
        ends = pilot.table["finish_reason"].to_pylist() if "finish_reason" in columns else [None] * pilot.rows
        self.cut = [end == "length" for end in ends]
        self.before = [self.first(g) for g in range(pilot.prompts)]
        self.after = [self.chosen(g) for g in range(pilot.prompts)]

    def first(self, g: int) -> int:
        rows = _rows(self.pilot, g)
        return int(rows[np.argmin(self.numbers[rows])])

    def chosen(self, g: int) -> int:
        rows = _rows(self.pilot, g)
        marked = rows[self.drawn[rows]]
        return int(marked[0]) if len(marked) else self.first(g)

    def candidate(self, row: int, first: int) -> Candidate:
        return Candidate(
            number=int(self.numbers[row]),
            text=_kept(self.texts[row]),
            cut=self.cut[row],
            chance=float(self.chance[row]),
            values=tuple(self.values[row].tolist()),
            first=row == first,
            drawn=bool(self.drawn[row]),
        )


def _rows(pilot: Pilot, g: int) -> NDArray[np.intp]:
    return pilot.order[pilot.starts[g] : pilot.starts[g + 1]]


def _answer(ours: _Side, theirs: _Side, g: int, h: int, moved: float, better: bool) -> Answer:
    before, after = theirs.before[h], ours.after[g]
    rows = _rows(theirs.pilot, h)
    chance = np.where(np.isnan(theirs.chance[rows]), 0, theirs.chance[rows])
    likeliest = rows[np.lexsort((theirs.numbers[rows], -chance))].tolist()
    return Answer(
        prompt=_kept(_spoken(ours.prompts[g])),
        before=theirs.candidate(before, before),
        after=ours.candidate(after, before if ours is theirs else -1),
        moved=moved,
        better=better,
        changes=tuple((ours.values[after] - theirs.values[before]).tolist()),
        candidates=tuple(theirs.candidate(row, before) for row in likeliest),
    )


def _spoken(prompt: str | list[dict[str, str]]) -> str:
    """A conversation as lines of who says what; one question alone as it is."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _kept(text: str) -> str:
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]} … ({left:,} characters more)"
