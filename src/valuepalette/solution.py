"""A solution: the weights of a palette, what they promise, how sure that is, and how it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.certificates import Choice, choice_among, reported, sentence
from valuepalette.dual import Certificate, Optimum, Status
from valuepalette.features import Resolved
from valuepalette.figures import Figures, Proof, Slack
from valuepalette.folders import digest
from valuepalette.grouping import Array
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import Candidates, Posed, extrapolated, pose
from valuepalette.pricing import Sensitivity, price_list
from valuepalette.tilting import spread
from valuepalette.trainers import RewardWeights, sampling_faults
from valuepalette.uncertainty import (
    bound_covariance,
    gain_errors,
    level_errors,
    reach_error,
    weight_covariance,
    weight_limits,
)

__all__ = ["Infeasible", "Solution", "prompt_digests", "proof_of", "solution_of"]


class Infeasible(ValueError):  # noqa: N818 - a verdict, by its public name
    """The palette cannot be had on this pilot. `certificate` proves it, `solution` holds the rest."""

    def __init__(self, solution: Solution) -> None:
        super().__init__(str(solution.certificate))
        self.solution = solution
        self.certificate = solution.certificate

    def __reduce__(self) -> tuple[type[Infeasible], tuple[Solution]]:
        return type(self), (self.solution,)


@dataclass(frozen=True)
class _Told:
    """A function without arguments that says what is known already."""

    answer: Any

    def __call__(self) -> Any:
        return self.answer


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

    def __getstate__(self) -> dict[str, Any]:
        """What is computed on demand from the pilot goes along computed, so that a solution can be sent and copied."""
        return {**self.__dict__, "margin_of": _Told(self.margin), "seen_of": _Told(self.seen)}

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

    def features_of(self, pilot: Pilot) -> tuple[Array, NDArray[np.bool_]]:
        """The features of each row of a pilot, (n, m), and which were measured, (m,).

        One without weight may be missing from the pilot; it counts as 0.
        """
        known = [name for name in self.resolved.columns if name in pilot.table.column_names]
        columns = {name: pilot.column(name)[pilot.prompt_index] for name in known}
        measured = self.resolved.measured(pilot.values, columns)
        features = self.resolved.features_of(pilot.array, pilot.values, columns, partial=True)
        return np.where(measured, features, 0.0), measured

    def check_learnable(self, pilot: Pilot) -> None:
        """Raises ValueError unless what this decoder draws from `pilot` has the levels that were asked."""
        if self.candidates is None or self.candidates != pilot.candidates:
            held = "prompts with different numbers" if pilot.candidates is None else f"K = {pilot.candidates}"
            raise ValueError(
                "solution must be calibrated for the candidates that the pilot holds, so that the level asked is the "
                f"level learned; the pilot has {held}, the solution is for {self.candidates!r}"
            )
        if self.certificate is not None:
            raise ValueError("solution must be of a palette that can be had, got INFEASIBLE")

    def reward_weights(self, beta: float) -> RewardWeights:
        """What a trainer multiplies each feature by: β·λ, for KL-regularised learning with the coefficient `beta`.

        Its optimum is then p0·exp(λᵀf)/Z(x), whatever β is. `print` shows how TRL is told; `.snippet("openrlhf")` and
        `.snippet("verl")` how others are. Features without weight are left out.

        Raises ValueError where no trainer's optimum has these levels: a solution for a decoder of k candidates, a
        joint one, one whose weights do not exist, and a pilot drawn at another temperature than 1, or truncated.

        >>> rng = np.random.default_rng(0)
        >>> values = {"humor": rng.normal(size=400)}
        >>> pilot = Pilot.from_arrays(values, prompt_id=np.repeat(np.arange(50), 8))
        >>> solution = Solution.from_weights(pilot, {"humor": 0.5}, "limit")
        >>> solution.reward_weights(beta=0.1)
        RewardWeights({'humor': 0.05}, beta=0.1)
        """
        if self.status is not Status.OPTIMAL:
            raise ValueError(f"weights for a trainer need an OPTIMAL solution, got {self.status.name}")
        if self.candidates != "limit":
            kind = "joint mode" if self.mode == "joint" else f"a decoder of k = {self.candidates} candidates"
            raise ValueError(
                f'weights for a trainer need candidates="limit", got those of {kind}, which a trained model is not'
            )
        sampling = self.fingerprint.get("sampling") or {}
        if faults := sampling_faults(sampling):
            raise ValueError(
                "weights for a trainer need a pilot of temperature 1 without top-k and top-p, since the model that is "
                f"trained has neither, got {', '.join(faults)}"
            )
        weighted = {name: weight for name, weight in self.weights.items() if weight}
        return RewardWeights(weighted, beta, tokens=sampling.get("max_new_tokens"))

    def sensitivity(self, step: float | Mapping[str, float] = 0.1) -> Sensitivity:
        """What moves around this optimum: dλ/dc, and what a little more of each value costs the others and in KL.

        step  how much more, in within-prompt standard deviations, on the side on which each value is asked; or a
              mapping that names features and steps in the units of their levels, negative for less

        Needs no pilot. Raises ValueError unless the status is OPTIMAL and k is a number: elsewhere λ has no slope.

        >>> from valuepalette.solving import solve
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
            margin_of=_Told(margin),
            seen_of=_Told(seen),
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
        posed = pose(
            pilot, Palette(dict.fromkeys(weights or pilot.values, "free")), candidates, mode, weighting, seed
        )
        raw = np.zeros(len(posed.resolved.features))
        raw[: len(at)] = at
        optimum = posed.evaluate(raw, posed.block)
        if posed.candidates == "limit":
            optimum = extrapolated(optimum, posed.evaluate(raw, posed.half))
        return solution_of(posed, optimum)

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
            least = 1e-8 * self.spread * self.resolved.factor
            gains = np.where(np.abs(self.gains.array) <= least, 0.0, self.gains.array)
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


def solution_of(posed: Posed, optimum: Optimum) -> Solution:
    """The optimum of a posed palette in the units of its values, with its standard errors and its proof."""
    groups, resolved = posed.groups, posed.resolved
    names = resolved.features
    if optimum.status in (Status.BOUNDARY, Status.INFEASIBLE):
        covariance = np.full((len(names),) * 2, np.nan)
    elif not (np.isfinite(resolved.lower) | np.isfinite(resolved.upper)).any():
        # Weights that were given, not found; of any size, so that V may be next to nothing.
        covariance = np.zeros((len(names),) * 2)
    else:
        covariance = weight_covariance(groups, optimum, resolved.influence_lower, resolved.influence_upper)
    proof = None if optimum.certificate is None else _proof(posed, optimum.certificate)
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
        mode="joint" if posed.joint else "prompt",
        weighting=posed.weighting,
        candidates=posed.candidates,
        seed=posed.seed,
        kl=optimum.kl,
        ess=optimum.kish,
        prompts=len(groups.sizes),
        covariance=optimum.covariance,
        weight_covariance=covariance,
        spread=spread(groups, joint=posed.joint),
        faces=np.array(optimum.faces).reshape(-1, len(names)),
        kkt_residual=optimum.kkt_residual,
        passes=optimum.passes,
        certificate=proof,
        fingerprint=posed.pilot.metadata.to_dict(),
        margin_of=optimum.margin,
        seen_of=partial(_seen, posed.pilot),
        bound_covariance=bound_covariance(groups, optimum, influence),
    )


def _seen(pilot: Pilot) -> frozenset[str]:
    return frozenset(prompt_digests(pilot))


def prompt_digests(pilot: Pilot) -> list[str]:
    """What tells a prompt by its text, one for each prompt of the pilot; none where it holds no texts."""
    if not {"prompt", "messages"} & set(pilot.table.column_names):
        return []
    texts = pilot.texts()
    return [digest(texts[row])[:16] for row in pilot.order[pilot.starts[:-1]]]


def _proof(posed: Posed, certificate: Certificate) -> Proof:
    resolved, groups = posed.resolved, posed.groups
    se = certificate.se
    if not posed.joint:
        se = reach_error(
            groups,
            certificate.direction,
            posed.block,
            resolved.influence_lower,
            resolved.influence_upper,
            resolved.inside,
        )
    choice = choice_among(groups, resolved, joint=posed.joint, block=posed.block)
    return proof_of(choice, resolved, replace(certificate, se=se))


def proof_of(choice: Choice, resolved: Resolved, certificate: Certificate) -> Proof:
    """A certificate, its standard error included, as a user reads it."""
    bounds, told = reported(resolved, certificate)
    said = sentence(choice.reported(resolved), bounds, told, told.se)
    directions = Figures(resolved.features, told.direction)
    return Proof(directions, told.asked, told.reach, told.gap, told.se, told.margin, said)


def _cell(number: float) -> str:
    """A number in at most ten characters; nothing where there is none."""
    if np.isnan(number):
        return ""
    return f"{number:z.3f}" if number == 0 or 1e-2 <= abs(number) < 1e5 else f"{number:.3g}"


def _listed(array: Array) -> Any:
    """Nested lists, with None for nan and "inf", "-inf" for what JSON has no number for either."""
    plain = array.astype(object)
    plain[np.isnan(array)] = None
    plain[array == np.inf], plain[array == -np.inf] = "inf", "-inf"
    return plain.tolist()


def _array(data: Any) -> Array:
    return np.array(data, dtype=object).astype(float) if data is not None else np.array(np.nan)
