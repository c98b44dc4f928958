# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What moves when a bound moves, or when a reward does: first-order answers around an optimum.

V = ∇²F(λ), inside prompts; "free" are the features with a weight, whose bound is met with equality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valuepalette.tilting import Array, Groups, spread, tilted

__all__ = ["Prices", "prices", "reward_response", "weight_response", "worst_case"]


def weight_response(weights: Array, covariance: Array) -> Array:
    """dλ/dc: +V⁻¹ on the free features, zero elsewhere, shape (m, m).

    Row i is how λ_i moves as the bound of each feature rises. The paper's Theorem 4 (iv) has the sign wrong and V
    over prompts too; the weight of a value *rises* with what is asked of it, as the dual is concave.

    >>> weight_response(np.array([1.0, 0.0]), np.array([[0.5, 0.1], [0.1, 1.0]]))
    array([[2., 0.],
           [0., 0.]])
    """
    free = np.flatnonzero(weights)
    out = np.zeros((len(weights),) * 2)
    inside = np.ix_(free, free)
    out[inside] = np.linalg.pinv(covariance[inside], hermitian=True)
    return out


@dataclass(frozen=True)
class Prices:
    """What a little more of each value costs, the other bounds held; row i is for value i.

    step    (m,) how much more, in the units of the feature; zero for a feature without spread
    kl      (m,) the KL it takes, in nats, to second order
    levels  (m, m) by how much the levels move with it: step on the diagonal, zero for the other free features
    """

    step: Array
    kl: Array
    levels: Array


def prices(weights: Array, covariance: Array, step: Array) -> Prices:
    """The price list at an optimum: value i is asked for `step[i]` more than it has (m,), the free ones are held.

    By the envelope theorem dKL/dc_i = λ_i; the second order is ½ step² / (V_ii − V_if V_ff⁻¹ V_fi), f the other free
    features. A value whose bound is slack costs nothing at first order and only the second when it is asked to rise
    above the level it has. Where nothing is left to move, because the others determine the value, KL is infinite.
    """
    m = len(weights)
    free = weights != 0
    kl, levels = np.zeros(m), np.zeros((m, m))
    for i in range(m):
        held = np.flatnonzero(free & (np.arange(m) != i))
        gain = np.linalg.pinv(covariance[np.ix_(held, held)], hermitian=True) @ covariance[held, i]
        # How the levels move along the one direction of λ that leaves the held ones where they are.
        moved = covariance[:, i] - covariance[:, held] @ gain
        left = moved[i]
        if left <= 1e-12 * max(covariance[i, i], np.finfo(float).tiny):
            kl[i] = np.inf if step[i] else 0.0
            continue
        levels[i] = step[i] * moved / left
        levels[i, held] = 0.0
        kl[i] = weights[i] * step[i] + 0.5 * step[i] ** 2 / left
    return Prices(step, kl, levels)


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

    All expectations are under p_λ. The paper's Theorem 7 has + V⁻¹ E[Δ] and forgets the covariance.
    """
    inside, levels, covariance = _at(groups, weights, joint, block, seed)
    shift = inside @ change
    score = change @ weights
    group_of = (
        np.zeros(len(score), np.intp) if joint else np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    )
    total = np.bincount(group_of, inside)
    mean = np.bincount(group_of, inside * score) / total
    covary = ((groups.values - levels) * (inside * (score - mean[group_of]))[:, None]).sum(axis=0)
    moved = -(shift + covary) + (0.0 if bounds is None else bounds)
    return weight_response(weights, covariance) @ moved


def worst_case(
    groups: Groups, weights: Array, *, joint: bool = False, block: int | None = None, seed: int = 0
) -> tuple[Array, Array]:
    """S_i, shape (m,): if every reward is wrong by at most δ, λ_i moves by at most δ·S_i to first order.

    S_i = Σ_j p_j Σ_k |(V⁻¹)_ik + (V⁻¹(r_j − s_g))_i λ_k|, and the perturbation that attains it for weight i, entries
    ±1, shape (m, n, m) for i, row and feature. It is a first-order figure and no bound for large δ (the paper's
    bounds (11) and (12) are violated in simulation). Without any condition: with λ kept, every true level is within
    δ of the promised one.
    """
    inside, levels, covariance = _at(groups, weights, joint, block, seed)
    response = weight_response(weights, covariance)
    deviation = (groups.values - levels) @ response
    slope = -(response[:, None, :] + deviation.T[:, :, None] * weights[None, None, :])
    return (np.abs(slope).sum(axis=2) @ inside), np.sign(slope)


def _at(
    groups: Groups, weights: Array, joint: bool, block: int | None, seed: int
) -> tuple[Array, Array, Array]:
    """p_j of each row, the level of its group (n, m), and V, at λ."""
    scale = spread(groups, joint=joint)
    exact = joint or block is None or bool((groups.sizes == block).all())
    source = tilted(groups, scale, joint=joint, block=None if exact else block, seed=seed)
    z = weights * source.scale
    inside = source.row_weights(z)
    tilt = source.pass_(z)
    if joint:
        levels = np.broadcast_to(groups.base + source.scale * tilt.levels, groups.values.shape)
    else:
        sums = np.add.reduceat(inside[:, None] * groups.values, groups.starts[:-1], axis=0)
        levels = np.repeat(sums / groups.weights[:, None], groups.sizes, axis=0)
    return inside, levels, tilt.covariance * np.outer(source.scale, source.scale)
