"""Solving palettes on one pilot: ours, the paper's algorithm, a cone solver, L-BFGS.

The pilot of the paper's OPT-1.3B (2,312 rows, six values) in joint mode, 200 palettes around the edge of what can be
had. Who is right is decided by a linear programme over the corners of the pilot's convex hull and, for the weights, by
an optimum polished in extended precision, so no contender is its own judge.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.spatial import ConvexHull
from scipy.special import logsumexp

from valuepalette.dual import Status, optimise
from valuepalette.grouping import Groups

Float = NDArray[np.float64]

PILOT = Path(__file__).parents[2] / "shared" / "data" / "pilot-opt1.3b-anthropic.parquet"
NAMES = ("humor", "helpfulness", "harmlessness", "diversity", "coherence", "perplexity")
PALETTES = 200


@dataclass(frozen=True)
class Answer:
    """What a contender says: weights where it has some, and whether the palette can be had (None: no verdict)."""

    weights: Float | None
    feasible: bool | None


Contender = Callable[[Float, Float], Answer]


def ours(values: Float, lower: Float) -> Answer:
    n = len(values)
    groups = Groups(values, np.arange(n + 1), np.full(n, 1 / n))
    found = optimise(groups, lower, np.full(len(lower), np.inf), joint=True)
    feasible = {Status.OPTIMAL: True, Status.BOUNDARY: True, Status.INFEASIBLE: False}.get(found.status)
    return Answer(found.weights if feasible else None, feasible)


def paper_torch(values: Float, lower: Float) -> Answer:
    """150 Adam steps on log λ in float32 from λ = 1; feasible unless a weight stops being a number."""
    import torch

    torch.set_num_threads(1)  # two would only wait for each other on arrays of this size
    rewards, levels = torch.tensor(values, dtype=torch.float32), torch.tensor(lower, dtype=torch.float32)
    log_weights = torch.zeros(len(lower), requires_grad=True)
    optimizer = torch.optim.Adam([log_weights], lr=0.1)
    weights = torch.ones(len(lower))
    for _ in range(150):
        weights = log_weights.exp()
        loss = (rewards @ weights).exp().mean().log() - levels @ weights
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last = weights.detach().numpy().astype(float)
    feasible = bool(np.isfinite(last).all())
    return Answer(last if feasible else None, feasible)


def paper_numpy(values: Float, lower: Float) -> Answer:
    """The same with the gradient written out."""
    rewards, levels = values.astype(np.float32), lower.astype(np.float32)
    log_weights = np.zeros(len(lower), dtype=np.float32)
    first, second = np.zeros_like(log_weights), np.zeros_like(log_weights)
    weights = np.ones_like(log_weights)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, 151):
            weights = np.exp(log_weights)
            tilted = np.exp(rewards @ weights)
            slope = weights * (tilted @ rewards / tilted.sum() - levels)
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            log_weights = (log_weights - 0.1 * move).astype(np.float32)
    feasible = bool(np.isfinite(weights).all())
    return Answer(weights.astype(float) if feasible else None, feasible)


def cone(values: Float, lower: Float) -> Answer:
    """The problem over the probabilities, by cvxpy and Clarabel at their defaults."""
    import cvxpy as cp

    n = len(values)
    w = cp.Variable(n, nonneg=True)
    levels = values.T @ w >= lower
    model = cp.Problem(cp.Minimize(-cp.sum(cp.entr(w))), [cp.sum(w) == 1, levels])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.solve(solver=cp.CLARABEL)
    except cp.SolverError:
        return Answer(None, None)
    if model.status in ("optimal", "optimal_inaccurate"):
        return Answer(np.asarray(levels.dual_value, dtype=float), True)
    return Answer(None, False if model.status.startswith("infeasible") else None)


def lbfgs(values: Float, lower: Float) -> Answer:
    """SciPy's L-BFGS-B on the dual, standardised, in float64; feasible where no level stays 0.001 sd short."""
    unit = values.std(axis=0)
    z = (values - lower) / unit

    def dual(weights: Float) -> tuple[float, Float]:
        score = z @ weights
        value = float(logsumexp(score))
        return value, np.exp(score - value) @ z

    bounds = [(0.0, None)] * len(lower)
    options = {"maxiter": 300, "maxfun": 2_000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(dual, np.zeros(len(lower)), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    feasible = bool(dual(found.x)[1].min() > -1e-3)
    return Answer(found.x / unit if feasible else None, feasible)


CONTENDERS: dict[str, Contender] = {
    "valuepalette": ours,
    "the paper's algorithm, PyTorch": paper_torch,
    "the paper's algorithm, NumPy": paper_numpy,
    "cvxpy + Clarabel": cone,
    "SciPy L-BFGS-B on the dual": lbfgs,
}


# ---- the truth


def palettes(values: Float) -> Float:
    """The paper's recipe at random: some values at one quantile between the median and the 95th, the rest kept."""
    rng = np.random.default_rng(0)
    mean = values.mean(axis=0)
    out = []
    for _ in range(PALETTES):
        raised = rng.permutation(len(mean)) < rng.integers(1, len(mean) + 1)
        level = np.quantile(values, rng.uniform(0.5, 0.95), axis=0)
        out.append(np.where(raised, np.maximum(mean, level), mean))
    return np.array(out)


def margin(corners: Float, lower: Float, unit: Float) -> float:
    """The common slack of the levels, in standard deviations: negative where the palette cannot be had."""
    n, m = corners.shape
    found = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.column_stack([-((corners - lower) / unit).T, np.ones(m)]),
        b_ub=np.zeros(m),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
    )
    return -float(found.fun)


def polished(values: Float, lower: Float, start: Float) -> Float:
    """Newton in extended precision on the weights that are not zero, then checked: an optimum whoever found it."""
    unit = values.std(axis=0).astype(np.longdouble)
    z = (values - lower) / unit
    weights, active = start * unit, np.flatnonzero(start > 0)
    residual = np.zeros(len(lower), dtype=np.longdouble)
    for _ in range(20):
        score = z @ weights
        law = np.exp(score - score.max())
        law /= law.sum()
        residual = law @ z
        rest = z - residual
        curve = (rest.T @ (law[:, None] * rest))[np.ix_(active, active)].astype(float)
        weights[active] -= np.linalg.solve(curve, residual[active].astype(float))
    worst = max(np.abs(residual[active]).max(initial=0.0), -residual.min(), -weights.min())
    if worst > 1e-13:
        raise RuntimeError(f"the reference must be an optimum, its residual is {worst:.0e}")
    return (weights / unit).astype(float)


# ---- the race


@dataclass(frozen=True)
class Score:
    """What one contender got on the palettes."""

    seconds: Float  # per palette
    errors: Float  # largest error of a weight, in units of one over the standard deviation; feasible palettes
    right: int


def race(contender: Contender, values: Float, asked: Float, truth: list[Float | None]) -> Score:
    unit = values.std(axis=0)
    seconds, errors, right = [], [], 0
    contender(values, asked[0])  # imports and caches are not what is measured
    for lower, exact in zip(asked, truth, strict=True):
        start = time.perf_counter()
        answer = contender(values, lower)
        seconds.append(time.perf_counter() - start)
        right += answer.feasible is (exact is not None)
        if exact is not None and answer.weights is not None:
            errors.append(np.abs((answer.weights - exact) * unit).max())
    return Score(np.array(seconds), np.array(errors), right)


def line(name: str, score: Score, possible: NDArray[np.bool_]) -> str:
    had, lost = (np.median(score.seconds[which]) * 1e3 for which in (possible, ~possible))
    middle, worst = np.median(score.errors), score.errors.max()
    return f"| {name} | {had:.2f} ms | {lost:.2f} ms | {middle:.0e} | {worst:.0e} | {score.right} |"


def run() -> str:
    """The table, in Markdown."""
    if not PILOT.exists():
        return "Not measured: the paper's pilot is not beside this checkout."
    table = pq.read_table(PILOT)
    values = np.column_stack([table[name].to_numpy() for name in NAMES])
    unit = values.std(axis=0)
    corners = values[ConvexHull((values - values.mean(axis=0)) / unit).vertices]
    asked = palettes(values)
    margins = np.array([margin(corners, lower, unit) for lower in asked])
    possible = margins > 0
    truth = [
        polished(values, lower, np.asarray(ours(values, lower).weights)) if had else None
        for lower, had in zip(asked, possible, strict=True)
    ]
    scores = {name: race(contender, values, asked, truth) for name, contender in CONTENDERS.items()}
    rows = "\n".join(line(name, score, possible) for name, score in scores.items())
    mine, theirs = scores["valuepalette"], scores["the paper's algorithm, PyTorch"]
    ratio = np.median(theirs.seconds[possible]) / np.median(mine.seconds[possible])
    closest = np.abs(margins).min()
    return f"""\
The paper's OPT-1.3B pilot (2,312 rows, six values, joint mode) and {PALETTES} random palettes of the paper's kind,
{possible.sum()} of which can be had; the closest lies {closest:.0e} standard deviations from the edge. Time is the
median over palettes. An error is the largest error of a weight, in units of one over the standard deviation of its
value, over the palettes that can be had and were solved. A missing verdict counts as wrong.

| solver | palette can be had | cannot | error in λ, median | largest | right verdicts of {PALETTES} |
|---|---:|---:|---:|---:|---:|
{rows}

valuepalette solves to a KKT residual of 1e-9 and proves every verdict; for a palette that cannot be had its time
includes the sharpest certificate. It is {ratio:.0f} times as fast as the paper's algorithm in PyTorch: 150 Adam
steps on log λ in float32, feasible unless a weight overflows, rendered from its description. L-BFGS-B has no verdict of
its own: it is counted as feasible where no level stays more than 0.001 standard deviations short.
"""
