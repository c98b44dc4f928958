"""From a pilot and a palette to weights: the only place where pilot, palette and mathematics meet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from valuepalette.certificates import certificate_sentence
from valuepalette.dual import Certificate, Optimum, Status, evaluate_at, optimise
from valuepalette.feasibility import farthest
from valuepalette.folders import digest
from valuepalette.palette import Palette, Resolved, resolve
from valuepalette.pilot import Pilot
from valuepalette.tilting import Array, Groups, prompt_support, spread, tilted
from valuepalette.uncertainty import gain_errors, level_errors, reach_error, weight_covariance

__all__ = [
    "Figures",
    "Infeasible",
    "Proof",
    "Reach",
    "Solution",
    "levels",
    "prompt_digests",
    "reach",
    "solve",
]

Candidates = int | Literal["limit"] | None


class Figures(Mapping[str, float]):
    """One number per feature, by name, with its standard error.

    array  (m,) the numbers
    se     (m,) standard errors over prompts; nan where none is to be had
    error  (m,) of weights alone: the proved bound on the numerical error, nan where nothing is proved

    >>> levels = Figures(("humor", "tone"), np.array([2.5, 0.1]), np.array([0.02, 0.01]))
    >>> levels["humor"], levels
    (2.5, humor 2.5 ± 0.02, tone 0.1 ± 0.01)
    """

    def __init__(
        self, names: Sequence[str], array: Array, se: Array | None = None, error: Array | None = None
    ) -> None:
        self.names = tuple(names)
        self.array = array
        self.se = np.full(len(array), np.nan) if se is None else se
        self.error = np.full(len(array), np.nan) if error is None else error

    def __getitem__(self, name: str) -> float:
        if name not in self.names:
            raise KeyError(f"{name!r} is none of {', '.join(self.names)}")
        return float(self.array[self.names.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        def one(name: str, value: float, se: float) -> str:
            return f"{name} {value:.4g}" + ("" if np.isnan(se) else f" ± {se:.2g}")

        return ", ".join(one(*row) for row in zip(self.names, self.array, self.se, strict=True))


@dataclass(frozen=True)
class Proof:
    """Why a palette cannot be had; `str()` is the sentence.

    directions  d, Σ|d_i| = 1, by feature
    asked       what the palette asks of dᵀlevel
    reach       the most that any choice among the candidates makes it, on this pilot
    gap         asked − reach > 0
    se          standard error of the gap over prompts; nan in joint mode
    margin      s*: the common slack the bounds lack, in within-group standard deviations; negative
    sentence    all of it in words, with the cause
    """

    directions: Figures
    asked: float
    reach: float
    gap: float
    se: float
    margin: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Infeasible(ValueError):  # noqa: N818 - a verdict, by its public name
    """The palette cannot be had on this pilot. `certificate` proves it, `solution` holds the rest."""

    def __init__(self, solution: Solution) -> None:
        super().__init__(str(solution.certificate))
        self.solution = solution
        self.certificate = solution.certificate


@dataclass(frozen=True, eq=False)
class Solution:
    """The weights of a palette, what they promise, and how sure that is.

    Of an INFEASIBLE palette weights, levels and gains say where the search ended, which is no answer to anything.

    status        Status; its text says what to do
    resolved      the palette on the pilot: features, bounds, base levels, quantile grid
    weights       λ by feature; `.se` over prompts, `.error` the proved numerical bound
    levels        E_λ r by feature, for new prompts from where the pilot's came; gains likewise, against the base
    mode          "prompt" (answers are re-weighted) or "joint" (prompts too)
    weighting     of the prompts: "prompts", "rows", or a column
    candidates    k the weights are calibrated for, "limit" for k → ∞, None in joint mode
    kl            KL(p_λ ‖ p_0), nats, over the pilot's prompts (biased upwards on the pilot that was solved)
    ess           Kish's effective number of candidates
    prompts       N
    covariance    V = ∇²F(λ), (m, m); weight_covariance is Cov(λ̂)
    spread        (m,) standard deviation of each feature within prompts, the unit of tolerances
    faces         (r, m) directions of the lexicographic choice on a BOUNDARY, first to last
    fingerprint   model, sampling, system prompt and rewards of the pilot: what a decoder must match
    """

    status: Status
    resolved: Resolved
    weights: Figures
    levels: Figures
    gains: Figures
    mode: Literal["prompt", "joint"]
    weighting: str
    candidates: Candidates
    seed: int
    kl: float
    ess: float
    prompts: int
    covariance: Array
    weight_covariance: Array
    spread: Array
    faces: Array
    kkt_residual: float
    passes: int
    certificate: Proof | None
    fingerprint: Mapping[str, Any]
    margin_of: Callable[[], float] = field(repr=False)
    seen_of: Callable[[], frozenset[str]] = field(default=frozenset, repr=False)

    @property
    def features(self) -> tuple[str, ...]:
        return self.resolved.features

    @property
    def asked(self) -> dict[str, str]:
        """The palette's entries by feature, "free" where nothing is asked."""
        return dict(zip(self.features, self.resolved.asked, strict=True))

    @property
    def lower(self) -> Array:
        return self.resolved.lower

    @property
    def upper(self) -> Array:
        return self.resolved.upper

    @property
    def base(self) -> Figures:
        """c0, the levels of the base model."""
        return Figures(self.features, self.resolved.base)

    @property
    def effective(self) -> float:
        """k·exp(−KL): how many of the k candidates are still in play; nan where there is no k."""
        return self.candidates * float(np.exp(-self.kl)) if isinstance(self.candidates, int) else np.nan

    @cached_property
    def margin(self) -> float:
        """s*: by how much every bound could be tightened at once, in within-group standard deviations."""
        return self.margin_of()

    @cached_property
    def seen(self) -> frozenset[str]:
        """Digests of the pilot's prompts, so that an answer to one of them is recognised."""
        return self.seen_of()

    def probabilities(self, features: Array) -> Array:
        """The chance of each of k candidates of one prompt to be the answer, shape (k,), for features (k, m).

        softmax_j(λᵀf_j); on a BOUNDARY first the candidates that maximise each face in turn, softmax among them.
        """
        if features.ndim != 2 or features.shape[1] != len(self.features) or not len(features):
            raise ValueError(
                f"features must have shape (k, {len(self.features)}), k at least 1, got {features.shape}"
            )
        if not np.isfinite(features).all():
            raise ValueError("features must be finite, got nan or an infinite number")
        # From differences, so that a large common offset costs no digits.
        apart = features - features[0]
        rounding = 1e-9 * self.spread + 8 * np.finfo(float).eps * np.abs(features).max(axis=0)
        kept = np.ones(len(features), bool)
        for face in self.faces:
            scores = apart @ face
            kept &= scores >= scores[kept].max() - float(np.abs(face) @ rounding)
        scores = np.where(kept, apart @ self.weights.array, -np.inf)
        chance = np.exp(scores - scores.max())
        return chance / chance.sum()

    def save(self, path: str | Path) -> None:
        """Write everything that evaluation and serving need, as JSON; `load` reads it back."""
        temporary = Path(f"{path}.tmp")
        temporary.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)

    def to_dict(self) -> dict[str, Any]:
        """JSON without nan: a number that is not to be had is null, an infinite one is "inf" or "-inf"."""
        proof = self.certificate
        return {
            "valuepalette": "solution",
            "status": self.status.name,
            "resolved": self.resolved.to_dict(),
            "weights": _listed(self.weights.array),
            "weights_error": _listed(self.weights.error),
            "levels": _listed(self.levels.array),
            "levels_se": _listed(self.levels.se),
            "gains": _listed(self.gains.array),
            "gains_se": _listed(self.gains.se),
            "mode": self.mode,
            "weighting": self.weighting,
            "candidates": self.candidates,
            "seed": self.seed,
            "kl": self.kl,
            "ess": self.ess,
            "prompts": self.prompts,
            "covariance": _listed(self.covariance),
            "weight_covariance": _listed(self.weight_covariance),
            "spread": _listed(self.spread),
            "faces": _listed(self.faces),
            "kkt_residual": self.kkt_residual,
            "passes": self.passes,
            "margin": _listed(np.array(self.margin)),
            "certificate": None
            if proof is None
            else {
                "directions": _listed(proof.directions.array),
                "asked": proof.asked,
                "reach": proof.reach,
                "gap": proof.gap,
                "se": _listed(np.array(proof.se)),
                "margin": proof.margin,
                "sentence": proof.sentence,
            },
            "fingerprint": dict(self.fingerprint),
            "seen": sorted(self.seen),
        }

    @classmethod
    def load(cls, path: str | Path) -> Solution:
        """What `save` wrote; a file that is something else is refused with one line."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data.get("valuepalette") != "solution":
                raise ValueError("it is no solution")
            return cls.from_dict(data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"path must name a solution written by save, got {path}: {error}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Solution:
        """What `to_dict` made."""
        resolved = Resolved.from_dict(data["resolved"])
        names, m = resolved.features, len(resolved.features)
        covariance = _array(data["weight_covariance"])
        proof = data["certificate"]
        margin, seen = float(_array(data["margin"])), frozenset(data["seen"])
        return cls(
            status=Status[data["status"]],
            resolved=resolved,
            weights=Figures(
                names, _array(data["weights"]), np.sqrt(np.diag(covariance)), _array(data["weights_error"])
            ),
            levels=Figures(names, _array(data["levels"]), _array(data["levels_se"])),
            gains=Figures(names, _array(data["gains"]), _array(data["gains_se"])),
            mode=data["mode"],
            weighting=data["weighting"],
            candidates=data["candidates"],
            seed=data["seed"],
            kl=data["kl"],
            ess=data["ess"],
            prompts=data["prompts"],
            covariance=_array(data["covariance"]),
            weight_covariance=covariance,
            spread=_array(data["spread"]),
            faces=_array(data["faces"]).reshape(-1, m),
            kkt_residual=data["kkt_residual"],
            passes=data["passes"],
            certificate=None
            if proof is None
            else Proof(
                Figures(names, _array(proof["directions"])),
                proof["asked"],
                proof["reach"],
                proof["gap"],
                float(_array(proof["se"])),
                proof["margin"],
                proof["sentence"],
            ),
            fingerprint=data["fingerprint"],
            margin_of=lambda: margin,
            seen_of=lambda: seen,
        )

    @classmethod
    def from_weights(
        cls,
        pilot: Pilot,
        weights: Mapping[str, float],
        candidates: Candidates = None,
        *,
        mode: Literal["prompt", "joint"] | None = None,
        weighting: str = "prompts",
        seed: int = 0,
    ) -> Solution:
        """The forward map: what given λ do. Values that are not named have weight zero.

        Its status is OPTIMAL: it is the optimum of the palette that asks for the levels it has.
        """
        if unknown := [name for name in weights if name not in pilot.values]:
            raise ValueError(
                f"weights must name values of the pilot ({', '.join(pilot.values)}), got {unknown[0]!r}"
            )
        try:
            at = np.array([float(w) for w in weights.values()])
        except (TypeError, ValueError):
            at = np.array([np.nan])
        if not np.isfinite(at).all():
            raise ValueError(f"weights must be finite numbers, got {dict(weights)}")
        setup = _set_up(
            pilot, Palette(dict.fromkeys(weights or pilot.values, "free")), candidates, mode, weighting, seed
        )
        raw = np.zeros(len(setup.resolved.features))
        raw[: len(at)] = at
        optimum = setup.evaluate(raw, setup.block)
        if setup.candidates == "limit":
            optimum = _extrapolated(optimum, setup.evaluate(raw, setup.half))
        return _solution(setup, optimum)

    def __str__(self) -> str:
        lines = [f"{self.status.name}: {self.status.value}"]
        if self.certificate is not None:
            lines.append(str(self.certificate))
        width = max(7, *(len(name) for name in self.features))
        wide = max(5, *(len(text) for text in self.resolved.asked))
        columns = {"base": self.resolved.base}
        k = "" if self.candidates is None else f"k = {self.candidates}, "
        foot = f"{self.mode} mode, {k}{self.prompts:,} prompts"
        if self.status is not Status.INFEASIBLE:
            columns |= {"level": self.levels.array, "± se": self.levels.se}
            # What the solver's tolerance leaves of a bound that is met is no gain.
            gains = np.where(np.abs(self.gains.array) <= 1e-8 * self.spread, 0.0, self.gains.array)
            columns |= {"gain": gains, "weight": self.weights.array}
            foot += f", KL {self.kl:.3f} nats"
            if not np.isnan(self.effective):
                foot += f" ({self.effective:.1f} of {self.candidates} candidates in play)"
            foot += "; standard errors are indicative" if self.mode == "joint" else ""
        lines += ["", f"{'':{width}}  {'asked':{wide}}" + "".join(f"{head:>11}" for head in columns)]
        for name, text, *numbers in zip(self.features, self.resolved.asked, *columns.values(), strict=True):
            lines.append(f"{name:{width}}  {text:{wide}}" + "".join(f"{_cell(x):>11}" for x in numbers))
        return "\n".join([*lines, "", foot])


def _cell(number: float) -> str:
    """A number in at most ten characters; nothing where there is none."""
    if np.isnan(number):
        return ""
    return f"{number:.3f}" if number == 0 or 1e-2 <= abs(number) < 1e5 else f"{number:.3g}"


def _listed(array: Array) -> Any:
    """Nested lists, with None for nan and "inf", "-inf" for what JSON has no number for either."""
    plain = array.astype(object)
    plain[np.isnan(array)] = None
    plain[array == np.inf], plain[array == -np.inf] = "inf", "-inf"
    return plain.tolist()


def _array(data: Any) -> Array:
    return np.array(data, dtype=object).astype(float) if data is not None else np.array(np.nan)


@dataclass(frozen=True)
class _Setup:
    """A palette resolved on a pilot: everything that solving needs."""

    pilot: Pilot
    palette: Palette
    groups: Groups
    resolved: Resolved
    candidates: Candidates
    joint: bool
    weighting: str
    seed: int

    @property
    def block(self) -> int | None:
        """k for the mathematics; None where all of a prompt's candidates, or all rows, are one group."""
        return self.candidates if isinstance(self.candidates, int) else None

    def optimise(self, block: int | None) -> Optimum:
        lower, upper = self.resolved.lower, self.resolved.upper
        return optimise(self.groups, lower, upper, joint=self.joint, block=block, seed=self.seed)

    def evaluate(self, weights: Array, block: int | None) -> Optimum:
        return evaluate_at(self.groups, weights, joint=self.joint, block=block, seed=self.seed)

    @property
    def half(self) -> int:
        return int(self.groups.sizes[0]) // 2


def _set_up(
    pilot: Pilot,
    palette: Palette,
    candidates: Candidates,
    mode: Literal["prompt", "joint"] | None,
    weighting: str,
    seed: int,
) -> _Setup:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, got {seed!r}")
    if mode not in (None, "prompt", "joint"):
        raise ValueError(f'mode must be "prompt", "joint" or None, got {mode!r}')
    groups = pilot.groups(weighting)
    choice = float(groups.weights[groups.sizes > 1].sum())
    joint = mode == "joint" or (mode is None and choice < 0.5)
    if joint and mode is None:
        warnings.warn(
            f"only {choice:.0%} of the prompts have two candidates or more, so prompts are re-weighted too "
            '(mode="joint"); a decoder, which cannot, reaches less',
            stacklevel=3,
        )
    k = _candidates(groups, candidates, joint)
    within = int(groups.sizes.max()) if not isinstance(k, int) else k
    scales = {name: pilot.scale(name) for name in pilot.values}
    resolved = resolve(palette, groups, pilot.values, candidates=within, joint=joint, scales=scales)
    features = Groups(resolved.features_of(groups.values, pilot.values), groups.starts, groups.weights)
    return _Setup(pilot, palette, features, resolved, k, joint, weighting, int(seed))


def _candidates(groups: Groups, candidates: Candidates, joint: bool) -> Candidates:
    """The k to calibrate for, checked against the pilot."""
    sizes = groups.sizes
    if joint:
        if candidates is not None:
            raise ValueError(f"candidates must be None in joint mode, which has no k, got {candidates!r}")
        return None
    uniform = int(sizes[0]) if (sizes == sizes[0]).all() else None
    if candidates is None:
        if uniform is None:
            raise ValueError(
                "candidates must say k where prompts have different numbers of candidates: "
                f"any from 1 to the smallest, {sizes.min()}, got None"
            )
        return uniform
    if candidates == "limit":
        if uniform is None or uniform < 4 or uniform % 2:
            raise ValueError(
                'candidates="limit" needs a pilot with the same even number of candidates, 4 or more, for every '
                f"prompt, got {sizes.min()} to {sizes.max()}"
            )
        return "limit"
    if isinstance(candidates, bool) or not isinstance(candidates, int | np.integer) or candidates < 1:
        raise ValueError(f'candidates must be a positive integer, "limit" or None, got {candidates!r}')
    short = np.flatnonzero(sizes < candidates)
    if len(short):
        named = ", ".join(str(g) for g in short[:5]) + (", …" if len(short) > 5 else "")
        raise ValueError(
            f"candidates must be at most each prompt's own number, got {candidates} where {len(short)} prompts have "
            f"fewer (prompts {named}, counted from 0 in order of appearance; the smallest has {sizes.min()})"
        )
    return int(candidates)


def solve(
    pilot: Pilot,
    palette: Palette | Mapping[str, object],
    candidates: Candidates = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
    on_infeasible: Literal["raise", "return"] = "raise",
) -> Solution:
    """The weights λ with which the levels of `palette` are had at the least KL from the base model.

    min KL(p ‖ p0) subject to lower ≤ E_p r ≤ upper, over p(y given x) ∝ p0(y given x) exp(λᵀr(x, y)); in joint
    mode over p(x, y). The answer is proved: either λ, with a bound on its numerical error, or a certificate that no
    choice among the pilot's candidates has the levels (paper, Section 2; docs/mathematics.md).

    candidates  k of the decoder that will use λ; None for the pilot's K; "limit" for k → ∞, which fine-tuning needs
    mode        None takes "prompt" where prompts with two candidates or more carry at least half of the weight
    weighting   "prompts" (all alike), "rows" (by their number of candidates), or a column of the pilot
    seed        of the random blocks that calibrate a k below K

    Raises `Infeasible` with the certificate unless on_infeasible="return", and ValueError for a palette that makes
    no sense on this pilot.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 0.0, 1.0])}, prompt_id=np.array([0, 0, 1, 1]))
    >>> solution = solve(pilot, {"humor": "reach 50%"})
    >>> solution.status.name, solution.levels, round(solution.weights["humor"], 4)
    ('OPTIMAL', humor 0.75 ± 0, 1.0986)
    """
    if on_infeasible not in ("raise", "return"):
        raise ValueError(f'on_infeasible must be "raise" or "return", got {on_infeasible!r}')
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    setup = _set_up(pilot, palette, candidates, mode, weighting, seed)
    _warn_of_lost_spread(setup)
    optimum = setup.optimise(setup.block)
    if setup.candidates == "limit" and optimum.status in (Status.OPTIMAL, Status.BOUNDARY):
        optimum = _to_the_limit(setup, optimum)
    solution = _solution(setup, optimum)
    if solution.status is Status.INFEASIBLE and on_infeasible == "raise":
        raise Infeasible(solution)
    return solution


def _to_the_limit(setup: _Setup, whole: Optimum) -> Optimum:
    """2λ_K − λ_{K/2}, clipped to the signs that the bounds allow, and what it gives as k → ∞."""
    half = setup.optimise(setup.half)
    for optimum, k in ((whole, 2 * setup.half), (half, setup.half)):
        if optimum.status in (Status.BOUNDARY, Status.INFEASIBLE):
            raise ValueError(
                f'candidates="limit" needs a palette that k = {setup.half}, half of the pilot\'s candidates, reach '
                f"with room to spare, got one that is {optimum.status.name} at k = {k}; ask a little less or draw more"
            )
    if half.status is not Status.OPTIMAL:
        return half
    weights = 2 * whole.weights - half.weights
    lower, upper = setup.resolved.lower, setup.resolved.upper
    weights = np.where(np.isinf(lower), np.minimum(weights, 0), weights)
    weights = np.where(np.isinf(upper), np.maximum(weights, 0), weights)
    # Both ends meet the palette, so their levels extrapolate far better than those of one λ at two k. The error of
    # the extrapolation itself is not bounded by theirs.
    return replace(_extrapolated(whole, half), weights=weights, error=np.full(len(weights), np.nan))


def _extrapolated(whole: Optimum, half: Optimum) -> Optimum:
    """Twice the figures at K less those at K/2: what is of order 1/k cancels."""
    names = ("levels", "prompt_levels", "log_partition", "kl")
    return replace(whole, **{name: 2 * getattr(whole, name) - getattr(half, name) for name in names})


def _warn_of_lost_spread(setup: _Setup) -> None:
    groups, resolved = setup.groups, setup.resolved
    asked = np.isfinite(resolved.lower) | np.isfinite(resolved.upper)
    for i in np.flatnonzero((spread(groups, joint=setup.joint) == 0) & asked):
        column = groups.values[:, i]
        centre = groups.base[i] if setup.joint else np.repeat(groups.means[:, i], groups.sizes)
        if (column == centre).all():
            continue
        warnings.warn(
            f"{resolved.features[i]}: its spread is lost in rounding beside numbers as large as "
            f"{np.abs(column).max():.3g}; it is treated as constant",
            stacklevel=3,
        )


def _solution(setup: _Setup, optimum: Optimum) -> Solution:
    groups, resolved = setup.groups, setup.resolved
    names = resolved.features
    covariance = weight_covariance(groups, optimum, resolved.influence_lower, resolved.influence_upper)
    if optimum.status in (Status.BOUNDARY, Status.INFEASIBLE):
        covariance = np.full_like(covariance, np.nan)
    elif not (np.isfinite(resolved.lower) | np.isfinite(resolved.upper)).any():
        # Weights that were given, not found.
        covariance = np.zeros_like(covariance)
    proof = None if optimum.certificate is None else _proof(setup, optimum.certificate)
    return Solution(
        status=optimum.status,
        resolved=resolved,
        weights=Figures(names, optimum.weights, np.sqrt(np.diag(covariance)), optimum.error),
        levels=Figures(names, optimum.levels, level_errors(groups, optimum)),
        gains=Figures(names, optimum.levels - optimum.base, gain_errors(groups, optimum)),
        mode="joint" if setup.joint else "prompt",
        weighting=setup.weighting,
        candidates=setup.candidates,
        seed=setup.seed,
        kl=optimum.kl,
        ess=optimum.kish,
        prompts=len(groups.sizes),
        covariance=optimum.covariance,
        weight_covariance=covariance,
        spread=spread(groups, joint=setup.joint),
        faces=np.array(optimum.faces).reshape(-1, len(names)),
        kkt_residual=optimum.kkt_residual,
        passes=optimum.passes,
        certificate=proof,
        fingerprint=setup.pilot.metadata.to_dict(),
        margin_of=optimum.margin,
        seen_of=lambda: frozenset(prompt_digests(setup.pilot)),
    )


def prompt_digests(pilot: Pilot) -> list[str]:
    """What tells a prompt by its text, one for each prompt of the pilot; none where it holds no texts."""
    if not {"prompt", "messages"} & set(pilot.table.column_names):
        return []
    texts = pilot.texts()
    return [digest(texts[row])[:16] for row in pilot.order[pilot.starts[:-1]]]


def _proof(setup: _Setup, certificate: Certificate) -> Proof:
    resolved, groups = setup.resolved, setup.groups
    se = certificate.se
    if not setup.joint:
        se = reach_error(
            groups, certificate.direction, setup.block, resolved.influence_lower, resolved.influence_upper
        )
    sentence = certificate_sentence(groups, resolved, certificate, se, joint=setup.joint, block=setup.block)
    directions = Figures(resolved.features, certificate.direction)
    return Proof(
        directions, certificate.asked, certificate.reach, certificate.gap, se, certificate.margin, sentence
    )


def levels(
    pilot: Pilot,
    weights: Mapping[str, float],
    candidates: Candidates = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
) -> Solution:
    """The forward map λ → levels, KL, effective candidates: `Solution.from_weights`.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0])}, prompt_id=np.array([0, 0]))
    >>> round(levels(pilot, {"humor": np.log(3)}).levels["humor"], 6)
    0.75
    """
    return Solution.from_weights(pilot, weights, candidates, mode=mode, weighting=weighting, seed=seed)


@dataclass(frozen=True)
class Reach:
    """How far one value can go: every level between `low` and `high` can be had.

    base        its level under the base model
    candidates  the k it holds for; None in joint mode
    """

    value: str
    base: float
    low: float
    high: float
    candidates: int | None

    def __str__(self) -> str:
        k = "" if self.candidates is None else f" with k = {self.candidates}"
        return f"{self.value}: {self.low:.4g} to {self.high:.4g}{k}, base {self.base:.4g}"


def reach(
    pilot: Pilot,
    palette: Palette | Mapping[str, object] | None,
    value: str,
    candidates: int | None = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    gap: float = 1e-6,
) -> Reach:
    """How far one value can go, alone (`palette=None`, in closed form) or while the others hold.

    With a palette, its bounds on the other values are held and its entry for `value` is left out; each end is found
    to within `gap` within-prompt standard deviations, on the safe side. Raises Infeasible if the others alone cannot
    be had.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 2.0, 5.0])}, prompt_id=np.array([0, 0, 1, 1]))
    >>> print(reach(pilot, None, "humor"))
    humor: 1 to 3 with k = 2, base 2
    """
    if value not in pilot.values:
        raise ValueError(f"value must be one of {', '.join(pilot.values)}, got {value!r}")
    if palette is None:
        palette = Palette({value: "free"})
    elif not isinstance(palette, Palette):
        palette = Palette(palette)
    if candidates == "limit":
        raise ValueError('candidates must be a number here: what k → ∞ reaches no pilot tells, got "limit"')
    setup = _set_up(pilot, Palette({**palette.entries, value: "free"}), candidates, mode, weighting, 0)
    groups, resolved = setup.groups, setup.resolved
    i = resolved.features.index(value)
    base, unit = float(resolved.base[i]), np.zeros(len(resolved.features))
    unit[i] = 1.0
    if not (np.isfinite(resolved.lower) | np.isfinite(resolved.upper)).any():
        if setup.joint:
            low, high = float(groups.values[:, i].min()), float(groups.values[:, i].max())
        else:
            high = float(groups.weights @ prompt_support(groups, unit, setup.block))
            low = -float(groups.weights @ prompt_support(groups, -unit, setup.block))
        return Reach(value, base, low, high, setup.block)
    scale = spread(groups, joint=setup.joint)
    source = tilted(groups, scale, joint=setup.joint)
    exact = setup.joint or bool((groups.sizes == setup.block).all())

    def support(direction: Array) -> tuple[float, Array]:
        return source.support(direction) if exact else source.subset_support(direction, int(setup.block or 0))

    lower, upper = groups.above(resolved.lower) / source.scale, groups.above(resolved.upper) / source.scale
    ends: list[float] = []
    for side in (-1.0, 1.0):
        far = farthest(support, lower, upper, np.zeros(len(unit)), side * unit, gap=gap)
        if far.low == -np.inf:
            others = setup.optimise(setup.block)
            if others.certificate is None:
                raise ValueError(
                    f"palette must leave {value!r} room to move, got others on the very edge of reach"
                )
            raise Infeasible(_solution(setup, others))
        ends.append(base + side * far.low * float(source.scale[i]))
    return Reach(value, base, ends[0], ends[1], setup.block)
