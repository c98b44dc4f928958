"""A certificate in words: what cannot be had on this pilot, by how much, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from valuepalette.dual import Certificate, Status, optimise
from valuepalette.features import Feature, Resolved
from valuepalette.tilting import Array, Groups, prompt_support, spread

__all__ = ["certificate_sentence", "reported"]


def reported(
    groups: Groups, resolved: Resolved, certificate: Certificate
) -> tuple[Groups, Resolved, Certificate]:
    """The same statement about the levels that a user reads: of a cohort, among its own prompts.

    L ↦ anchor + L / P(C) by feature; d shrinks as the levels grow, so that dᵀL says the same. What does not look at
    levels, such as the features' specs, stays.
    """
    if not resolved.columns:
        return groups, resolved, certificate
    values = resolved.reported(np.zeros(len(resolved.features))) + resolved.factor * groups.values
    bounds = replace(
        resolved, lower=resolved.reported(resolved.lower), upper=resolved.reported(resolved.upper)
    )
    groups = Groups(values, groups.starts, groups.weights)
    d = certificate.direction / resolved.factor
    size = float(np.abs(d).sum())
    if not size:
        gap = float((bounds.lower - bounds.upper).max())
        return groups, bounds, replace(certificate, asked=gap, gap=gap)
    d = d / size
    asked, gap, se = _asked(bounds, d), certificate.gap / size, certificate.se / size
    return groups, bounds, replace(certificate, direction=d, asked=asked, reach=asked - gap, gap=gap, se=se)


def certificate_sentence(
    groups: Groups, resolved: Resolved, certificate: Certificate, se: float, *, joint: bool, block: int | None
) -> str:
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
    d = _rounded(groups, resolved, certificate, joint, block)
    reach, asked = _alone(groups, d, joint, block), _asked(resolved, d)
    named = sorted(np.flatnonzero(d), key=lambda i: -abs(d[i]))
    side = -1.0 if len(named) == 1 and d[named[0]] < 0 else 1.0
    limit, asks = _limit(side * reach, side * asked, side), f"{side * asked:.{_digits(reach, asked)}f}"
    what = _combination([float(d[i]) for i in named], [resolved.features[i] for i in named])
    error = "" if np.isnan(se) or se <= 1e-9 * certificate.gap else f" (standard error of the gap {se:.2g})"
    sizes = groups.sizes
    if joint:
        choosing = f"Re-weighting these {len(groups.values):,} answers"
    else:
        k = block if block is not None else int(sizes.min())
        of = f"{k} candidates" if sizes.max() == k else f"k = {k} of these {_count(groups)} candidates"
        prompts = f"these {len(sizes):,} prompts" if len(sizes) > 1 else "this one prompt"
        choosing = f"Choosing among {of}, on {prompts}"
    share = len(named) == 1 and resolved.specs[named[0]].tail is not None
    go = ("rise above", "fall below") if share else ("average above", "average below")
    cannot = f"cannot {go[0] if side > 0 else go[1]} {limit}; the palette asks {asks}{error}."
    return f"{choosing}, {what} {cannot} {_cause(groups, resolved, joint=joint, block=block)}"


def _rounded(
    groups: Groups, resolved: Resolved, certificate: Certificate, joint: bool, block: int | None
) -> Array:
    """The direction to the fewest digits that keep three quarters of its gap; one feature alone counts as ±1."""
    d = certificate.direction
    # What a feature contributes depends on its unit, which the raw direction does not show.
    unit = spread(groups, joint=joint)
    share = np.abs(d) * np.where(unit > 0, unit, np.abs(groups.values).max(axis=0))
    for digits in range(2, 12):
        kept = np.where(share > 10.0**-digits * share.max(), d, 0.0)
        if np.count_nonzero(kept) == 1:
            kept = kept / np.abs(kept).max()
        rounded = np.array([float(f"{x:.{digits}g}") for x in kept])
        gap = _asked(resolved, rounded) - _alone(groups, rounded, joint, block)
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


def _cause(groups: Groups, resolved: Resolved, *, joint: bool, block: int | None) -> str:
    """One value beyond its own reach, and whether a larger k would do, or values in conflict."""
    m = len(resolved.features)
    for i, name in enumerate(resolved.features):
        for side, bound in ((1.0, resolved.lower[i]), (-1.0, resolved.upper[i])):
            unit = np.zeros(m)
            unit[i] = side
            if np.isfinite(bound) and side * bound > _alone(groups, unit, joint, block):
                return _beyond(groups, unit, name, resolved.specs[i], float(bound), joint, block)
    if not joint and block is not None and groups.sizes.min() > block:
        every = optimise(groups, resolved.lower, resolved.upper)
        if every.status is not Status.INFEASIBLE:
            return (
                f"Each value alone is within reach, together they conflict at k = {block}; "
                f"with all {_count(groups)} candidates the palette can be had."
            )
    return "Each value alone is within reach; together they conflict."


def _alone(groups: Groups, direction: Array, joint: bool, block: int | None) -> float:
    """The most that dᵀlevel can be when nothing else is asked."""
    if joint:
        return float((groups.values @ direction).max())
    return float(groups.weights @ prompt_support(groups, direction, block))


def _beyond(
    groups: Groups, direction: Array, name: str, spec: Feature, bound: float, joint: bool, block: int | None
) -> str:
    side = float(direction.sum())
    best = float((groups.values @ direction).max())
    if spec.cohort is not None:
        best = side * (spec.anchor + (side * best - spec.anchor) * spec.share)
    none = f"no answer of the pilot is as {'high' if side > 0 else 'low'} as {bound:.{_digits(best, side * bound)}f}."
    if spec.tail is not None:
        none = f"{'no' if side > 0 else 'every'} answer of the pilot is {_words(spec.tail)}."
    if joint:
        return f"{name} alone is beyond reach: {none}"
    most = _alone(groups, direction, joint, block)
    alone = f"{name} alone is beyond reach, which ends at {_limit(side * most, bound, side)}"
    smallest = int(groups.sizes.min())
    if block is not None and block < smallest:
        for k in range(block + 1, smallest + 1):
            if _alone(groups, direction, joint, k) >= side * bound:
                return f"{alone}: k is too small, k = {k} would reach it."
        most = _alone(groups, direction, joint, smallest)
        alone += f", with k = {smallest} at {_limit(side * most, bound, side)}"
    if spec.tail is not None:
        # Of the k that the last figure is for; None where these are all candidates.
        k = None if block is None else max(block, smallest)
        k = None if k == groups.sizes.max() else k
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


def _count(groups: Groups) -> str:
    low, high = groups.sizes.min(), groups.sizes.max()
    return f"{low}" if low == high else f"{low} to {high}"
