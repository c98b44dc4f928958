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

from valuepalette.dual import Optimum
from valuepalette.tilting import Array, Groups, prompt_support

__all__ = ["covariance_of_mean", "gain_errors", "level_errors", "reach_error", "weight_covariance"]


def covariance_of_mean(influences: Array, weights: Array) -> Array:
    """Covariance of Σ_g a_g x_g over prompts, (m, m) for influences (N, m); nan with a single prompt.

    >>> float(covariance_of_mean(np.array([[0.0], [2.0]]), np.array([0.5, 0.5]))[0, 0])
    1.0
    """
    deviation = (influences - weights @ influences) * weights[:, None]
    # N / (N − 1) at equal weights: the mean is estimated from the same prompts.
    left = 1 - float(weights @ weights)
    return deviation.T @ deviation / left if left > 1e-12 else np.full((influences.shape[1],) * 2, np.nan)


def level_errors(groups: Groups, optimum: Optimum) -> Array:
    """Standard error of each level on new prompts at this λ, shape (m,)."""
    return np.sqrt(np.diag(covariance_of_mean(optimum.prompt_levels, groups.weights)))


def gain_errors(groups: Groups, optimum: Optimum) -> Array:
    """Standard error of level − base, paired by prompt, shape (m,)."""
    return np.sqrt(np.diag(covariance_of_mean(optimum.prompt_levels - groups.means, groups.weights)))


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
    S = covariance_of_mean((optimum.prompt_levels - influence)[:, free], groups.weights)
    inverse = np.linalg.pinv(optimum.covariance[np.ix_(free, free)], hermitian=True)
    out[np.ix_(free, free)] = inverse @ S @ inverse
    return out


def reach_error(groups: Groups, direction: Array, block: int | None, lower: Array, upper: Array) -> float:
    """Standard error of a certificate's gap: of σ(d) − d⁺ᵀlower + d⁻ᵀupper over prompts.

    `block` is k, None for all candidates; `lower`, `upper` (N, m) as for `weight_covariance`.
    """
    influence = np.where(direction > 0, lower, upper)
    by_prompt = prompt_support(groups, direction, block) - influence @ direction
    return float(np.sqrt(covariance_of_mean(by_prompt[:, None], groups.weights)[0, 0]))
