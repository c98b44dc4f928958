"""Independent references for the mathematics, written from the theory and sharing no code with the package.

A palette on a pilot is the problem

    minimise    KL(w | b) = sum_g a_g sum_j w_gj log(w_gj / b_gj)
    subject to  w_g a distribution over the candidates of group g,
                lower_i <= sum_g a_g sum_j w_gj r_gji <= upper_i.

Everything here is slow and plain: extended precision, dense arrays, linear and conic programmes, enumeration.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linprog

Float = NDArray[np.float64]
Long = NDArray[np.longdouble]


@dataclass(frozen=True)
class Problem:
    """A pilot and what is asked of it, in raw units.

    values (n, m) rows sorted by prompt; starts (N + 1,); weights (N,); lower, upper (m,), infinite where
    free. joint: one group that holds every row, a row of prompt g having base weight a_g / K_g.
    """

    values: Float
    starts: NDArray[np.intp]
    weights: Float
    lower: Float
    upper: Float
    joint: bool = False
    note: str = ""

    @property
    def features(self) -> int:
        return self.values.shape[1]

    @property
    def sizes(self) -> NDArray[np.intp]:
        return np.diff(self.starts)

    @property
    def prompt(self) -> NDArray[np.intp]:
        """The prompt of each row."""
        return np.repeat(np.arange(len(self.weights)), self.sizes)

    @property
    def group(self) -> NDArray[np.intp]:
        """The group of each row: its prompt, or the only group."""
        return np.zeros(len(self.values), dtype=np.intp) if self.joint else self.prompt

    @property
    def share(self) -> Long:
        """The weight of each group."""
        total = self.weights.astype(np.longdouble)
        return np.ones(1, dtype=np.longdouble) if self.joint else total / total.sum()

    @property
    def base(self) -> Long:
        """The base weight of each row in its group."""
        size = self.sizes.astype(np.longdouble)
        if not self.joint:
            return (1 / size)[self.prompt]
        total = self.weights.astype(np.longdouble)
        return (total / total.sum() / size)[self.prompt]

    @property
    def mass(self) -> Long:
        """The base weight of each row in the whole: sums to one."""
        return self.share[self.group] * self.base


def problem(
    values: ArrayLike,
    sizes: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    joint: bool = False,
) -> Problem:
    """A problem from plain lists, the form in which small examples are written."""
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    counts = np.asarray(sizes)
    low = np.broadcast_to(np.asarray(lower, dtype=float), table.shape[1:]).copy()
    high = np.full_like(low, inf) if upper is None else np.broadcast_to(upper, low.shape).astype(float)
    share = np.full(len(counts), 1 / len(counts)) if weights is None else np.asarray(weights, dtype=float)
    return Problem(table, np.concatenate([[0], np.cumsum(counts)]), share, low, high, joint=joint)


# ---- the forward map


@dataclass(frozen=True)
class Tilt:
    """What weights do to a pilot; extended precision."""

    log_partition: np.longdouble
    levels: Long
    gains: Long  # levels less the base level
    covariance: Long
    kl: np.longdouble
    probabilities: Long  # of each row in its group
    group_levels: Long  # (groups, m)


def group_means(p: Problem) -> Long:
    """The base level of each group, one row each."""
    values = p.values.astype(np.longdouble)
    means = np.zeros((len(p.share), p.features), dtype=np.longdouble)
    np.add.at(means, p.group, p.base[:, None] * values)
    return means


def tilt(p: Problem, weights: ArrayLike, keep: NDArray[np.bool_] | None = None) -> Tilt:
    """Levels, covariance and KL at `weights`, over the rows in `keep`."""
    lam = np.asarray(weights, dtype=np.longdouble)
    means = group_means(p)
    centred = p.values.astype(np.longdouble) - means[p.group]
    groups = len(p.share)
    score = centred @ lam
    if keep is not None:
        score = np.where(keep, score, -np.inf)
    top = np.full(groups, -np.inf, dtype=np.longdouble)
    np.maximum.at(top, p.group, score)
    unnormalised = p.base * np.exp(score - top[p.group])
    total = np.zeros(groups, dtype=np.longdouble)
    np.add.at(total, p.group, unnormalised)
    prob = unnormalised / total[p.group]
    shift = np.zeros((groups, p.features), dtype=np.longdouble)
    np.add.at(shift, p.group, prob[:, None] * centred)
    rest = centred - shift[p.group]
    covariance = rest.T @ ((p.share[p.group] * prob)[:, None] * rest)
    log_partition = p.share @ (np.log(total) + top)  # of the centred features
    moved = p.share @ shift
    return Tilt(
        log_partition=log_partition + (p.share @ means) @ lam,
        levels=moved + p.share @ means,
        gains=moved,
        covariance=covariance,
        kl=moved @ lam - log_partition,
        probabilities=prob,
        group_levels=shift + means,
    )


def spread(p: Problem) -> Float:
    """The standard deviation of each feature within the groups: the unit of margins and residuals."""
    return np.sqrt(np.diag(tilt(p, np.zeros(p.features)).covariance)).astype(float)


def constant(p: Problem) -> NDArray[np.bool_]:
    """Features without spread inside any group, up to rounding."""
    return spread(p) <= 64 * np.finfo(float).eps * np.abs(p.values).max(axis=0)


def over_base(p: Problem, bound: ArrayLike) -> Long:
    """Bounds less the base level, by differences: a common offset costs no digits."""
    with np.errstate(invalid="ignore"):
        return p.share @ (np.asarray(bound, dtype=np.longdouble) - group_means(p))


def polish(p: Problem, weights: ArrayLike, keep: NDArray[np.bool_] | None = None) -> Long:
    """The exact optimum next to `weights`: Newton in extended precision on the entries that are not zero."""
    lam = np.asarray(weights, dtype=np.longdouble)
    free = np.flatnonzero(np.asarray(weights) != 0)
    bound = over_base(p, np.where(np.isfinite(p.lower) & (lam > 0) | ~np.isfinite(p.upper), p.lower, p.upper))
    unit = spread(p)[free]
    for _ in range(8):
        at = tilt(p, lam, keep)
        gap = ((bound - at.gains)[free] / unit).astype(float)
        curve = (at.covariance[np.ix_(free, free)] / np.outer(unit, unit)).astype(float)
        # The matrix is rounded but the right-hand side is not: the residual still falls by 1e-10 a step.
        lam = lam.copy()
        lam[free] += np.linalg.solve(curve, gap) / unit
    return lam


# ---- optimality


def violation(p: Problem, weights: ArrayLike, keep: NDArray[np.bool_] | None = None) -> float:
    """The largest violation of the KKT conditions, in standard deviations; inf for a sign not allowed.

    Stationarity holds by construction, since the levels are those of the weights. What is left: levels inside
    the bounds (primal), signs (dual: a positive weight needs a lower bound, a negative one an upper), and a
    weight that is not zero sits at its bound (complementary slackness).
    """
    lam = np.asarray(weights, dtype=float)
    if not np.isfinite(lam).all():
        return inf
    gains, unit = tilt(p, lam, keep).gains, np.maximum(spread(p), np.finfo(float).tiny)
    lower, upper = over_base(p, p.lower), over_base(p, p.upper)
    if np.any((lam > 0) & ~np.isfinite(p.lower)) or np.any((lam < 0) & ~np.isfinite(p.upper)):
        return inf
    with np.errstate(invalid="ignore"):
        short = np.maximum(lower - gains, gains - upper)  # primal
        off = np.where(lam > 0, np.abs(gains - lower), np.where(lam < 0, np.abs(gains - upper), 0.0))
    loose = ~constant(p)
    worst = np.maximum(short, off)[loose] / unit[loose]
    return float(max(worst.max(initial=0.0), 0.0))


def sign_valid(p: Problem, direction: ArrayLike) -> bool:
    """Whether a direction only leans on bounds that exist."""
    d = np.asarray(direction, dtype=float)
    return not (np.any((d > 0) & ~np.isfinite(p.lower)) or np.any((d < 0) & ~np.isfinite(p.upper)))


def asked(p: Problem, direction: ArrayLike) -> np.longdouble:
    """What the palette asks of dᵀr: d⁺ᵀlower − d⁻ᵀupper."""
    d = np.asarray(direction, dtype=np.longdouble)
    low = np.where(d > 0, p.lower, 0.0).astype(np.longdouble)
    high = np.where(d < 0, p.upper, 0.0).astype(np.longdouble)
    return d @ low + d @ high


def support(p: Problem, direction: ArrayLike, keep: NDArray[np.bool_] | None = None) -> np.longdouble:
    """The most that dᵀr can average: the best candidate of every group."""
    score = p.values.astype(np.longdouble) @ np.asarray(direction, dtype=np.longdouble)
    if keep is not None:
        score = np.where(keep, score, -np.inf)
    best = np.full(len(p.share), -np.inf, dtype=np.longdouble)
    np.maximum.at(best, p.group, score)
    return p.share @ best


def face(p: Problem, direction: ArrayLike, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows of `keep` with the largest dᵀr of their group, up to rounding."""
    d = np.asarray(direction, dtype=np.longdouble)
    score = (p.values - group_means(p)[p.group]) @ d
    best = np.full(len(p.share), -np.inf, dtype=np.longdouble)
    np.maximum.at(best, p.group, np.where(keep, score, -np.inf))
    scale = np.abs(d) @ spread(p)
    return keep & (score >= best[p.group] - 1e-9 * scale)


# ---- linear programmes


@dataclass(frozen=True)
class _Standard:
    """The linear part of a problem in standard units: a row of `levels` per feature that varies."""

    levels: Float  # (m', n): what each row's probability adds to each level, over the base level
    lower: Float
    upper: Float
    simplex: sparse.csr_array
    impossible: bool  # a constant feature lies outside its bounds


def _standard(p: Problem) -> _Standard:
    means = group_means(p)
    base = p.share @ means
    fixed = constant(p)
    unit = np.where(fixed, 1.0, spread(p))
    rounding = 64 * np.finfo(float).eps * np.abs(p.values).max(axis=0)
    outside = fixed & ((p.lower > base + rounding) | (p.upper < base - rounding))
    centred = (p.values - means[p.group]) / unit
    levels = (p.share[p.group][:, None] * centred).astype(float)
    n = len(p.values)
    simplex = sparse.csr_array((np.ones(n), (p.group, np.arange(n))), shape=(len(p.share), n))
    lower = ((p.lower - base) / unit).astype(float)
    upper = ((p.upper - base) / unit).astype(float)
    return _Standard(levels.T[~fixed], lower[~fixed], upper[~fixed], simplex, bool(outside.any()))


def _programme(
    p: Problem, rise_lower: Float, rise_upper: Float, ceiling: float = inf, floor: Float | None = None
) -> float:
    """max t: lower + t·rise_lower <= level <= upper + t·rise_upper and w >= t·floor; −inf if nothing fits.

    The rises are in standard units and cover the features that are not constant.
    """
    s = _standard(p)
    if s.impossible:
        return -inf
    rows, right, equal_rows, equal_right = [], [], [], []
    for i, (low, high) in enumerate(zip(s.lower, s.upper, strict=True)):
        if low == high and rise_lower[i] == rise_upper[i]:
            equal_rows.append(np.append(s.levels[i], -rise_lower[i]))
            equal_right.append(low)
            continue
        if np.isfinite(low):
            rows.append(np.append(-s.levels[i], rise_lower[i]))
            right.append(-low)
        if np.isfinite(high):
            rows.append(np.append(s.levels[i], -rise_upper[i]))
            right.append(high)
    groups, n = s.simplex.shape
    upper_rows = [sparse.csr_array(np.array(rows).reshape(len(rows), n + 1))]
    if floor is not None:
        upper_rows.append(sparse.hstack([-sparse.eye_array(n), floor[:, None]], format="csr"))
        right.extend(np.zeros(n))
    sums = sparse.hstack([s.simplex, sparse.csr_array((groups, 1))], format="csr")
    equal = sparse.vstack([sums, sparse.csr_array(np.array(equal_rows).reshape(-1, n + 1))], format="csr")
    bounds = np.column_stack([np.zeros(n + 1), np.full(n + 1, np.inf)])
    bounds[-1] = (-np.inf, ceiling)
    answer = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=sparse.vstack(upper_rows, format="csr"),
        b_ub=np.array(right),
        A_eq=equal,
        b_eq=np.concatenate([np.ones(groups), equal_right]),
        bounds=bounds,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if answer.status == 2:
        return -inf
    if answer.status == 3:
        return inf
    if answer.status != 0:
        raise RuntimeError(f"HiGHS: {answer.message}")
    return float(-answer.fun)


def margin(p: Problem) -> float:
    """The largest common slack of the inequalities, in standard deviations within the groups.

    +inf without inequalities, −inf if the equalities, or a constant feature, cannot be had. A negative
    margin is how far the palette is out of reach.
    """
    slack = np.where(p.lower == p.upper, 0.0, 1.0)[~constant(p)]
    return _programme(p, slack, -slack)


def distance(p: Problem) -> float:
    """The same with slack on the equalities too: at most zero with one, finite whatever is asked."""
    slack = np.ones(int((~constant(p)).sum()))
    return _programme(p, slack, -slack)


def interior(p: Problem) -> float:
    """The largest t such that the palette is met with every candidate at least t times its base weight.

    The weights of the dual exist if and only if this is positive. −inf if the palette cannot be had.
    """
    still = np.zeros(int((~constant(p)).sum()))
    return _programme(p, still, still, 1.0, floor=p.base.astype(float))


def farthest(p: Problem, step: ArrayLike) -> float:
    """max t: the palette with each finite bound c_i moved to c_i + t·step_i can still be had."""
    varying = ~constant(p)
    rise = np.asarray(step, dtype=float)[varying] / spread(p)[varying]
    return _programme(p, rise, rise)


def gauge(p: Problem) -> float:
    """max t: the palette blown up from the base level by 1 + t can still be had."""
    s = _standard(p)
    return _programme(p, s.lower, s.upper)


def verdict(p: Problem, sure: float = 1e-7) -> str:
    """'optimal', 'boundary' or 'infeasible' by linear programmes; 'either' where their tolerance decides."""
    room = margin(p)
    if room < -sure:
        return "infeasible"
    t = interior(p)
    if t > 1e-8 and (room > sure or abs(room) < 1e-9):
        return "optimal"
    if t < 1e-10 and (room > sure or abs(room) < 1e-9):
        return "boundary" if np.isfinite(t) else "either"
    return "either"


# ---- the cone solver


@dataclass(frozen=True)
class Cone:
    """What cvxpy and Clarabel say; `solved` is False where they stop short of their tolerances."""

    solved: bool
    infeasible: bool
    kl: float
    levels: Float


def cone(p: Problem, tolerance: float = 1e-12) -> Cone:
    """The problem itself, over the probabilities, as an exponential-cone programme.

    A KL that is right to δ leaves the levels right to about the square root of 2δ, in standard deviations.
    """
    import cvxpy as cp

    s = _standard(p)
    w = cp.Variable(len(p.values), nonneg=True)
    level = s.levels @ w
    constraints = [s.simplex @ w == 1.0]
    equal = s.lower == s.upper
    low, high = np.isfinite(s.lower) & ~equal, np.isfinite(s.upper) & ~equal
    if equal.any():
        constraints.append(level[equal] == s.lower[equal])
    if low.any():
        constraints.append(level[low] >= s.lower[low])
    if high.any():
        constraints.append(level[high] <= s.upper[high])
    share, base = p.share[p.group].astype(float), p.base.astype(float)
    model = cp.Problem(cp.Minimize(share @ cp.rel_entr(w, base)), constraints)
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where it stops short, which the status says too
            model.solve(solver=cp.CLARABEL, max_iter=300, **tight)
    except cp.SolverError:
        return Cone(False, False, np.nan, np.full(p.features, np.nan))
    if model.status != "optimal":
        return Cone(False, model.status == "infeasible", np.nan, np.full(p.features, np.nan))
    levels = (p.share[p.group] * w.value) @ p.values
    return Cone(True, False, float(model.value), levels.astype(float))


# ---- choosing among k of K


def subsets(p: Problem, k: int) -> Problem:
    """The problem of a decoder that sees k of each prompt's candidates, all subsets equally likely: exact.

    Every k-subset of a prompt is a group of its own, so this grows as C(K, k).
    """
    rows, share = [], []
    for g, (start, size) in enumerate(zip(p.starts[:-1], p.sizes, strict=True)):
        for chosen in combinations(range(start, start + size), k):
            rows.append(chosen)
            share.append(p.weights[g] / comb(size, k))
    flat = np.array(rows).ravel()
    starts = np.arange(0, len(flat) + 1, k)
    return replace(p, values=p.values[flat], starts=starts, weights=np.array(share), joint=False)


def largest_of_subset(k: int, size: int) -> Float:
    """How often each of `size` ascending numbers is the largest of a random k-subset: by counting."""
    count = np.zeros(size)
    for chosen in combinations(range(size), k):
        count[max(chosen)] += 1
    return count / count.sum()
