# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What moves when a bound moves, or when a reward does: first-order answers around an optimum.

V = ∇²F(λ), inside prompts; "held" are the features with a weight, whose bound is met with equality.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.tilting import spread
from valuepalette.uncertainty import inverse

__all__ = ["Prices", "lasting", "prices", "reward_response", "reward_slopes", "weight_response", "worst_case"]


def weight_response(weights: Array, covariance: Array) -> Array:
    """dλ/dc: +V⁻¹ on the held features, zero elsewhere, shape (m, m).

    Row i is how λ_i moves as the bound of each feature rises. The paper's Theorem 4 (iv) has the sign wrong and V
    over prompts too; the weight of a value *rises* with what is asked of it, as the dual is concave.

    >>> weight_response(np.array([1.0, 0.0]), np.array([[0.5, 0.1], [0.1, 1.0]]))
    array([[2., 0.],
           [0., 0.]])
    """
    held = np.flatnonzero(weights)
    out = np.zeros((len(weights),) * 2)
    inside = np.ix_(held, held)
    out[inside] = inverse(covariance[inside])
    return out


@dataclass(frozen=True)
class Prices:
    """What a step in the level of each feature costs, the other bounds held; row i is for a step of feature i.

    step     (m,) in the units of the feature
    kl       (m,) the KL it takes, in nats, to second order; negative where it sets KL free
    levels   (m, m) by how much the levels move with it: step on the diagonal, zero for the held features
    weights  (m, m) by how much the weights do, to first order
    """

    step: Array
    kl: Array
    levels: Array
    weights: Array


def prices(weights: Array, covariance: Array, step: Array) -> Prices:
    """The price list at an optimum: the level of feature i is moved by `step[i]` (m,), the held ones stay.

    By the envelope theorem dKL/dc_i = λ_i; the second order is ½ step² / (V_ii − V_if V_ff⁻¹ V_fi), f the other held
    features. A feature whose bound is slack costs nothing at first order, and the second when it is asked to leave
    the level it has. Where nothing is left to move, because the others determine the feature, KL is infinite.

    >>> cost = prices(np.array([1.0, 0.0]), np.array([[0.5, 0.1], [0.1, 1.0]]), np.array([0.1, 0.1]))
    >>> cost.kl.round(4), cost.levels.round(4)
    (array([0.11  , 0.0051]), array([[0.1 , 0.02],
       [0.  , 0.1 ]]))
    """
    m = len(weights)
    kl, levels, moves = np.zeros(m), np.zeros((m, m)), np.zeros((m, m))
    for i in range(m):
        held = np.flatnonzero((weights != 0) & (np.arange(m) != i))
        gain = inverse(covariance[np.ix_(held, held)]) @ covariance[held, i]
        # How the levels move along the one direction of λ that leaves the held ones where they are.
        moved = covariance[:, i] - covariance[:, held] @ gain
        left = moved[i]
        if left <= 1e-12 * max(covariance[i, i], np.finfo(float).tiny):
            kl[i] = np.inf if step[i] else 0.0
            continue
        levels[i] = step[i] * moved / left
        levels[i, held] = 0.0
        moves[i, i], moves[i, held] = step[i] / left, -step[i] / left * gain
        kl[i] = weights[i] * step[i] + 0.5 * step[i] ** 2 / left
    return Prices(step, kl, levels, moves)


def lasting(cost: Prices, weights: Array, levels: Array, lower: Array, upper: Array) -> Array:
    """How many steps of each feature (m,) the prices hold for: up to where a bound begins or ceases to bind.

    To first order, so it says where to solve again, no more. Infinite where nothing ever stands in the way; all in
    the units of the features, shape (m,).
    """
    m = len(weights)
    out = np.full(m, np.inf)
    room = np.where(cost.levels < 0, levels - lower, upper - levels)
    for i in range(m):
        others = (np.arange(m) != i) & (weights == 0) & (cost.levels[i] != 0)
        meets = np.maximum(room[i, others], 0.0) / np.abs(cost.levels[i, others])
        # An equality holds whatever the sign of its weight.
        ebbs = (weights * cost.weights[i] < 0) & (lower < upper)
        ends = -weights[ebbs] / cost.weights[i, ebbs]
        out[i] = min(meets.min(initial=np.inf), ends.min(initial=np.inf))
    return out


def reward_response(
    groups: Groups,
    weights: Array,
    change: Array,
    *,
    bounds: Array | None = None,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
) -> Array:
    """dλ along a change Δ = r − r0 of the rewards, shape (m,): −V⁻¹ (E[Δ] + E_x Cov(r, λᵀΔ)) + V⁻¹ dc.

    change  (n, m) Δ for each row of `groups`
    bounds  (m,) dc, by how much the bounds move along because they came from the pilot; None for not at all
    joint, block, seed   as for `optimise`, at whose optimum λ must be

    All expectations are under p_λ. The paper's Theorem 7 has + V⁻¹ E[Δ] and forgets the covariance.
    """
    inside, pull, response = _at(groups, weights, joint, block, seed)
    moved = inside @ change + pull.T @ (change @ weights)
    return response @ (-moved if bounds is None else bounds - moved)


def reward_slopes(
    groups: Groups, weights: Array, *, joint: bool = False, block: int | None = None, seed: int = 0
) -> Iterator[Array]:
    """dλ_i/dr for each weight in turn, shape (n, m): how fast it moves with one number of one row, bounds kept."""
    inside, pull, response = _at(groups, weights, joint, block, seed)
    for towards, reach in zip(response, (pull @ response).T, strict=True):
        yield -(inside[:, None] * towards + reach[:, None] * weights)


def worst_case(
    groups: Groups, weights: Array, *, joint: bool = False, block: int | None = None, seed: int = 0
) -> Array:
    """S_i, shape (m,): if every reward is wrong by at most δ, λ_i moves by at most δ·S_i to first order.

    S_i = Σ_j p_j Σ_k |(V⁻¹)_ik + (V⁻¹(r_j − s_g))_i λ_k|, attained by the signs of `reward_slopes`. It is a first-order
    figure and no bound for large δ (the paper's bounds (11) and (12) are violated in simulation). Without any
    condition: with λ kept, every true level is within δ of the promised one.

    >>> coin = Groups(np.array([[0.0], [1.0]]), np.array([0, 2]), np.ones(1))
    >>> worst_case(coin, np.array([np.log(3)])).round(4)        # V = 3/16
    array([5.3333])
    """
    slopes = reward_slopes(groups, weights, joint=joint, block=block, seed=seed)
    return np.array([np.abs(slope).sum() for slope in slopes])


def _at(
    groups: Groups, weights: Array, joint: bool, block: int | None, seed: int
) -> tuple[Array, Array, Array]:
    """At λ: how fast the levels rise with a row's rewards (n,) and with its λᵀr (n, m), and dλ/dc."""
    exact = joint or block is None or bool((groups.sizes == block).all())
    scale = spread(groups, joint=joint)
    source = tilted(groups, scale, joint=joint, block=None if exact else block, seed=seed)
    z = weights * source.scale
    # At λ = 0 the same probabilities give what blocks leave out of a prompt's mean.
    inside = source.row_weights(z) - source.row_weights(np.zeros(len(z))) + groups.row_weights
    covariance = source.pass_(z).covariance * np.outer(source.scale, source.scale)
    return inside, source.row_deviations(z) * source.scale, weight_response(weights, covariance)
