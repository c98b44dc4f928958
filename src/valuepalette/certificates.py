"""A certificate in words: what cannot be had on this pilot, by how much, and why."""

from __future__ import annotations

import numpy as np

from valuepalette.dual import Certificate, Status, optimise
from valuepalette.palette import Resolved
from valuepalette.tilting import Array, Groups, prompt_support

__all__ = ["certificate_sentence"]


def certificate_sentence(
    groups: Groups, resolved: Resolved, certificate: Certificate, se: float, *, joint: bool, block: int | None
) -> str:
    """One paragraph: the choice, the combination, its reach, what is asked, and the cause.

    It speaks of the pilot at hand and of nothing beyond it.
    """
    d = [float(x) for x in certificate.direction]
    named = [i for i in range(len(d)) if abs(d[i]) > 5e-3 * max(map(abs, d))]
    named.sort(key=lambda i: -abs(d[i]))
    if len(named) == 1:
        name, up = resolved.features[named[0]], d[named[0]] > 0
        what = name
        limit = certificate.reach / abs(d[named[0]]) * (1 if up else -1)
        asked = certificate.asked / abs(d[named[0]]) * (1 if up else -1)
        digits = _digits(limit, asked)
        cannot = f"{what} cannot average {'above' if up else 'below'} {limit:.{digits}f}"
        asks = f"the palette asks {asked:.{digits}f}"
    else:
        what = _combination([d[i] for i in named], [resolved.features[i] for i in named])
        digits = _digits(certificate.reach, certificate.asked)
        cannot = f"{what} cannot average above {certificate.reach:.{digits}f}"
        asks = f"the palette asks {certificate.asked:.{digits}f}"
    error = "" if np.isnan(se) or se == 0 else f" (standard error of the gap {se:.2g})"
    sizes = groups.sizes
    if joint:
        choosing = f"Re-weighting these {len(groups.values):,} answers"
    else:
        k = block if block is not None else int(sizes.min())
        pool = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        of = f"{k} candidates" if sizes.max() == k else f"k = {k} of these {pool} candidates"
        choosing = f"Choosing among {of}, on these {len(sizes):,} prompts"
    return f"{choosing}, {cannot}; {asks}{error}. {_cause(groups, resolved, joint=joint, block=block)}"


def _combination(weights: list[float], names: list[str]) -> str:
    parts: list[str] = []
    for weight, name in zip(weights, names, strict=True):
        sign = ("−" if weight < 0 else "") if not parts else (" − " if weight < 0 else " + ")
        size = abs(weight)
        parts.append(f"{sign}{size:.2g}·{name}")
    return "".join(parts)


def _digits(reach: float, asked: float) -> int:
    """Decimals that show two digits of the gap."""
    gap = abs(asked - reach)
    return int(np.clip(np.ceil(1 - np.log10(gap)) if gap > 0 else 6, 2, 9))


def _cause(groups: Groups, resolved: Resolved, *, joint: bool, block: int | None) -> str:
    """One value beyond its own reach, and whether a larger k would do, or values in conflict."""
    m = len(resolved.features)
    for i in range(m):
        lower, upper = resolved.lower[i], resolved.upper[i]
        name = resolved.features[i]
        if lower > upper:
            return (
                f"The bounds on {name} contradict each other: at least {lower:.4g} and at most {upper:.4g}."
            )
        for side, bound in ((1.0, lower), (-1.0, upper)):
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
    if joint:
        return f"{name} alone is beyond reach: no answer of the pilot has {bound:.4g}."
    most = _alone(groups, direction, joint, block)
    alone = f"{name} alone is beyond reach, which ends at {side * most:.4g}"
    smallest = int(groups.sizes.min())
    if block is not None and block < smallest:
        for k in range(block + 1, smallest + 1):
            if _alone(groups, direction, joint, k) >= side * bound:
                return f"{alone}: k is too small, k = {k} would do."
        most = _alone(groups, direction, joint, None)
        alone += f", with all {_count(groups)} candidates at {side * most:.4g}"
    if float((groups.values @ direction).max()) < side * bound:
        return f"{alone}: no answer of the pilot has {bound:.4g}."
    return f"{alone}: prompts differ, and even the best answer to each averages no more."


def _count(groups: Groups) -> str:
    low, high = groups.sizes.min(), groups.sizes.max()
    return f"{low}" if low == high else f"{low} to {high}"
