# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The bootstrap over prompts: a palette solved anew on many re-weightings of the same prompts, all at once.

A resample draws N prompts with replacement, which only changes what each prompt weighs. So the data stay where they
are, and one pass over them serves many resamples: Newton's method runs on all of them side by side, each with its own
λ, from the λ of the whole pilot. Each is solved to the same residual as the pilot was; what does not converge within
a few passes, as next to the edge of reach, is solved on its own, with a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from valuepalette.feasibility import Support, gauge
from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.newton import Iterate, maximise, newton_step, residuals, separation
from valuepalette.tilting import Tilt, Tilted, spread

__all__ = ["Resamples", "draw", "resample", "resampled_quantiles"]

PASSES = 8
BATCH = 32
"""Resamples in work at once: a chunk of rows, times them, stays in the cache."""


@dataclass(frozen=True)
class Resamples:
    """A palette solved on B re-weightings of the prompts, in the units of the features.

    weights   (B, m) λ; nan where the palette has none on that resample
    levels    (B, m) what those weights give on the resample
    whole     (B, m) what the same weights give on the pilot itself
    bases     (B, m) the base levels of the resample
    solved    (B,) whether there are weights; else the palette cannot be had, or only on the boundary
    residual  (B,) the largest KKT residual, in standardised units
    """

    weights: Array
    levels: Array
    whole: Array
    bases: Array
    solved: NDArray[np.bool_]
    residual: Array


def draw(prompts: int, resamples: int, seed: int) -> Array:
    """How often each prompt is drawn, (B, N): N of them, with replacement.

    >>> draw(4, 2, seed=0).sum(axis=1)
    array([4., 4.])
    """
    chance = np.full(prompts, 1 / prompts)
    return np.random.default_rng(seed).multinomial(prompts, chance, size=resamples).astype(float)


def resample(
    groups: Groups,
    start: Array,
    shares: Array,
    lower: Array,
    upper: Array,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
    tol: float = 1e-6,
) -> Resamples:
    """`optimise` on B re-weightings of the same prompts.

    start         (m,) λ of the pilot, where Newton's method begins
    shares        (B, N) what each prompt weighs, each row summing to one; zero for one that is left out
    lower, upper  (B, m) the bounds of each, as `optimise` takes them
    joint, block, seed, tol  as for `optimise`

    >>> groups = Groups(np.array([[0.0], [1.0], [0.0], [3.0]]), np.array([0, 2, 4]), np.full(2, 0.5))
    >>> one = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> found = resample(groups, np.zeros(1), one, np.array([[0.75], [1.5]]), np.full((2, 1), np.inf))
    >>> found.weights.round(4).tolist(), found.whole.round(4).tolist()
    ([[1.0986], [0.0]], [[1.8214], [1.0]])
    """
    scale = spread(groups, joint=joint)
    whole = tilted(groups, scale, joint=joint)
    exact = joint or block is None or bool((groups.sizes == block).all())
    source = whole if exact else tilted(groups, scale, block=block, seed=seed)
    ratios = shares / groups.weights
    apart = shares @ ((groups.means - groups.base) / source.scale)
    # Inside a prompt z is centred: a resample's levels are measured from its own base. In joint mode they are not.
    shift = np.zeros_like(apart) if joint else apart
    low, high = ((bounds - groups.base) / source.scale - shift for bounds in (lower, upper))
    begin = start * source.scale
    weights, levels, there, residual = _newton(groups, source, begin, ratios, low, high, tol, exact)
    for b in np.flatnonzero(residual > tol):
        mine = _weighed(groups, source, ratios[b])
        full = mine if exact else _weighed(groups, whole, ratios[b])
        support: Support = full.support if exact else partial(full.subset_support, k=int(block or 0))
        at = _alone(mine, support, begin, low[b], high[b], tol, exact=exact)
        if at is not None:
            weights[b], levels[b], residual[b] = at.weights, at.tilt.levels, at.kkt
            there[b] = source.pass_(at.weights).levels
    solved = residual <= tol
    weights[~solved], levels[~solved], there[~solved] = np.nan, np.nan, np.nan
    return Resamples(
        weights / source.scale,
        groups.base + source.scale * (shift + levels),
        groups.base + source.scale * there,
        groups.base + source.scale * apart,
        solved,
        residual,
    )


def resampled_quantiles(groups: Groups, times: Array, q: float) -> Array:
    """The pooled quantile at `q` in [0, 1] of one column on each resample, shape (B,); nan where it has no prompt.

    groups  one column; its weights are a_g
    times   (B, N) how often each prompt is drawn, as `draw` gives it

    Exactly `palette.quantile` of the resample's rows, a prompt that is drawn twice standing in it twice.

    >>> groups = Groups(np.array([[0.0], [10.0], [30.0]]), np.array([0, 1, 2, 3]), np.full(3, 1 / 3))
    >>> resampled_quantiles(groups, np.array([[1.0, 1, 1], [0, 2, 1], [0, 0, 3]]), 0.75)
    array([20., 20., 30.])
    """
    owner = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    distinct, place = np.unique(groups.values[:, 0], return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    owner, each = owner[order], groups.row_weights[order]
    out = np.full(len(times), np.nan)
    step = max(1, (1 << 22) // len(owner))
    for begin in range(0, len(times), step):
        part = times[begin : begin + step, owner]
        count = np.add.reduceat(part, starts, axis=1)
        mass = np.add.reduceat(part * each, starts, axis=1)
        for b in range(len(part)):
            there = count[b] > 0
            if not there.any():
                continue
            # Copies of one value are evenly apart; between values half of either's distance.
            even = mass[b, there] / count[b, there]
            last = np.cumsum(mass[b, there]) - even / 2 - even[0] / 2
            first = last - mass[b, there] + even
            values = distinct[there]
            out[begin + b] = np.interp(q * last[-1], np.ravel([first, last], "F"), np.repeat(values, 2))
    return out


def _newton(
    groups: Groups,
    source: Tilted,
    start: Array,
    ratios: Array,
    low: Array,
    high: Array,
    tol: float,
    exact: bool,
) -> tuple[Array, Array, Array, Array]:
    """Newton's method on all resamples side by side: weights, levels, levels on the pilot, largest residuals."""
    count, m = low.shape
    levels, there, residual = np.zeros((count, m)), np.zeros((count, m)), np.full(count, np.inf)
    if not source.joint and any(chunk.part for chunk in source.chunks):
        # Prompts of many thousand candidates come in parts: each resample on its own.
        return np.tile(start, (count, 1)), levels, there, residual
    weights = np.tile(start, (count, 1)) if source.joint else _predicted(source, start, ratios, low, high)
    left = np.arange(count)
    for _ in range(PASSES):
        going: list[int] = []
        for batch in _batches(left):
            at, there[batch], covariance, support = _moments(groups, source, weights[batch], ratios[batch])
            short = residuals(weights[batch], at, low[batch], high[batch])
            for b, here, H, top, miss in zip(batch, at, covariance, support, short, strict=True):
                levels[b], residual[b] = here, np.abs(miss).max(initial=0.0)
                if np.isnan(residual[b]):
                    residual[b] = np.inf
                    continue
                apart = exact and separation(weights[b], float(top), low[b], high[b]) > 1e-8
                if residual[b] > tol and not apart:
                    iterate = Iterate(weights[b], Tilt(0.0, here, H, float(top)), miss, 0)
                    weights[b] = weights[b] + newton_step(iterate, low[b], high[b], 2.0)[0]
                    going.append(int(b))
        left = np.array(going, np.intp)
        if not len(left):
            break
    # What still goes has moved on since it was measured.
    residual[left] = np.inf
    return weights, levels, there, residual


def _predicted(source: Tilted, start: Array, ratios: Array, low: Array, high: Array) -> Array:
    """λ of each resample, (B, m), to third order around `start`: from each prompt's cumulants there, one pass.

    With F to third order a resample costs a product of small matrices, whatever the number of rows.
    """
    m, prompts = source.size, source.prompts
    pairs = np.triu_indices(m)
    triples = np.array([(i, j, k) for i in range(m) for j in range(i, m) for k in range(j, m)], np.intp).T
    sums = np.zeros((prompts, m + len(pairs[0]) + len(triples[0])))
    for chunk in source.chunks:
        axis = chunk.axis + 1
        inside = chunk.tilt(start)[0]
        mean = (chunk.features * inside).sum(axis=axis, keepdims=True)
        away = chunk.features - mean
        two, three = (np.prod([away[i] for i in each], axis=0) for each in (pairs, triples))
        moments = [mean.reshape(m, -1), (two * inside).sum(axis=axis), (three * inside).sum(axis=axis)]
        np.add.at(sums, chunk.prompt, (np.concatenate(moments) * chunk.weight.reshape(-1)).T)
    first, second, third = np.split(ratios @ sums, [m, m + len(pairs[0])], axis=1)
    H = np.zeros((len(ratios), m, m))
    H[:, pairs[0], pairs[1]] = H[:, pairs[1], pairs[0]] = second
    T = np.zeros((len(ratios), m, m, m))
    for i, j, k in permutations(range(3)):
        T[:, triples[i], triples[j], triples[k]] = third

    def stepped(weights: Array, levels: Array, covariance: Array) -> Array:
        miss = residuals(weights, levels, low, high)
        each = zip(weights, levels, covariance, miss, low, high, strict=True)
        return np.array(
            [
                w + newton_step(Iterate(w, Tilt(0.0, s, V, 0.0), p, 0), lo, hi, 2.0)[0]
                for w, s, V, p, lo, hi in each
            ]
        )

    weights = stepped(np.tile(start, (len(ratios), 1)), first, H)
    for _ in range(2):
        step = weights - start
        turn = np.einsum("bijk,bk->bij", T, step)
        # Where the third order would turn the curvature over, the second has to do.
        floor = np.linalg.eigvalsh(H + turn)[:, 0] > 0.2 * np.linalg.eigvalsh(H)[:, 0]
        levels = first + np.einsum("bij,bj->bi", H + turn / 2, step)
        weights = np.where(
            floor[:, None], stepped(weights, levels, np.where(floor[:, None, None], H + turn, H)), weights
        )
    return weights


def _alone(
    source: Tilted, support: Support, start: Array, low: Array, high: Array, tol: float, *, exact: bool
) -> Iterate | None:
    """One resample by the trust region; None where the palette has no finite weights on it."""
    for begin, passes in ((start, 60), (None, 200)):
        at = maximise(source, low, high, begin, tol=tol, max_passes=passes)
        if exact and separation(at.weights, at.tilt.support, low, high) > 1e-8:
            return None
        if at.kkt <= tol:
            break
    # A small residual proves nothing where the palette lies on the edge of reach.
    return at if at.kkt <= tol and gauge(support, low, high).low > 1e-9 else None


def _weighed(groups: Groups, source: Tilted, ratios: Array) -> Tilted:
    """The same rows, each prompt weighing `ratios` (N,) times what it did."""
    if not source.joint:
        chunks = [
            replace(chunk, weight=chunk.weight * ratios[chunk.prompt].reshape(chunk.weight.shape))
            for chunk in source.chunks
        ]
        return replace(source, chunks=tuple(chunks))
    each = np.repeat(ratios, groups.sizes)
    chunks = [replace(chunk, base=chunk.base * each[chunk.rows]) for chunk in source.chunks]
    chunks = [chunk for chunk in chunks if np.any(chunk.base)]
    return replace(source, chunks=(*chunks[:-1], replace(chunks[-1], part=False)))


def _batches(index: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """So many resamples at once that a chunk of rows, times them, stays in the cache."""
    for start in range(0, len(index), BATCH):
        yield index[start : start + BATCH]


_Moments = tuple[Array, Array, Array, Array]


def _moments(groups: Groups, source: Tilted, weights: Array, ratios: Array) -> _Moments:
    """One pass for b resamples, each with its λ (b, m).

    Levels (b, m), what they are where every prompt weighs what it does in the pilot, Hessians (b, m, m), supports (b,).
    """
    return (_joint_moments if source.joint else _prompt_moments)(groups, source, weights, ratios)


def _prompt_moments(groups: Groups, source: Tilted, weights: Array, ratios: Array) -> _Moments:
    count, m = weights.shape
    levels, there, support = np.zeros((count, m)), np.zeros((count, m)), np.zeros(count)
    covariance = np.zeros((count, m, m))
    first, second = np.triu_indices(m)
    for chunk in source.chunks:
        axis = chunk.axis + 1
        flat = chunk.features.reshape(m, -1)
        inside = (weights @ flat).reshape(count, *chunk.rows.shape)
        top = inside.max(axis=axis, keepdims=True)
        inside -= top
        np.exp(inside, out=inside)
        inside /= inside.sum(axis=axis, keepdims=True)
        share = ratios[:, chunk.prompt] * chunk.weight.reshape(-1)
        sums = "kg,bkg->bg" if axis == 1 else "gk,bgk->bg"
        means = np.stack([np.einsum(sums, feature, inside) for feature in chunk.features], axis=1)
        levels += np.einsum("big,bg->bi", means, share)
        there += means @ chunk.weight.reshape(-1)
        support += (share * top.reshape(share.shape)).sum(axis=1)
        inside *= np.expand_dims(share, axis)
        product = inside.reshape(count, -1) @ (flat[first] * flat[second]).T
        covariance[:, first, second] += product
        # Many small products: threads of a linear algebra library would wait for each other.
        between = np.einsum("big,bjg->bij", means * share[:, None], means)
        covariance[:, first, second] -= between[:, first, second]
    covariance[:, second, first] = covariance[:, first, second]
    return levels, there, covariance, support


def _joint_moments(groups: Groups, source: Tilted, weights: Array, ratios: Array) -> _Moments:
    count, m = weights.shape
    owner = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    top, support = np.full(count, -np.inf), np.full(count, -np.inf)
    for chunk in source.chunks:
        scores = weights @ chunk.features.reshape(m, -1)
        drawn = ratios[:, owner[chunk.rows.reshape(-1)]] > 0
        top = np.maximum(top, scores.max(axis=1))
        support = np.maximum(support, scores.max(axis=1, where=drawn, initial=-np.inf))
    totals, ones = np.zeros((2, count)), np.zeros((2, count, m))
    two = np.zeros((count, m, m))
    first, second = np.triu_indices(m)
    for chunk in source.chunks:
        flat = chunk.features.reshape(m, -1)
        base = chunk.base.reshape(-1) if isinstance(chunk.base, np.ndarray) else chunk.base
        inside = np.exp(weights @ flat - top[:, None]) * base
        totals[1] += inside.sum(axis=1)
        ones[1] += inside @ flat.T
        inside *= ratios[:, owner[chunk.rows.reshape(-1)]]
        totals[0] += inside.sum(axis=1)
        ones[0] += inside @ flat.T
        two[:, first, second] += inside @ (flat[first] * flat[second]).T
    two[:, second, first] = two[:, first, second]
    # Nothing is left where a row that was not drawn lies far above all others: no number, so not solved here.
    totals = np.where(totals > 0, totals, np.nan)
    levels, there = ones / totals[:, :, None]
    covariance = two / totals[0][:, None, None] - levels[:, :, None] * levels[:, None, :]
    return levels, there, np.where(np.isnan(covariance), 0.0, covariance), support
