# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How sure one can be of levels, gains and weights: the sandwich over prompts, never over candidates.

Candidates of one prompt stand or fall together, so the prompt is the unit. With influences x_g and weights a_g a
mean Σ a_g x_g has the variance Σ a_g² (x_g − mean)², which for equal weights is Var_g(x_g) / N. In joint mode the
influences of a prompt's rows are summed first and the result is indicative only: with exponential tails a nominal
95 % covers 65 to 90 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from valuepalette.dual import Optimum
from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.tilting import prompt_support, spread

__all__ = [
    "bound_covariance",
    "covariance_of_mean",
    "errors",
    "gain_errors",
    "inverse",
    "level_errors",
    "level_influence",
    "most_influence",
    "reach_error",
    "weight_covariance",
    "weight_limits",
]


def covariance_of_mean(influences: Array, weights: Array) -> Array:
    """Covariance of Σ_g a_g x_g over prompts, (m, m) for influences (N, m); nan with a single prompt.

    >>> float(covariance_of_mean(np.array([[0.0], [2.0]]), np.array([0.5, 0.5]))[0, 0])
    1.0
    """
    deviation = (influences - weights @ influences) * weights[:, None]
    # N / (N − 1) at equal weights: the mean is estimated from the same prompts.
    left = 1 - float(weights @ weights)
    return deviation.T @ deviation / left if left > 1e-12 else np.full((influences.shape[1],) * 2, np.nan)


def errors(by_prompt: Array, weights: Array) -> Array:
    """Standard error of Σ_g a_g x_g for each column of x (M, m) on its own; nan with a single prompt.

    `weights` is a (M,), or (M, m) where columns weigh prompts differently.

    >>> errors(np.array([[0.0], [2.0]]), np.array([0.5, 0.5]))
    array([1.])
    """
    own = np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], by_prompt.shape)
    each = zip(by_prompt.T, own.T, strict=True)
    return np.array([float(covariance_of_mean(x[:, None], a)[0, 0]) ** 0.5 for x, a in each])


def level_errors(groups: Groups, optimum: Optimum, inside: NDArray[np.bool_] | None = None) -> Array:
    """Standard error of each level on new prompts at this λ, shape (m,).

    `inside` (N, m) says which prompts a feature is about, all where it is None: the level of a cohort is a ratio of
    means, and its error, by the delta method, that of a mean over the cohort's own prompts.
    """
    return errors(optimum.prompt_levels, _among(inside, groups.weights))


def gain_errors(groups: Groups, optimum: Optimum, inside: NDArray[np.bool_] | None = None) -> Array:
    """Standard error of level − base, paired by prompt, shape (m,); `inside` as for `level_errors`."""
    return errors(optimum.prompt_levels - groups.means, _among(inside, groups.weights))


def _among(inside: NDArray[np.bool_] | None, weights: Array) -> Array:
    """The weights of the prompts that each feature is about."""
    if inside is None:
        return weights
    own = np.where(inside, weights[:, None], 0.0)
    return own / own.sum(axis=0)


def inverse(covariance: Array) -> Array:
    """V⁻¹, of least norm where features are collinear; formed from correlations, so that units do not matter."""
    unit = np.sqrt(np.diag(covariance))
    unit = np.where(unit > 0, unit, 1.0)
    square = np.outer(unit, unit)
    return np.linalg.pinv(covariance / square, hermitian=True) / square


def weight_covariance(groups: Groups, optimum: Optimum, lower: Array, upper: Array) -> Array:
    """Cov(λ̂) = V⁻¹ S V⁻¹ on the weights that are not zero, zero elsewhere; shape (m, m).

    S is the covariance of the mean of s_g − ψ_g. `lower` and `upper` (N, m) are ψ, the influence of each prompt on
    the bounds, as `palette.Resolved` has it: a bound that came from the pilot moves with it.
    """
    free = np.flatnonzero(optimum.weights)
    out = np.zeros((len(optimum.weights),) * 2)
    if not len(free):
        return out
    influence = np.where(optimum.weights > 0, lower, upper)
    # V⁻¹ before the squares: so no rounding can make a variance negative.
    bread = inverse(optimum.covariance[np.ix_(free, free)])
    moved = (optimum.prompt_levels - influence)[:, free] @ bread
    out[np.ix_(free, free)] = covariance_of_mean(moved, groups.weights)
    return out


def bound_covariance(groups: Groups, optimum: Optimum, influence: Array) -> Array:
    """Covariance of level − bound on new prompts at this λ, shape (m, m): that of the mean of s_g − ψ_g.

    `influence` (N, m) is ψ. For a number its diagonal is the square of `level_errors`, for "keep" that of
    `gain_errors`: a bound that came from the pilot moves with it, and much of the error cancels.
    """
    return covariance_of_mean(optimum.prompt_levels - influence, groups.weights)


def level_influence(optimum: Optimum, influence: Array) -> Array:
    """How each prompt moves the levels of an optimum that is solved anew, shape (N, m): δ of `levels`, λ free to move.

    The levels that bind follow their bounds, ψ; the others their own prompt at this λ and, as λ moves, those that bind.
    """
    free = np.flatnonzero(optimum.weights)
    short = (influence - optimum.prompt_levels)[:, free]
    V = optimum.covariance
    return optimum.prompt_levels + short @ inverse(V[np.ix_(free, free)]) @ V[free]


def most_influence(
    groups: Groups, optimum: Optimum, i: int, influence: Array, *, joint: bool, block: int | None, seed: int
) -> Array:
    """ψ of the level that "max" found for feature i, shape (N,): what each prompt adds to it, by the envelope.

    The most of E r_i for B nats with the other bounds c_j held is min over λ_i > 0 and λ_j of

        (F(λ) + B − Σ_j≠i λ_j c_j) / λ_i,

    so that what moves it are F and the bounds that bind: ψ_g = (F_g(λ) + B − Σ_j≠i λ_j ψ_jg) / λ_i. `influence` (N, m)
    is ψ of those. Where reach ends before the budget λ_i is so large that F_g / λ_i is the prompt's own reach.
    """
    weights = optimum.weights
    scale = spread(groups, joint=joint)
    if joint:
        rows = tilted(groups, scale, joint=True).row_weights(weights * np.where(scale > 0, scale, 1.0))
        own = np.add.reduceat(rows, groups.starts[:-1]) / groups.weights - 1 + optimum.log_partition
    else:
        block = None if block is None or (groups.sizes == block).all() else block
        source = tilted(groups, scale, block=block, seed=seed)
        own = source.log_partitions(weights * source.scale) + groups.means @ weights
    others = np.where(np.arange(len(weights)) == i, 0.0, weights)
    return (own + optimum.kl - influence @ others) / weights[i]


def weight_limits(weights: Array, covariance: Array, short: Array, bounds: Array, deviations: float) -> Array:
    """How far from zero a weight that is zero could be, shape (m,); zero elsewhere.

    covariance  V, (m, m)
    short       bound − level of the bound that would bind first, below zero under a slack lower bound, above zero over
                a slack upper one; nan where nothing is asked
    bounds      covariance of level − bound, (m, m), as `bound_covariance` has it

    Were the bound an equality, the weight would be about (V⁻¹ short)_i, V over the free weights and i, with the
    sandwich error; its end on the allowed side, `deviations` errors further, is the limit: one-sided, 0 if not even
    that has the sign. A weight of zero is no estimate with an error: it is the edge of what is allowed.

    >>> one, error = np.ones((1, 1)), np.full((1, 1), 0.01)
    >>> weight_limits(np.zeros(1), one, np.array([-0.05]), error, 2.0).round(3).tolist()
    [0.15]
    >>> weight_limits(np.zeros(1), one, np.array([-0.5]), error, 2.0).tolist()
    [0.0]
    """
    out = np.zeros(len(weights))
    for i in np.flatnonzero((weights == 0) & ~np.isnan(short)):
        free = np.flatnonzero((weights != 0) | (np.arange(len(weights)) == i))
        inside = np.ix_(free, free)
        own = inverse(covariance[inside])[free == i][0]
        error = float(np.sqrt(max(own @ bounds[inside] @ own, 0.0)))
        reach = deviations * error - abs(float(own[free == i][0] * short[i]))
        out[i] = -np.sign(short[i] or -1.0) * max(reach, 0.0)
    return out


def reach_error(
    groups: Groups,
    direction: Array,
    block: int | None,
    lower: Array,
    upper: Array,
    inside: NDArray[np.bool_] | None = None,
) -> float:
    """Standard error of a certificate's gap: of σ(d) − d⁺ᵀlower + d⁻ᵀupper over prompts.

    `block` is k, None for all candidates; `lower`, `upper` (N, m) as for `weight_covariance`; `inside` as for
    `level_errors`. Where features are about different prompts, the shares of their cohorts are taken as given.
    """
    influence = np.where(direction > 0, lower, upper)
    by_prompt = prompt_support(groups, direction, block) - influence @ direction
    if inside is not None:
        kinds = np.unique(inside[:, direction != 0], axis=0, return_inverse=True)[1].ravel()
        means = np.bincount(kinds, groups.weights * by_prompt) / np.bincount(kinds, groups.weights)
        by_prompt = by_prompt - means[kinds]
    return float(np.sqrt(covariance_of_mean(by_prompt[:, None], groups.weights)[0, 0]))
