# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What a decoder of k candidates gives on average over every choice of k among the candidates that are there.

Among a set S of k candidates with scores s the decoder takes j with the chance w_j / Σ_S w, w = e^s. Averaged over all
C(K, k) sets S of a prompt's K candidates this is one integral (1/Σ = ∫ e^{−tΣ} dt, then t = e^u):

    P(j) = ∫ t w_j q_j ∂Ē_k/∂q_j du,   q_i = exp(−t w_i),   Ē_k = e_k(q_1 … q_K) / C(K, k)

and so is the mean of log Σ_S w, by Frullani's formula: ∫ exp(−t) − Ē_k du. The trapezoid rule in u errs by no more
than 2 |Γ(1 + 2πi/STEP)| P(j), about 1e-13 P(j), whatever the weights: the integrand of each set is the same curve,
t Σ_S e^{−t Σ_S} up to a shift, and |Γ(1 + iω)| is its Fourier transform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array, Groups

__all__ = ["Expected", "expect", "subset_choice"]

STEP = 0.3
"""Of the trapezoid rule, in log t."""
TAIL = 33.0
"""How far below the first scale the grid starts, in log t: e^−33 = 5e-15 of the integral lies before it."""
GAP = 40.0
"""Neighbouring scores further apart than this are as good as infinitely far: e^−40 = 4e-18."""
ROOM = 4_000_000
"""Numbers in the largest table held at once."""


@dataclass(frozen=True)
class Expected:
    """What a decoder of k candidates gives, exactly, by the candidates of a pilot.

    probabilities  (n,) of each row to be the answer; they sum to one over each prompt
    prompt_levels  (N, m) level of each prompt, in the features' units
    levels         (m,) their weighted mean, the gradient of `log_partition` by λ
    log_partition  Σ_g a_g E_S log mean_S exp(λᵀr)
    kl             of the decoder's choice from a uniform one among its k candidates, nats
    effective      k exp(−kl): how many of the k candidates are in play
    """

    candidates: int
    probabilities: Array
    prompt_levels: Array
    levels: Array
    log_partition: float
    kl: float

    @property
    def effective(self) -> float:
        return self.candidates * float(np.exp(-self.kl))


def expect(groups: Groups, weights: Array, k: int, faces: Array | None = None) -> Expected:
    """The levels and the KL of a decoder that draws k candidates and takes j with the chance softmax_j(λᵀr_j).

    Averaged over all subsets of k of each prompt's candidates, to 1e-11 of the spread among a prompt's candidates.

    weights  λ, shape (m,)
    faces    (r, m) directions of a lexicographic choice, as a BOUNDARY has: the largest of the first direction, among
             those the largest of the second …, then the softmax

    Raises ValueError where k is not between 1 and the candidates of each prompt.

    >>> groups = Groups(np.array([[0.0], [1.0], [2.0]]), np.array([0, 3]), np.ones(1))
    >>> found = expect(groups, np.array([1000.0]), 2)
    >>> found.probabilities.round(6), float(found.levels[0].round(6))
    (array([0.      , 0.333333, 0.666667]), 1.666667)
    """
    if not 1 <= k <= groups.sizes.min():
        raise ValueError(f"k must lie between 1 and the {groups.sizes.min()} candidates of a prompt, got {k}")
    # From differences, so that a large common offset costs no digits.
    apart = groups.values - np.repeat(groups.means, groups.sizes, axis=0)
    scores = apart @ weights
    chances, kl = np.empty(len(scores)), np.empty(len(groups.sizes))
    for size in np.unique(groups.sizes):
        which = np.flatnonzero(groups.sizes == size)
        rows = groups.starts[which][:, None] + np.arange(size)
        plane = scores[rows]
        for face in reversed([] if faces is None else list(faces)):
            plane = _before(apart[rows] @ face, _rounding(groups, rows, face), plane)
        chances[rows], kl[which] = subset_choice(plane, k)
    away = groups.sums(groups.means, chances)
    levels = groups.base + groups.weights @ away
    mean_kl = float(groups.weights @ kl)
    log_partition = float(weights @ levels) - mean_kl
    return Expected(k, chances, groups.means + away, levels, log_partition, mean_kl)


def subset_choice(scores: Array, k: int) -> tuple[Array, Array]:
    """The chance of each candidate to be taken, (G, K), and the KL of the choice from a uniform one, (G,), in nats.

    From scores (G, K) of G prompts with K candidates each; k of them are drawn without replacement and one is taken by
    their softmax. Scores may be as far apart as they like: then it is the largest that is taken.

    >>> subset_choice(np.array([[0.0, 0.0, 0.0]]), 2)[0].round(6)
    array([[0.333333, 0.333333, 0.333333]])
    """
    prompts, size = scores.shape
    order = np.argsort(scores, axis=1)
    steps = np.minimum(np.diff(np.take_along_axis(scores, order, axis=1), axis=1), GAP)
    # Ascending and at most zero; only neighbours far apart have moved closer.
    levels = np.zeros((prompts, size))
    levels[:, :-1] = -np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
    chances, logs = np.empty((prompts, size)), np.empty(prompts)
    if k == size:
        odds = np.exp(levels)
        total = odds.sum(axis=1)
        chances, logs = odds / total[:, None], np.log(total / k)
    else:
        # Prompts alike in width share a grid, which must reach to the weakest set: the k lowest.
        width = -levels[:, k - 1]
        left = np.argsort(-width)
        while len(left):
            nodes = int((TAIL + np.log(k) + width[left[0]] + np.log(GAP)) / STEP) + 2
            some, left = np.split(left, [max(1, ROOM // ((size + 1) * (k + 1) * nodes))])
            chances[some], logs[some] = _integrated(levels[some], k, nodes)
        chances /= chances.sum(axis=1, keepdims=True)
    kl = np.maximum((chances * levels).sum(axis=1) - logs, 0.0)
    out = np.empty_like(chances)
    np.put_along_axis(out, order, chances, axis=1)
    return out, kl


def _integrated(levels: Array, k: int, nodes: int) -> tuple[Array, Array]:
    """P and the mean of log mean_S w for scores (G, K) whose largest is zero."""
    size = levels.shape[1]
    at = STEP * np.arange(nodes) - TAIL - np.log(k)
    # t w, candidates first; beyond e^10 all that is left of exp(−t w) is zero.
    rate = np.exp(np.minimum(levels.T[:, :, None] + at, 10.0))
    left = np.exp(-rate)
    # tables[n][r] = e_r(q_1 … q_n) / C(n, r): the mean over sets of r of the first n, between 0 and 1.
    table = np.zeros((size + 1, k + 1, *rate.shape[1:]))
    table[0, 0] = 1.0
    for n in range(1, size + 1):
        top = min(n, k)
        share = (np.arange(1, top + 1) / n)[:, None, None]
        table[n, 0] = 1.0
        table[n, 1 : top + 1] = (1 - share) * table[n - 1, 1 : top + 1]
        table[n, 1 : top + 1] += share * left[n - 1] * table[n - 1, :top]
    # Backwards: slope[r] is the derivative of the last entry by tables[n][r].
    slope = np.zeros(table.shape[1:])
    slope[k] = 1.0
    chances = np.empty(levels.shape)
    for n in range(size, 0, -1):
        low, top = max(1, k - (size - n)), min(n, k)
        share = (np.arange(low, top + 1) / n)[:, None, None]
        moved = share * slope[low : top + 1]
        part = (moved * table[n - 1, low - 1 : top]).sum(axis=0)
        chances[:, n - 1] = STEP * (rate[n - 1] * left[n - 1] * part).sum(axis=1)
        slope[low : top + 1] -= moved
        slope[low - 1 : top] += moved * left[n - 1]
    logs = STEP * (np.exp(-np.exp(np.minimum(at, 10.0))) - table[size, k]).sum(axis=1)
    return chances, logs - np.log(k)


def _before(first: Array, rounding: Array, then: Array) -> Array:
    """Scores whose softmax is that of `then` among those largest in `first`, which are equal up to `rounding`."""
    order = np.argsort(first, axis=1)
    steps = np.diff(np.take_along_axis(first, order, axis=1), axis=1) > rounding[:, None]
    rank = np.zeros(first.shape)
    np.put_along_axis(rank, order[:, 1:], np.cumsum(steps, axis=1), axis=1)
    width = then.max(axis=1) - then.min(axis=1) + 2 * GAP
    return rank * width[:, None] + then


def _rounding(groups: Groups, rows: NDArray[np.intp], face: Array) -> Array:
    """What rounding may have moved of dᵀr, (G,)."""
    noise = 1e-9 * groups.spreads[0]
    largest = np.abs(groups.values[rows]).max(axis=1)
    return (noise + 8 * np.finfo(float).eps * largest) @ np.abs(face)
