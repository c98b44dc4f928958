"""A certificate in words: what cannot be had on this pilot, by how much, and why."""

from __future__ import annotations

import numpy as np

from valuepalette.dual import Certificate, Status, optimise
from valuepalette.palette import Resolved
from valuepalette.tilting import Array, Groups, prompt_support, spread

__all__ = ["certificate_sentence"]


def certificate_sentence(
    groups: Groups, resolved: Resolved, certificate: Certificate, se: float, *, joint: bool, block: int | None
) -> str:
    """One paragraph: the choice, the combination, its reach, what is asked, and the cause.

    It speaks of the pilot at hand and of nothing beyond it. The combination is rounded no further than the proof
    bears, and the figures are those of the rounded one, so that the sentence is true as it stands.
    """
    for name, lower, upper in zip(resolved.features, resolved.lower, resolved.upper, strict=True):
        if lower > upper:
            digits = _digits(lower, upper)
            least, most = f"{lower:.{digits}f}", f"{upper:.{digits}f}"
            return f"The bounds on {name} contradict each other: at least {least} and at most {most}."
    d = _rounded(groups, resolved, certificate, joint, block)
    reach, asked = _alone(groups, d, joint, block), _asked(resolved, d)
    named = sorted(np.flatnonzero(d), key=lambda i: -abs(d[i]))
    side = -1.0 if len(named) == 1 and d[named[0]] < 0 else 1.0
    limit, asks = _limit(side * reach, side * asked, side), f"{side * asked:.{_digits(reach, asked)}f}"
    what = _combination([float(d[i]) for i in named], [resolved.features[i] for i in named])
    error = "" if np.isnan(se) or se == 0 else f" (standard error of the gap {se:.2g})"
    sizes = groups.sizes
    if joint:
        choosing = f"Re-weighting these {len(groups.values):,} answers"
    else:
        k = block if block is not None else int(sizes.min())
        of = f"{k} candidates" if sizes.max() == k else f"k = {k} of these {_count(groups)} candidates"
        prompts = f"these {len(sizes):,} prompts" if len(sizes) > 1 else "this one prompt"
        choosing = f"Choosing among {of}, on {prompts}"
    cannot = f"cannot average {'above' if side > 0 else 'below'} {limit}; the palette asks {asks}{error}."
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
                return _beyond(groups, unit, name, float(bound), joint, block)
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


def _beyond(groups: Groups, direction: Array, name: str, bound: float, joint: bool, block: int | None) -> str:
    side = float(direction.sum())
    best = float((groups.values @ direction).max())
    none = f"no answer of the pilot is as {'high' if side > 0 else 'low'} as {bound:.{_digits(best, side * bound)}f}."
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
    if best < side * bound:
        return f"{alone}: {none}"
    return f"{alone}: prompts differ, and even the best answer to each averages no more."


def _limit(limit: float, asked: float, side: float) -> str:
    """A limit in as many decimals as show that `asked` lies beyond it, rounded towards `asked` to stay true."""
    digits = _digits(limit, asked)
    last = side * limit * 10.0**digits
    outward = np.ceil(last - 1e-6 - 1e-15 * abs(last)) / 10.0**digits
    return f"{side * outward + 0.0:.{digits}f}"


def _count(groups: Groups) -> str:
    low, high = groups.sizes.min(), groups.sizes.max()
    return f"{low}" if low == high else f"{low} to {high}"
