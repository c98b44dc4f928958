"""Evaluation: what was asked against what was got, on prompts that had no part in solving.

Everything is by prompt: the answers to one prompt stand or fall together, so standard errors are over prompts, and
gains and win rates are paired. A target that binds is met with equality, so "is the level above the target" would be
a coin toss for ever; the verdict allows a tolerance, and says when the prompts are too few for one.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from valuepalette.attainment import Evaluation, Measured
from valuepalette.folders import differences, plain
from valuepalette.grouping import Array
from valuepalette.judging import Choices, Verdict, errors, judge, wins
from valuepalette.palette import parse
from valuepalette.pilot import Pilot
from valuepalette.quantities import Level
from valuepalette.resolving import GRID
from valuepalette.solution import Solution, prompt_digests
from valuepalette.tabulating import cut

__all__ = ["evaluate"]


class HasPilot(Protocol):
    """Answers as a decoder returns them."""

    @property
    def pilot(self) -> Pilot: ...


def evaluate(
    answers: Pilot | HasPilot,
    solution: Solution,
    base: Pilot | HasPilot | None = None,
    *,
    confidence: float = 0.95,
    tolerance: float = 0.1,
    ties: Literal["half", "lose"] = "half",
    checks: Sequence[str] = (),
    allow_mismatch: bool = False,
) -> Evaluation:
    """Judges answers to fresh prompts by the palette of `solution`.

    answers     a decoder's: k scored candidates for each prompt with their `probability`, one `drawn`. Without
                probabilities the drawn ones count; without either, all alike (the answers of a tuned model)
    base        what the base model answers to the same prompts; None for the candidates themselves, of which it
                would give any
    confidence  of the two-sided intervals behind the verdicts
    tolerance   by how many within-prompt standard deviations a bound may be missed
    ties        count "half" in win rates, or "lose" (the paper's rule)
    checks      values that are a second opinion; those that the solution does not know are

    With s_g the expected level of prompt g, on M prompts and a solution found on N, se² = Var_g(s_g) (1/N + 1/M); of a
    cohort, M and N are its own prompts.
    A bound c is *met* if the interval ends no lower than c − tolerance; else *missed* if it ends below c; else
    *undecided*. A number is a level, and judged by the level. Any other entry is relative to what the base model
    does, so it is judged by the gain, against c less the pilot's base level: which prompts were drawn moves both
    alike, and the gain is several times surer.

    Win rates against the candidates themselves hold out each in turn as the base's answer, so they are those of
    k − 1 candidates: a little low.

    Warns where prompts are the pilot's own. Raises ValueError where a value is measured otherwise than the
    solution's, unless `allow_mismatch`.

    >>> pilot = Pilot.from_arrays(
    ...     {"humor": [0.0, 1.0, 2.0, 2.0]},
    ...     prompt_id=[0, 0, 1, 1],
    ...     columns={"probability": [0.25, 0.75, 0.5, 0.5]},
    ... )
    >>> judged = evaluate(pilot, Solution.from_weights(pilot, {"humor": np.log(3)}))
    >>> judged["humor"].level, judged["humor"].gain
    (1.375, 0.125)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be at least 0 and finite, got {tolerance}")
    if ties not in ("half", "lose"):
        raise ValueError(f'ties must be "half" or "lose", got {ties!r}')
    pilot = answers if isinstance(answers, Pilot) else answers.pilot
    other = base if isinstance(base, Pilot) or base is None else base.pilot
    names = _names(pilot, solution)
    if unknown := [name for name in checks if name not in names]:
        raise ValueError(f"checks must name values among {', '.join(names)}, got {unknown[0]!r}")
    if not allow_mismatch:
        _check_rewards(solution, pilot)
    own = sum(digest in solution.seen for digest in prompt_digests(pilot))
    if own:
        warnings.warn(
            f"{own} of {pilot.prompts} prompts are the pilot's own, on which the solution was found: "
            "levels there are promised, not tested",
            stacklevel=2,
        )

    ours, drawn = _choices(pilot, solution, names), _drawn(pilot, solution, names)
    weighed = "probability" in pilot.table.column_names
    theirs: Choices | None = None
    if other is not None:
        theirs = _matched(_choices(other, solution, names), other, pilot)
    elif weighed or "drawn" in pilot.table.column_names:
        theirs = ours.even()
    unknown_by_prompt = np.full_like(ours.levels, np.nan)
    base_levels = unknown_by_prompt if theirs is None else theirs.levels
    won = unknown_by_prompt
    if theirs is not None:
        won = wins(ours, None if other is None else theirs, 0.5 if ties == "half" else 0.0)

    a = pilot.groups(solution.weighting).weights
    shares, counted = _cohorts(pilot, solution, names)
    there = a @ counted
    among = a[:, None] * counted / np.where(there > 0, there, np.nan)

    def mean(by_prompt: Array) -> Array:
        return (among * by_prompt).sum(axis=0)

    M, N = 1 / (among * among).sum(axis=0), solution.prompts * shares
    level = mean(ours.levels)
    variance = M * errors(ours.levels, among) ** 2
    gain_variance = M * errors(ours.levels - base_levels, among) ** 2
    columns = {
        "level": level,
        "se": np.sqrt(variance * (1 / M + 1 / N)),
        "drawn": mean(drawn),
        "drawn_se": np.sqrt(errors(drawn, among) ** 2 + variance / N),
        "base": mean(base_levels),
        "gain": mean(ours.levels - base_levels),
        "gain_se": np.sqrt(gain_variance * (1 / M + 1 / N)),
        "quantile": np.full(len(names), np.nan) if theirs is None else mean(theirs.below(level)),
        "win_rate": mean(won),
        "win_rate_se": errors(won, among),
    }
    deviations = NormalDist().inv_cdf(0.5 + confidence / 2)
    rows: list[Measured] = []
    for i, name in enumerate(names):
        numbers: dict[str, Any] = {key: float(entries[i]) for key, entries in columns.items()}
        row = Measured(name=name, check=True, **numbers)
        if name in solution.features:
            at = solution.features.index(name)
            # A share has no rank among zeros and ones.
            tail = solution.resolved.specs[at].tail is not None
            quantile = math.nan if tail else np.interp(row.level, solution.resolved.quantiles[at], GRID)
            row = replace(row, check=name in checks, promised=solution.levels[name], quantile=float(quantile))
            sample = _Sample(
                float(variance[i]), float(gain_variance[i]), float(M[i]), float(N[i]), float(there[i])
            )
            row = _judged(row, solution, at, sample, tolerance, deviations)
        rows.append(row)
    kl = np.log(pilot.sizes) - ours.entropy
    return Evaluation(
        rows=tuple(sorted(rows, key=lambda row: (row.check, row.verdict is None))),
        prompts=pilot.prompts,
        own_prompts=own,
        candidates=pilot.candidates,
        pilot_prompts=solution.prompts,
        kl=float(a @ kl) if weighed else math.nan,
        kl_se=float(errors(kl[:, None], a)[0]) if weighed else math.nan,
        effective=float(np.exp(a @ ours.entropy)) if weighed else math.nan,
        promised_kl=solution.kl,
        confidence=confidence,
        tolerance=tolerance,
        ties=ties,
    )


@dataclass(frozen=True)
class _Sample:
    """What stands behind a level: the variance of one prompt's level, and of its gain; on how many prompts of the
    answers and of the pilot; and what share of the answers' prompts those are."""

    variance: float
    gain_variance: float
    prompts: float
    pilot_prompts: float
    share: float


def _is_relative(entry: str) -> bool:
    """Whether an entry speaks of what the base model does; all but numbers do."""
    return any(not isinstance(ask.quantity, Level) for ask in parse("value", entry or "free"))


def _judged(
    row: Measured, solution: Solution, at: int, sample: _Sample, tolerance: float, deviations: float
) -> Measured:
    """The row of a feature with its verdict: that on its worse bound."""
    resolved = solution.resolved
    lower, upper = float(solution.lower[at]), float(solution.upper[at])
    row = replace(row, asked=resolved.asked[at], lower=lower, upper=upper)
    start = solution.base[row.name]
    # Inside a cohort a feature spreads as its value does, P(C) of all.
    allowed = tolerance * float(solution.spread[at]) * math.sqrt(resolved.factor[at])
    found: list[Measured] = []
    for bound, entry, low, high in (
        (lower, resolved.sources[at][0], lower, math.inf),
        (upper, resolved.sources[at][1], -math.inf, upper),
    ):
        by_gain = _is_relative(entry) and not math.isnan(row.gain)
        verdict, needed = judge(
            row.gain if by_gain else row.level,
            sample.gain_variance if by_gain else sample.variance,
            low - start if by_gain else low,
            high - start if by_gain else high,
            tolerance=allowed,
            deviations=deviations,
            prompts=sample.prompts,
            pilot_prompts=sample.pilot_prompts,
        )
        if verdict is None:
            continue
        found.append(
            replace(
                row,
                to_gain=bound - start,
                tolerance=allowed,
                judged_by="gain" if by_gain else "level",
                verdict=verdict,
                needed=math.ceil(needed / sample.share) if math.isfinite(needed) else needed,
            )
        )
    worst = {Verdict.MISSED: 0, Verdict.UNDECIDED: 1, Verdict.MET: 2}
    return min(found, key=lambda one: (worst[one.verdict or Verdict.MET], -one.needed), default=row)


def _names(pilot: Pilot, solution: Solution) -> list[str]:
    """The solution's features that were measured, then the answers' other values."""
    resolved = solution.resolved
    measured = dict(
        zip(solution.features, resolved.measured(pilot.values, pilot.table.column_names), strict=True)
    )
    for name, spec, text in zip(solution.features, resolved.specs, resolved.asked, strict=True):
        if text == "free" or measured[name]:
            continue
        if spec.value in pilot.values and spec.cohort:
            raise ValueError(
                f"answers must have the column {spec.cohort[0]!r}, since the solution asks of the cohort "
                f"{spec.cohort[0]}={spec.cohort[1]}, got {', '.join(pilot.columns) or 'none'}"
            )
        raise ValueError(
            f"answers must be scored by what the solution asks of; {spec.value} is not among "
            f"{', '.join(pilot.values) or 'none'}"
        )
    known = [name for name in solution.features if measured[name]]
    return known + [name for name in pilot.values if name not in solution.features]


def _cohorts(pilot: Pilot, solution: Solution, names: Sequence[str]) -> tuple[Array, NDArray[np.bool_]]:
    """Of each name, the share of the solution's prompts that it is about, and which of these prompts: (m,), (M, m)."""
    specs = dict(zip(solution.features, solution.resolved.specs, strict=True))
    shares, counted = np.ones(len(names)), np.ones((pilot.prompts, len(names)), bool)
    for i, name in enumerate(names):
        if (spec := specs.get(name)) is not None and spec.cohort:
            shares[i] = spec.share
            counted[:, i] = spec.inside({spec.cohort[0]: pilot.column(spec.cohort[0])}, pilot.prompts)
    return shares, counted


def _values(pilot: Pilot, solution: Solution, names: Sequence[str]) -> Array:
    """What levels are averages of, shape (n, m); nan where the table does not have it."""
    numbers = solution.resolved.numbers_of(pilot.array, pilot.values)
    have = dict(zip(pilot.values, pilot.array.T, strict=True)) | dict(
        zip(solution.features, numbers.T, strict=True)
    )
    none = np.full(pilot.rows, np.nan)
    return np.column_stack([have.get(name, none) for name in names])


def _choices(pilot: Pilot, solution: Solution, names: Sequence[str]) -> Choices:
    """The rows of each prompt with their probabilities: recorded; else the drawn row's is one; else all alike."""
    index, columns = pilot.prompt_index, pilot.table.column_names
    if "probability" in columns:
        chance = np.asarray(pilot.table["probability"].fill_null(np.nan), float)
        total = np.bincount(index, np.where(chance >= 0, chance, np.nan), minlength=pilot.prompts)
        # A negated test, so that nan fails it too.
        if (wrong := ~(np.abs(total - 1) <= 1e-6)).any():
            prompt = pilot.column("prompt_id").tolist()[int(np.argmax(wrong))]
            raise ValueError(
                "probability must be at least 0 and sum to one over the candidates of a prompt, which it does not for "
                f"prompt_id {prompt!r}"
            )
    elif "drawn" in columns:
        chance = np.asarray(pilot.table["drawn"]).astype(float)
        _drawn(pilot, solution, names)
    else:
        chance = 1 / pilot.sizes[index]
    order, cuts = pilot.order, pilot.starts[1:-1]
    return Choices(np.split(_values(pilot, solution, names)[order], cuts), np.split(chance[order], cuts))


def _drawn(pilot: Pilot, solution: Solution, names: Sequence[str]) -> Array:
    """The values of the answers that were drawn, shape (M, m); nan where none is marked."""
    out = np.full((pilot.prompts, len(names)), np.nan)
    if "drawn" in pilot.table.column_names:
        marked = np.flatnonzero(np.asarray(pilot.table["drawn"]))
        count = np.bincount(pilot.prompt_index[marked], minlength=pilot.prompts)
        if (count != 1).any():
            g = int(np.argmax(count != 1))
            prompt = pilot.column("prompt_id").tolist()[g]
            raise ValueError(
                f"drawn must mark one answer for each prompt, got {count[g]} for prompt_id {prompt!r}"
            )
        out[pilot.prompt_index[marked]] = _values(pilot, solution, names)[marked]
    return out


def _matched(theirs: Choices, other: Pilot, pilot: Pilot) -> Choices:
    """Another table's answers in the order of this one's prompts."""
    place = {key: g for g, key in enumerate(_keys(other))}
    keys = _keys(pilot)
    if missing := [key for key in keys if key not in place]:
        raise ValueError(
            f"base must answer the same prompts; {len(missing)} of {len(keys)} are not in it, such as "
            f"{cut(missing[0], 60)}"
        )
    at = [place[key] for key in keys]
    return Choices([theirs.rows[g] for g in at], [theirs.chances[g] for g in at])


def _keys(pilot: Pilot) -> list[str]:
    """What tells prompts apart across tables: their text, or their number where they have none."""
    if not {"prompt", "messages"} & set(pilot.table.column_names):
        return [json.dumps(entry) for entry in pilot.column("prompt_id").tolist()]
    texts = pilot.texts()
    return [json.dumps(texts[row]) for row in pilot.order[pilot.starts[:-1]]]


def _check_rewards(solution: Solution, pilot: Pilot) -> None:
    """Values must be measured as the solution's were; what is not recorded is not compared."""
    here = plain(pilot.metadata.to_dict())["rewards"]
    found: list[str] = []
    for name, about in (solution.fingerprint.get("rewards") or {}).items():
        now = here.get(name, {})
        both = [key for key in ("definition", "version", "scale") if key in about and key in now]
        found += differences({key: about[key] for key in both}, {key: now[key] for key in both}, name)
    if found:
        raise ValueError(
            f"values are measured otherwise than the solution's ({'; '.join(found)}): score the answers anew, or say "
            "allow_mismatch=True"
        )
