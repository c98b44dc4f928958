"""From a pilot and a palette to weights: the only place where pilot, palette and mathematics meet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from valuepalette.adjustment import highest
from valuepalette.certificates import certificate_sentence, reported
from valuepalette.dual import Certificate, Optimum, Status, evaluate_at, optimise
from valuepalette.feasibility import farthest
from valuepalette.folders import digest
from valuepalette.palette import Palette, Resolved, resolve
from valuepalette.pilot import Pilot
from valuepalette.pricing import Sensitivity, price_list
from valuepalette.tilting import Array, Groups, prompt_support, spread, tilted
from valuepalette.uncertainty import (
    bound_covariance,
    gain_errors,
    level_errors,
    reach_error,
    weight_covariance,
    weight_limits,
)

__all__ = [
    "Figures",
    "Infeasible",
    "Proof",
    "Reach",
    "Slack",
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


@dataclass(frozen=True)
class Slack:
    """A bound that does not bind, so that its weight is zero; what that means is one-sided.

    slack   by how much the level lies inside the bound, as a user reads it
    errors  the same in standard errors of level − bound on new prompts
    limit   how far from zero the weight could be, with 95 % confidence; 0 where the bound would not bind even then
    """

    slack: float
    errors: float
    limit: float

    def __str__(self) -> str:
        ends = sorted([0.0, self.limit])
        could = "stays 0" if self.limit == 0 else f"could be {ends[0]:.2g} to {ends[1]:.2g}"
        return f"slack of {self.slack:.3g}, {self.errors:.1f} standard errors; its weight {could} (95 %)"


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
    Levels, gains, bounds and their errors are as a user reads them: of a cohort, among its own prompts. Weights,
    covariance and spread are of the features that `resolved` derives.

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
    bound_covariance  of level − bound on new prompts, (m, m); of two bounds the one that binds or would first
    confidence    with which new prompts have what was asked; None where it was aimed at as it is
    aimed         (lower, upper) in place of those asked, in the units of the features, where there is a confidence
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
    bound_covariance: Array | None = field(default=None, repr=False)
    confidence: float | None = None
    aimed: tuple[Array, Array] | None = field(default=None, repr=False)

    @property
    def features(self) -> tuple[str, ...]:
        return self.resolved.features

    @property
    def asked(self) -> dict[str, str]:
        """The palette's entries by feature, "free" where nothing is asked."""
        return dict(zip(self.features, self.resolved.asked, strict=True))

    @property
    def lower(self) -> Array:
        """(m,) what is asked of the levels at least; infinite where nothing is."""
        return self.resolved.reported(self.resolved.lower)

    @property
    def upper(self) -> Array:
        return self.resolved.reported(self.resolved.upper)

    @property
    def base(self) -> Figures:
        """c0, the levels of the base model."""
        return Figures(self.features, self.resolved.reported(self.resolved.base))

    @property
    def effective(self) -> float:
        """k·exp(−KL): how many of the k candidates are still in play; nan where there is no k."""
        return self.candidates * float(np.exp(-self.kl)) if isinstance(self.candidates, int) else np.nan

    @property
    def slack(self) -> dict[str, Slack]:
        """Of each asked feature whose weight is zero: how far its bound is from binding."""
        if self.status is not Status.OPTIMAL or self.bound_covariance is None:
            return {}
        lower, upper = self.aimed or (self.resolved.lower, self.resolved.upper)
        levels = (self.levels.array - self.resolved.reported(np.zeros(len(lower)))) / self.resolved.factor
        below, above = levels - lower, upper - levels
        short = np.where(below <= above, -below, above)
        short = np.where(np.isfinite(short) & (lower < upper) & (self.weights.array == 0), short, np.nan)
        errors = np.sqrt(np.diag(self.bound_covariance))
        limits = weight_limits(
            self.weights.array, self.covariance, short, self.bound_covariance, NormalDist().inv_cdf(0.95)
        )
        return {
            self.features[i]: Slack(
                float(abs(short[i]) * self.resolved.factor[i]),
                float(abs(short[i]) / errors[i]),
                float(limits[i]),
            )
            for i in np.flatnonzero(~np.isnan(short) & (errors > 0))
        }

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

    def sensitivity(self, step: float | Mapping[str, float] = 0.1) -> Sensitivity:
        """What moves around this optimum: dλ/dc, and what a little more of each value costs the others and in KL.

        step  how much more, in within-prompt standard deviations, on the side on which each value is asked; or a
              mapping that names features and steps in the units of their levels, negative for less

        Needs no pilot. Raises ValueError unless the status is OPTIMAL and k is a number: elsewhere λ has no slope.

        >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0], "tone": [1.0, 0.5]}, prompt_id=[0, 0])
        >>> price = solve(pilot, {"humor": 0.75}).sensitivity({"humor": 0.05}).prices["humor"]
        >>> round(price.kl, 4), round(price.levels["tone"], 4)
        (0.0616, -0.025)
        """
        if self.status is not Status.OPTIMAL or self.candidates == "limit":
            got = 'candidates="limit"' if self.status is Status.OPTIMAL else self.status.name
            raise ValueError(f"sensitivity needs an OPTIMAL solution for a k that is a number, got {got}")
        return price_list(
            self.resolved,
            self.weights.array,
            self.covariance,
            self.spread,
            self.levels.array,
            self.kl,
            step,
        )

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
            "bound_covariance": None if self.bound_covariance is None else _listed(self.bound_covariance),
            "confidence": self.confidence,
            "aimed": None if self.aimed is None else [_listed(ends) for ends in self.aimed],
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
            bound_covariance=None
            if data.get("bound_covariance") is None
            else _array(data["bound_covariance"]),
            confidence=data.get("confidence"),
            aimed=None if data.get("aimed") is None else (_array(data["aimed"][0]), _array(data["aimed"][1])),
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
        columns = {"base": self.base.array}
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
        lines += ["", foot]
        if self.confidence is not None and self.aimed is not None:
            lines.append(
                f"aimed {NormalDist().inv_cdf(self.confidence):.2f} standard errors inside each bound: new prompts "
                f"have what is asked with {self.confidence:.3g} confidence"
            )
        return "\n".join([*lines, *(f"{name}: {text}" for name, text in self.slack.items())])


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
    columns = {name: pilot.column(name) for name in palette.columns if name in pilot.table.column_names}
    resolved = resolve(
        palette, groups, pilot.values, candidates=within, joint=joint, scales=scales, columns=columns
    )
    by_row = {name: np.repeat(entries, groups.sizes) for name, entries in columns.items()}
    table = resolved.features_of(groups.values, pilot.values, by_row)
    features = Groups(table, groups.starts, groups.weights)
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
    confidence: float | None = None,
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
    confidence  None aims at the bounds, so that on new prompts the level of a value that binds lies below what was
                asked half of the time. 0.95 aims at each bound and z = 1.64 standard errors of level − bound, so that
                each is met on new prompts for 95 % of pilots (docs/uncertainty.md); an equality has no safe side and
                stays, and so does "max"

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
    aimed = _raised(setup) if confidence is None else _with_confidence(setup, confidence)
    optimum = aimed.optimise(aimed.block)
    if setup.candidates == "limit" and optimum.status in (Status.OPTIMAL, Status.BOUNDARY):
        optimum = _to_the_limit(aimed, optimum)
    solution = _solution(aimed, optimum)
    if confidence is not None:
        solution = _asked_with(confidence, setup, solution)
    if solution.status is Status.INFEASIBLE and on_infeasible == "raise":
        raise Infeasible(solution)
    return solution


def _raised(setup: _Setup) -> _Setup:
    """A level in place of each "max": what the other entries and the palette's budget leave it."""
    palette, resolved = setup.palette, setup.resolved
    if not palette.maximised:
        return setup
    if setup.joint and palette.kl is None:
        raise ValueError(
            '"max" needs a budget in joint mode, which has no k to take one from: Palette(…, kl=0.5), got kl=None'
        )
    turns = [resolved.features.index(name) for name in palette.maximised]
    kl = float(np.log(4)) if palette.kl is None else palette.kl
    bounds = resolved.lower, resolved.upper
    lower = highest(setup.groups, *bounds, turns, kl, joint=setup.joint, block=setup.block, seed=setup.seed)
    return replace(setup, resolved=replace(resolved, lower=lower))


def _with_confidence(setup: _Setup, confidence: float) -> _Setup:
    """Each bound moved to its safe side by z standard errors of level − bound, which depend on λ: three rounds."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0.5 < confidence < 1:
        raise ValueError(f"confidence must lie between 0.5 and 1, got {confidence!r}")
    asked, aimed = setup.resolved, _raised(setup)
    if len(setup.groups.sizes) < 2:
        raise ValueError("confidence needs a pilot of two prompts or more, got one")
    z = NormalDist().inv_cdf(confidence)
    for _ in range(3):
        optimum = aimed.optimise(aimed.block)
        if optimum.status not in (Status.OPTIMAL, Status.BOUNDARY):
            break
        low, high = (
            z * np.sqrt(np.diag(bound_covariance(setup.groups, optimum, influence)))
            for influence in (asked.influence_lower, asked.influence_upper)
        )
        equal = asked.lower == asked.upper
        lower, upper = np.where(equal, 0, low) + asked.lower, asked.upper - np.where(equal, 0, high)
        for i in np.flatnonzero((lower > upper) & (asked.lower <= asked.upper)):
            raise ValueError(
                f"confidence must leave room between the bounds of {asked.features[i]}, {asked.lower[i]:.4g} and "
                f"{asked.upper[i]:.4g}, got {confidence}, which takes {low[i]:.2g} from below and {high[i]:.2g} from "
                "above"
            )
        aimed = _raised(replace(setup, resolved=replace(asked, lower=lower, upper=upper)))
    return aimed


def _asked_with(confidence: float, setup: _Setup, solution: Solution) -> Solution:
    """The solution of bounds that were moved, said of those that were asked."""
    there, asked = solution.resolved, setup.resolved
    most = np.array([name in setup.palette.maximised for name in there.features])
    lower = np.where(most, there.lower, asked.lower)
    proof = solution.certificate
    if proof is not None and not (
        np.array_equal(there.lower, lower) and np.array_equal(there.upper, asked.upper)
    ):
        moved = f"With {confidence:.3g} confidence each bound is aimed at from {NormalDist().inv_cdf(confidence):.2f} "
        proof = replace(proof, sentence=f"{proof.sentence} {moved}standard errors inside.")
    return replace(
        solution,
        resolved=replace(there, lower=lower, upper=asked.upper),
        certificate=proof,
        confidence=float(confidence),
        aimed=(there.lower, there.upper),
    )


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
    centre = groups.base if setup.joint else np.repeat(groups.means, groups.sizes, axis=0)
    moves = np.abs(groups.values - centre).max(axis=0) > 0
    asked = np.isfinite(resolved.lower) | np.isfinite(resolved.upper)
    for i in np.flatnonzero((spread(groups, joint=setup.joint) == 0) & moves & asked):
        warnings.warn(
            f"{resolved.features[i]}: its spread is lost in rounding beside numbers as large as "
            f"{np.abs(groups.values[:, i]).max():.3g}; it is treated as constant",
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
    nearer = optimum.levels - resolved.lower <= resolved.upper - optimum.levels
    binds = np.where(optimum.weights == 0, nearer, optimum.weights > 0)
    influence = np.where(binds, resolved.influence_lower, resolved.influence_upper)
    return Solution(
        status=optimum.status,
        resolved=resolved,
        weights=Figures(names, optimum.weights, np.sqrt(np.diag(covariance)), optimum.error),
        levels=Figures(
            names, resolved.reported(optimum.levels), level_errors(groups, optimum, resolved.inside)
        ),
        gains=Figures(
            names,
            resolved.factor * (optimum.levels - optimum.base),
            gain_errors(groups, optimum, resolved.inside),
        ),
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
        bound_covariance=bound_covariance(groups, optimum, influence),
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
            groups,
            certificate.direction,
            setup.block,
            resolved.influence_lower,
            resolved.influence_upper,
            resolved.inside,
        )
    groups, resolved, told = reported(groups, resolved, replace(certificate, se=se))
    sentence = certificate_sentence(groups, resolved, told, told.se, joint=setup.joint, block=setup.block)
    directions = Figures(resolved.features, told.direction)
    return Proof(directions, told.asked, told.reach, told.gap, told.se, told.margin, sentence)


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

    `value` may also name a tail or a cohort's feature of the palette, such as "P(humor < -2)". With a palette, its
    bounds on the other features are held and what it asks of `value` is left out; each end is found
    to within `gap` within-prompt standard deviations, on the safe side. Raises Infeasible if the others alone cannot
    be had.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 2.0, 5.0])}, prompt_id=np.array([0, 0, 1, 1]))
    >>> print(reach(pilot, None, "humor"))
    humor: 1 to 3 with k = 2, base 2
    """
    given = None if palette is None else palette if isinstance(palette, Palette) else Palette(palette)
    named = () if given is None else map(str, given.asks)
    known = tuple(dict.fromkeys((*pilot.values, *named)))
    if value not in known:
        raise ValueError(f"value must be one of {', '.join(known)}, got {value!r}")
    if candidates == "limit":
        raise ValueError('candidates must be a number here: what k → ∞ reaches no pilot tells, got "limit"')
    free = Palette({value: "free"}) if given is None else given.freed(value)
    setup = _set_up(pilot, free, candidates, mode, weighting, 0)
    groups, resolved = setup.groups, setup.resolved
    i = resolved.features.index(value)
    start, unit = resolved.base[i], np.zeros(len(resolved.features))
    unit[i] = 1.0

    def told(level: float) -> float:
        return float(resolved.reported(np.full(len(unit), level))[i])

    if not (np.isfinite(resolved.lower) | np.isfinite(resolved.upper)).any():
        if setup.joint:
            low, high = float(groups.values[:, i].min()), float(groups.values[:, i].max())
        else:
            high = float(groups.weights @ prompt_support(groups, unit, setup.block))
            low = -float(groups.weights @ prompt_support(groups, -unit, setup.block))
        return Reach(value, told(start), told(low), told(high), setup.block)
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
        ends.append(told(start + side * far.low * source.scale[i]))
    return Reach(value, told(start), ends[0], ends[1], setup.block)
