"""Random palettes on random pilots: plain arrays, and the ways in which they can be unpleasant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from oracles import Problem, margin, spread, tilt
from valuepalette.grouping import Groups

SHAPES = ("normal", "skewed", "outliers", "heavy", "ties", "effects", "correlated")
KINDS = ("lower", "upper", "equality", "interval", "free")


@dataclass(frozen=True)
class Planted:
    """A problem made around its own answer: `weights` satisfies its KKT conditions."""

    problem: Problem
    weights: NDArray[np.float64]


def pilot(
    rng: np.random.Generator,
    *,
    shape: str | None = None,
    prompts: int | None = None,
    candidates: int | None = None,
    features: int | None = None,
    weighted: bool | None = None,
    joint: bool | None = None,
) -> Problem:
    """A pilot without a palette and without collinear features.

    What is not named is drawn; `candidates` makes the prompts alike in size.
    """
    shape = shape or str(rng.choice(SHAPES))
    count = prompts or int(rng.choice([1, 2, 5, 12, 30]))
    m = features or int(rng.integers(1, 6))
    joint = bool(rng.integers(2)) if joint is None else joint
    weighted = bool(rng.integers(2)) if weighted is None else weighted
    while True:
        sizes = np.full(count, candidates) if candidates else rng.integers(1, 9, size=count)
        values = _values(rng, shape, np.repeat(np.arange(count), sizes), m)
        share = rng.dirichlet(np.full(count, 2.0)) if weighted else np.full(count, 1.0 / count)
        share = np.maximum(share, 1e-4)
        free = np.full(m, np.inf)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        drawn = Problem(values, starts, share / share.sum(), -free, free, joint=joint, note=shape)
        if conditioning(drawn) > 1e-6:
            return drawn
        m = m if features else max(1, m - 1)


def _values(rng: np.random.Generator, shape: str, group: NDArray[np.intp], m: int) -> NDArray[np.float64]:
    size = (len(group), m)
    values = rng.normal(size=size)
    if shape == "skewed":
        values = rng.exponential(size=size) ** 2 * rng.choice([-1.0, 1.0], size=m)
    elif shape == "outliers":
        values[rng.random(size) < 0.03] *= 50.0
    elif shape == "heavy":
        values = rng.standard_t(1.5, size=size)
    elif shape == "ties":
        values = rng.integers(0, 4, size=size) + 1e-3 * rng.integers(0, 2, size=size)
    elif shape == "effects":
        values = values + 3.0 * rng.normal(size=(group[-1] + 1, m))[group]
    elif shape == "correlated":
        values = values @ rng.normal(size=(m, m)) + rng.normal(size=(len(group), 1))
    return values * 10.0 ** rng.uniform(-2, 2, size=m) + rng.normal(scale=5.0, size=m)


def conditioning(p: Problem) -> float:
    """The smallest eigenvalue of the correlation within the groups; zero when a feature is constant."""
    unit = spread(p)
    if not unit.all():
        return 0.0
    covariance = tilt(p, np.zeros(p.features)).covariance.astype(float)
    return float(np.linalg.eigvalsh(covariance / np.outer(unit, unit))[0])


def planted(rng: np.random.Generator, *, heat: float | None = None, **kind: object) -> Planted:
    """Bounds set to the levels of chosen weights, so that the weights are the answer.

    Bounds that are not active get slack: every kind of constraint occurs, active and not.
    """
    problem = pilot(rng, **kind)  # type: ignore[arg-type]
    unit = spread(problem)
    kinds = rng.choice(KINDS, size=problem.features)
    kinds[rng.integers(problem.features)] = rng.choice(KINDS[:4])
    heat = heat or float(rng.choice([0.3, 1.0, 3.0]))
    weights = heat * rng.normal(size=problem.features) / unit
    weights[rng.random(problem.features) < 0.3] = 0.0
    weights[kinds == "free"] = 0.0
    weights[kinds == "lower"] = np.abs(weights[kinds == "lower"])
    weights[kinds == "upper"] = -np.abs(weights[kinds == "upper"])

    level = tilt(problem, weights).levels.astype(float)
    slack = rng.uniform(0.05, 1.0, size=problem.features) * unit
    lower, upper = np.full(problem.features, -np.inf), np.full(problem.features, np.inf)
    for i, kind_ in enumerate(kinds):
        if kind_ == "equality":
            lower[i] = upper[i] = level[i]
        if kind_ in ("lower", "interval"):
            lower[i] = level[i] - (slack[i] if weights[i] <= 0 else 0.0)
        if kind_ in ("upper", "interval"):
            upper[i] = level[i] + (slack[i] if weights[i] >= 0 else 0.0)
    return Planted(replace(problem, lower=lower, upper=upper), weights)


def asked(rng: np.random.Generator, *, push: float | None = None, **kind: object) -> Problem:
    """A palette near the levels of some re-weighting, moved by `push` deviations: often impossible."""
    problem = pilot(rng, **kind)  # type: ignore[arg-type]
    unit = spread(problem)
    kinds = rng.choice(KINDS, size=problem.features, p=[0.35, 0.2, 0.15, 0.15, 0.15])
    kinds[rng.integers(problem.features)] = rng.choice(KINDS[:4])
    level = tilt(problem, rng.normal(size=problem.features) / unit).levels.astype(float)
    push = float(rng.choice([0.0, 0.1, 0.3, 1.0])) if push is None else push
    centre = level + push * rng.normal(size=problem.features) * unit
    half = rng.uniform(0.02, 0.5, size=problem.features) * unit
    lower, upper = np.full(problem.features, -np.inf), np.full(problem.features, np.inf)
    lower[kinds == "lower"] = centre[kinds == "lower"]
    upper[kinds == "upper"] = centre[kinds == "upper"]
    lower[kinds == "interval"] = (centre - half)[kinds == "interval"]
    upper[kinds == "interval"] = (centre + half)[kinds == "interval"]
    lower[kinds == "equality"] = upper[kinds == "equality"] = centre[kinds == "equality"]
    return replace(problem, lower=lower, upper=upper)


def at_margin(problem: Problem, target: float) -> Problem:
    """The same palette with every inequality moved by one amount, so that its margin is `target`.

    Intervals lose the end that is farther from the base, or they would close up before the edge is met.
    """
    lower, upper = problem.lower.copy(), problem.upper.copy()
    base = tilt(problem, np.zeros(problem.features)).levels.astype(float)
    for i in np.flatnonzero(np.isfinite(lower) & np.isfinite(upper) & (lower < upper)):
        if abs(lower[i] - base[i]) < abs(upper[i] - base[i]):
            lower[i] = -np.inf
        else:
            upper[i] = np.inf
    opened = replace(problem, lower=lower, upper=upper)
    have = margin(opened)
    if not np.isfinite(have):
        raise ValueError(f"the margin must be finite to be moved, got {have}")
    step = (have - target) * spread(problem)
    loose = lower != upper
    return replace(
        opened, lower=np.where(loose, lower + step, lower), upper=np.where(loose, upper - step, upper)
    )


def lattice(rng: np.random.Generator, *, joint: bool, prompts: int = 4, features: int = 2) -> Problem:
    """Whole-number rewards and bounds exactly on a face of what is reachable; no number is rounded.

    A face of direction d has ties, so it is more than a vertex: the answer there still has to be solved for.
    """
    candidates = 4  # shares are 1/4 and the shares of prompts powers of two: every sum below is exact
    n = prompts * candidates
    while True:
        values = rng.integers(0, 4, size=(n, features)).astype(float)
        direction = rng.integers(1, 3, size=features).astype(float)
        score = values @ direction
        rows = [np.arange(n)] if joint else np.split(np.arange(n), prompts)
        best = [row[score[row] == score[row].max()] for row in rows]
        on_face = sum(len(b) for b in best)
        flat = all(np.ptp(score[row]) == 0 for row in rows)
        if on_face > len(rows) and not flat:
            break
    # The mean of two picks on each face is a point of the face: exact in binary.
    picks = [values[rng.choice(b, size=2)].mean(axis=0) for b in best]
    level = np.mean(picks, axis=0)
    starts = np.arange(0, n + 1, candidates)
    share = np.full(prompts, 1.0 / prompts)
    sign = rng.choice([-1.0, 1.0], size=features)
    lower = np.where(sign > 0, level, -np.inf)
    upper = np.where(sign > 0, np.inf, -level)
    return Problem(values * sign, starts, share, lower, upper, joint=joint, note="lattice")


def many(seed: int, count: int) -> Iterator[np.random.Generator]:
    """`count` generators; a failing one is found again by its number in the message of the test."""
    for number in range(count):
        yield np.random.default_rng([seed, number])


def groups(p: Problem) -> Groups:
    """The pilot in the form that the package takes."""
    return Groups(p.values, p.starts.astype(np.intp), p.weights)
