"""A certificate in words: what cannot be had on this pilot, by how much, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from valuepalette.dual import Certificate, Status, optimise
from valuepalette.features import Feature, Resolved
from valuepalette.grouping import Array, Groups
from valuepalette.tilting import prompt_support, spread

__all__ = ["Choice", "certificate_sentence", "choice_among", "reported", "sentence"]


@dataclass(frozen=True)
class Choice:
    """What there is to choose among, as far as a sentence speaks of it.

    prompts, rows  how many there are
    fewest, most   candidates of a prompt
    joint, block   one group of everything; k, None for all candidates
    unit           (m,) how large a movement of each feature is
    alone          (d, k) -> the most that dᵀlevel can be when nothing else is asked; k without effect in joint mode
    best           d -> the largest dᵀr of any candidate
    every          the verdict with all candidates in place of k
    """

    prompts: int
    rows: int
    fewest: int
    most: int
    joint: bool
    block: int | None
    unit: Array
    alone: Callable[[Array, int | None], float]
    best: Callable[[Array], float]
    every: Callable[[], Status]

    def reported(self, resolved: Resolved) -> Choice:
        """The same of the levels that a user reads, L ↦ anchor + L / P(C) by feature."""
        if not resolved.columns:
            return self
        anchor, factor = resolved.reported(np.zeros(len(resolved.features))), resolved.factor
        return replace(
            self,
            unit=self.unit * factor,
            alone=lambda d, k: float(d @ anchor) + self.alone(d * factor, k),
            best=lambda d: float(d @ anchor) + self.best(d * factor),
        )


def choice_among(groups: Groups, resolved: Resolved, *, joint: bool, block: int | None) -> Choice:
    """The choice among candidates in memory."""

    def alone(direction: Array, k: int | None) -> float:
        if joint:
            return float((groups.values @ direction).max())
        return float(groups.weights @ prompt_support(groups, direction, k))

    unit = spread(groups, joint=joint)
    return Choice(
        len(groups.sizes),
        len(groups.values),
        int(groups.sizes.min()),
        int(groups.sizes.max()),
        joint,
        block,
        np.where(unit > 0, unit, np.abs(groups.values).max(axis=0)),
        alone,
        lambda direction: float((groups.values @ direction).max()),
        lambda: optimise(groups, resolved.lower, resolved.upper).status,
    )


def reported(resolved: Resolved, certificate: Certificate) -> tuple[Resolved, Certificate]:
    """The same statement about the levels that a user reads: of a cohort, among its own prompts.

    L ↦ anchor + L / P(C) by feature; d shrinks as the levels grow, so that dᵀL says the same. What does not look at
    levels, such as the features' specs, stays.
    """
    if not resolved.columns:
        return resolved, certificate
    bounds = replace(
        resolved, lower=resolved.reported(resolved.lower), upper=resolved.reported(resolved.upper)
    )
    d = certificate.direction / resolved.factor
    size = float(np.abs(d).sum())
    if not size:
        gap = float((bounds.lower - bounds.upper).max())
        return bounds, replace(certificate, asked=gap, gap=gap)
    d = d / size
    asked, gap, se = _asked(bounds, d), certificate.gap / size, certificate.se / size
    return bounds, replace(certificate, direction=d, asked=asked, reach=asked - gap, gap=gap, se=se)


def certificate_sentence(
    groups: Groups, resolved: Resolved, certificate: Certificate, se: float, *, joint: bool, block: int | None
) -> str:
    """`sentence` of candidates in memory."""
    return sentence(choice_among(groups, resolved, joint=joint, block=block), resolved, certificate, se)


def sentence(choice: Choice, resolved: Resolved, certificate: Certificate, se: float) -> str:
    """One paragraph: the choice, the combination, its reach, what is asked, and the cause.

    It speaks of the pilot at hand and of nothing beyond it. The combination is rounded no further than the proof
    bears, and the figures are those of the rounded one, so that the sentence is true as it stands.
    """
    for i, (lower, upper) in enumerate(zip(resolved.lower, resolved.upper, strict=True)):
        if lower > upper:
            digits = _digits(lower, upper)
            least, most = f"at least {lower:.{digits}f}", f"at most {upper:.{digits}f}"
            if all(resolved.sources[i]):
                least, most = (
                    f'"{entry}" asks for {end}'
                    for entry, end in zip(resolved.sources[i], (least, most), strict=True)
                )
            return f"The bounds on {resolved.features[i]} contradict each other: {least} and {most}."
    d = _rounded(choice, resolved, certificate)
    reach, asked = choice.alone(d, choice.block), _asked(resolved, d)
    named = sorted(np.flatnonzero(d), key=lambda i: -abs(d[i]))
    side = -1.0 if len(named) == 1 and d[named[0]] < 0 else 1.0
    limit, asks = _limit(side * reach, side * asked, side), f"{side * asked:.{_digits(reach, asked)}f}"
    what = _combination([float(d[i]) for i in named], [resolved.features[i] for i in named])
    error = "" if np.isnan(se) or se <= 1e-9 * certificate.gap else f" (standard error of the gap {se:.2g})"
    if choice.joint:
        choosing = f"Re-weighting these {choice.rows:,} answers"
    else:
        k = choice.fewest if choice.block is None else choice.block
        of = f"{k} candidates" if choice.most == k else f"k = {k} of these {_count(choice)} candidates"
        prompts = f"these {choice.prompts:,} prompts" if choice.prompts > 1 else "this one prompt"
        choosing = f"Choosing among {of}, on {prompts}"
    share = len(named) == 1 and resolved.specs[named[0]].tail is not None
    go = ("rise above", "fall below") if share else ("average above", "average below")
    cannot = f"cannot {go[0] if side > 0 else go[1]} {limit}; the palette asks {asks}{error}."
    return f"{choosing}, {what} {cannot} {_cause(choice, resolved)}"


def _rounded(choice: Choice, resolved: Resolved, certificate: Certificate) -> Array:
    """The direction to the fewest digits that keep three quarters of its gap; one feature alone counts as ±1."""
    d = certificate.direction
    # What a feature contributes depends on its unit, which the raw direction does not show.
    share = np.abs(d) * choice.unit
    for digits in range(2, 12):
        kept = np.where(share > 10.0**-digits * share.max(), d, 0.0)
        if np.count_nonzero(kept) == 1:
            kept = kept / np.abs(kept).max()
        rounded = np.array([float(f"{x:.{digits}g}") for x in kept])
        gap = _asked(resolved, rounded) - choice.alone(rounded, choice.block)
        if gap > 0.75 * certificate.gap * np.abs(rounded).sum():
            return rounded
    return d


def _asked(resolved: Resolved, direction: Array) -> float:
    """d⁺ᵀlower − d⁻ᵀupper."""
    bound = np.where(direction > 0, resolved.lower, np.where(direction < 0, resolved.upper, 0.0))
    return float(direction @ bound)


def _combination(weights: list[float], names: list[str]) -> str:
    """`0.6·humor − 0.4·length`; of one value its name alone."""
    if len(names) == 1:
        return names[0]
    text = ""
    for weight, name in zip(weights, names, strict=True):
        sign = ("−" if weight < 0 else "") if not text else (" − " if weight < 0 else " + ")
        text += f"{sign}{abs(weight):.12g}·{name}"
    return text


def _digits(reach: float, asked: float) -> int:
    """Decimals that show two digits of the gap."""
    gap = abs(asked - reach)
    return int(np.clip(np.ceil(1 - np.log10(gap)) if gap > 0 else 6, 2, 15))


def _cause(choice: Choice, resolved: Resolved) -> str:
    """One value beyond its own reach, and whether a larger k would do, or values in conflict."""
    m, block = len(resolved.features), choice.block
    for i, name in enumerate(resolved.features):
        for side, bound in ((1.0, resolved.lower[i]), (-1.0, resolved.upper[i])):
            unit = np.zeros(m)
            unit[i] = side
            # More than rounding: at k = 1 the base level itself is the end of the reach.
            if np.isfinite(bound) and side * bound > choice.alone(unit, block) + 1e-9 * choice.unit[i]:
                return _beyond(choice, unit, name, resolved.specs[i], float(bound))
    if (
        not choice.joint
        and block is not None
        and choice.fewest > block
        and choice.every() is not Status.INFEASIBLE
    ):
        return (
            f"Each value alone is within reach, together they conflict at k = {block}; "
            f"with all {_count(choice)} candidates the palette can be had."
        )
    return "Each value alone is within reach; together they conflict."


def _beyond(choice: Choice, direction: Array, name: str, spec: Feature, bound: float) -> str:
    side = float(direction.sum())
    best = choice.best(direction)
    if spec.cohort is not None:
        best = side * (spec.anchor + (side * best - spec.anchor) * spec.share)
    none = f"no answer of the pilot is as {'high' if side > 0 else 'low'} as {bound:.{_digits(best, side * bound)}f}."
    if spec.tail is not None:
        none = f"{'no' if side > 0 else 'every'} answer of the pilot is {_words(spec.tail)}."
    if choice.joint:
        return f"{name} alone is beyond reach: {none}"
    block, smallest = choice.block, choice.fewest
    most = choice.alone(direction, block)
    alone = f"{name} alone is beyond reach, which ends at {_limit(side * most, bound, side)}"
    if block is not None and block < smallest:
        for k in range(block + 1, smallest + 1):
            if choice.alone(direction, k) >= side * bound:
                return f"{alone}: k is too small, k = {k} would reach it."
        most = choice.alone(direction, smallest)
        alone += f", with k = {smallest} at {_limit(side * most, bound, side)}"
    if spec.tail is not None:
        # Of the k that the last figure is for; None where these are all candidates.
        k = None if block is None else max(block, smallest)
        k = None if k == choice.most else k
        return f"{alone}: {_share(spec, side, k)}"
    if best < side * bound:
        return f"{alone}: {none}"
    return f"{alone}: prompts differ, and even the best answer to each averages no more."


def _share(spec: Feature, side: float, k: int | None) -> str:
    """Why a share goes no further: prompts whose candidates, or k drawn from them, are all bad, or none good."""
    tail = _words(spec.tail or ("<", 0.0))
    prompts = "prompts" if spec.cohort is None else "cohort's prompts"
    if k is None:
        where = "that share" if side < 0 else "the rest"
        return (
            f"on {where} of the {prompts} {'all candidates are' if side < 0 else 'no candidate is'} {tail}."
        )
    drawn = f"k = {k} candidates drawn"
    return f"{f'so often all {drawn} are' if side < 0 else f'else none of the {drawn} is'} {tail}."


def _words(tail: tuple[str, float]) -> str:
    """`below -2`."""
    words = {"<": "below", "<=": "at or below", ">": "above", ">=": "at or above"}
    return f"{words[tail[0]]} {tail[1]:.4g}"


def _limit(limit: float, asked: float, side: float) -> str:
    """A limit in as many decimals as show that `asked` lies beyond it, rounded towards `asked` to stay true."""
    digits = _digits(limit, asked)
    last = side * limit * 10.0**digits
    outward = np.ceil(last - 1e-6 - 1e-15 * abs(last)) / 10.0**digits
    return f"{side * outward + 0.0:.{digits}f}"


def _count(choice: Choice) -> str:
    return f"{choice.fewest}" if choice.fewest == choice.most else f"{choice.fewest} to {choice.most}"
