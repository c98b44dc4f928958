"""Decoding: k candidates for each prompt, and one of them drawn with probability softmax(λᵀf).

A solution is calibrated for one decoder: its k, model, sampling settings and rewards. Another decoder has other
levels, so one that differs is refused, with each difference named.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuepalette.dual import Status
from valuepalette.engines import Candidate, Engine, Prompt, Sampling
from valuepalette.features import Feature
from valuepalette.folders import differences, plain
from valuepalette.grouping import Array
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.progress import Progress
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score
from valuepalette.rewards.opening import open_reward
from valuepalette.solution import Solution

__all__ = [
    "Answers",
    "Decoder",
    "check_columns",
    "choose",
    "mismatches",
    "needed",
    "pick",
    "sampling_of",
]

Scorer = Reward | Callable[[], Reward] | str | Mapping[str, object]
"""A reward that is open, a function that opens one, or a line of a study's `[values]`."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a decoder said to N prompts.

    pilot          the k scored candidates of each prompt, `probability` and `drawn` marked
    features       (N, k, m) the solution's features of each candidate; nan where one was not measured
    probabilities  (N, k) the chance of each candidate to be the answer
    drawn          (N,) the number of the candidate that was
    """

    pilot: Pilot
    features: Array
    probabilities: Array
    drawn: NDArray[np.intp]

    @property
    def responses(self) -> list[str]:
        """The answers, one for each prompt."""
        said = self.pilot.responses or []
        k = self.features.shape[1]
        return [said[g * k + j] for g, j in enumerate(self.drawn)]


class Decoder:
    """A model that answers as a solution asks: the best-of-k decoder with a random, calibrated choice.

    engine          draws the candidates
    rewards         by value. One that is open is used and left open; one that is named, or a function, is opened
                    for its pass and closed after it, so that one is in memory at a time
    candidates      k; else the solution's
    sampling        else the settings of the solution's pilot
    model           what rewards that measure by the base model are opened with
    allow_mismatch  decode although something differs from what the solution was solved for; levels will differ too

    Raises ValueError in one line that names each difference in k, model, sampling settings, system prompt and
    rewards. What the solution's pilot does not record cannot be compared, and a warning says so.
    """

    def __init__(
        self,
        engine: Engine,
        rewards: Mapping[str, Scorer],
        solution: Solution,
        *,
        candidates: int | None = None,
        sampling: Sampling | None = None,
        model: str | None = None,
        allow_mismatch: bool = False,
    ) -> None:
        self.engine, self.rewards, self.solution = engine, dict(rewards), solution
        self.candidates = _candidates(solution, candidates)
        self.sampling = sampling_of(solution) if sampling is None else sampling
        self._model = model
        self._about: dict[str, dict[str, str]] = {}
        for name, source in self.rewards.items():
            with self._opened(name, source) as reward:
                for column in reward.columns:
                    about = {"definition": column.definition, "version": reward.version}
                    self._about[column.name] = {**about, "scale": column.scale, "reward": name}
        _check_measured(solution, self._about)
        found = mismatches(solution, self._metadata(seed=0), self.candidates)
        if found and not allow_mismatch:
            raise ValueError(_refusal(found))
        _warn_of_unrecorded(solution, self._about)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int = 0,
        columns: Mapping[str, Sequence[Any]] | None = None,
        shard: int = 32,
        quiet: bool = True,
    ) -> Answers:
        """An answer to each prompt, with the candidates it was chosen from.

        Candidates depend on (seed, prompt, index), the draw on (seed, prompt): equal prompts get equal answers.
        `columns` gives one entry per prompt, those that the solution's cohorts are cut by among them; `shard` prompts
        are sampled and scored at a time.
        """
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError("prompts must be a list of at least one text or conversation")
        if shard < 1:
            raise ValueError(f"shard must be at least 1, got {shard}")
        for name, entries in (columns or {}).items():
            if len(entries) != len(prompts):
                raise ValueError(f"columns[{name!r}] must have {len(prompts)} entries, got {len(entries)}")
        check_columns(self.solution, columns or ())
        k, drawn = self.candidates, list[list[Candidate]]()
        with Progress("sampling", len(prompts), quiet=quiet) as progress:
            for first in range(0, len(prompts), shard):
                batch = prompts[first : first + shard]
                answers = self.engine.sample(batch, k, sampling=self.sampling, seed=seed)
                if [len(candidates) for candidates in answers] != [k] * len(batch):
                    raise ValueError(f"the engine must draw {k} candidates for each of {len(batch)} prompts")
                drawn += answers
                progress.advance(len(batch))
        texts = [prompt for prompt in prompts for _ in range(k)]
        rows = [candidate for candidates in drawn for candidate in candidates]
        values = self._score(texts, [row.text for row in rows], shard * k, quiet)
        pilot = Pilot.from_arrays(
            values,
            prompt_id=np.repeat(np.arange(len(prompts)), k),
            prompts=texts,
            responses=[row.text for row in rows],
            columns={
                **{name: np.repeat(np.asarray(entries), k) for name, entries in (columns or {}).items()},
                "candidate": np.tile(np.arange(k), len(prompts)),
                "tokens": [row.tokens for row in rows],
                "finish_reason": [row.finish_reason for row in rows],
            },
            metadata=self._metadata(seed),
        )
        pilot = _drawn(pilot, self.solution, seed)
        shape = (len(prompts), k)
        probabilities = np.asarray(pilot.table["probability"]).reshape(shape)
        features, measured = self.solution.features_of(pilot)
        features[:, ~measured] = np.nan
        marked = np.asarray(pilot.table["drawn"]).reshape(shape)
        return Answers(pilot, features.reshape(*shape, -1), probabilities, marked.argmax(axis=1))

    def _score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], batch: int, quiet: bool
    ) -> dict[str, Array]:
        """Every column of every reward, each reward in a pass of its own."""
        values: dict[str, Array] = {}
        for name, source in self.rewards.items():
            parts: list[Array] = []
            with (
                self._opened(name, source) as reward,
                Progress(f"scoring {name}", len(responses), unit="answers", quiet=quiet) as progress,
            ):
                for first in range(0, len(responses), batch):
                    part = slice(first, first + batch)
                    parts.append(checked_score(reward, name, prompts[part], responses[part]))
                    progress.advance(len(parts[-1]))
                heads = [column.name for column in reward.columns]
            values |= dict(zip(heads, np.concatenate(parts).T, strict=True))
        return values

    @contextmanager
    def _opened(self, name: str, source: Scorer) -> Iterator[Reward]:
        if isinstance(source, Reward) and not isinstance(source, type):
            yield source
            return
        reward = source() if callable(source) else open_reward(name, source, model=self._model)
        try:
            yield reward
        finally:
            reward.close()

    def _metadata(self, seed: int) -> PilotMetadata:
        sampling = asdict(self.sampling)
        system_prompt = sampling.pop("system_prompt")
        return PilotMetadata(dict(self.engine.fingerprint), sampling, system_prompt, seed, self._about)


def choose(
    pilot: Pilot,
    solution: Solution,
    *,
    seed: int = 0,
    candidates: int | None = None,
    allow_mismatch: bool = False,
) -> Pilot:
    """Candidates that are scored already, with `probability` and `drawn` as the solution's decoder has them.

    So one held-out set of candidates serves any number of solutions. A prompt with more than k candidates keeps its
    first k, which are what a decoder would have drawn. The draw depends on (seed, prompt) alone.

    Raises ValueError in one line that names each difference between the pilot and what the solution was solved for,
    unless `allow_mismatch`; and the prompts that have fewer than k candidates.

    >>> from valuepalette.solution import Solution
    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 2.0, 2.0]}, prompt_id=[0, 0, 1, 1])
    >>> chosen = choose(pilot, Solution.from_weights(pilot, {"humor": np.log(3)}))
    >>> chosen.table["probability"].to_numpy().round(2)
    array([0.25, 0.75, 0.5 , 0.5 ])
    """
    k = _candidates(solution, candidates)
    _check_measured(solution, pilot.values)
    check_columns(solution, pilot.table.column_names)
    found = mismatches(solution, pilot.metadata, k)
    if found and not allow_mismatch:
        raise ValueError(_refusal(found))
    short = np.flatnonzero(pilot.sizes < k)
    if len(short):
        named = ", ".join(repr(entry) for entry in pilot.column("prompt_id")[short[:5]].tolist())
        more = ", …" if len(short) > 5 else ""
        raise ValueError(
            f"every prompt must have the {k} candidates of the decoder; prompt_id {named}{more} have fewer"
        )
    if (pilot.sizes > k).any():
        order, kept = _by_candidate(pilot), np.zeros(pilot.rows, bool)
        place = np.arange(pilot.rows) - np.repeat(pilot.starts[:-1], pilot.sizes)
        kept[order[place < k]] = True
        pilot = pilot.select(kept)
    return _drawn(pilot, solution, seed)


def _drawn(pilot: Pilot, solution: Solution, seed: int) -> Pilot:
    """The pilot with the chance of each candidate, and one of each prompt drawn."""
    order = _by_candidate(pilot)
    features, _ = solution.features_of(pilot)
    heads = order[pilot.starts[:-1]]
    named = {"prompt", "messages"} & set(pilot.table.column_names)
    prompts = pilot.texts() if named else pilot.table["prompt_id"].to_pylist()
    probability, drawn = np.zeros(pilot.rows), np.zeros(pilot.rows, bool)
    for g, head in enumerate(heads):
        rows = order[pilot.starts[g] : pilot.starts[g + 1]]
        chance = solution.probabilities(features[rows])
        probability[rows] = chance
        drawn[rows[pick(chance, seed, prompts[head])]] = True
    kept = [name for name in pilot.table.column_names if name not in ("probability", "drawn")]
    table = pilot.table.select(kept)
    table = table.append_column("probability", pa.array(probability)).append_column("drawn", pa.array(drawn))
    return Pilot.read(table, values=pilot.values, columns=pilot.columns, metadata=pilot.metadata)


def pick(chance: Array, seed: int, prompt: object, turn: int = 0) -> int:
    """A draw from `chance` by a number in [0, 1) that (seed, prompt) decide; `turn` counts the answers to a prompt."""
    text = json.dumps(["draw", seed, prompt, turn] if turn else ["draw", seed, prompt])
    at = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
    total = np.cumsum(chance)
    return int(np.searchsorted(total, at * total[-1], side="right"))


def _by_candidate(pilot: Pilot) -> NDArray[np.intp]:
    """Row numbers by prompt, in each by candidate, so that the order of rows means nothing."""
    return np.lexsort((np.asarray(pilot.table["candidate"]), pilot.prompt_index))


def needed(solution: Solution) -> list[Feature]:
    """The features with a bound or a weight."""
    asked = [text != "free" for text in solution.resolved.asked]
    each = zip(solution.resolved.specs, asked, solution.weights.array, strict=True)
    return [spec for spec, bound, weight in each if bound or weight]


def _check_measured(solution: Solution, measured: Mapping[str, object] | Sequence[str]) -> None:
    """Every feature with a bound or a weight must be measured."""
    if solution.status is Status.INFEASIBLE:
        raise ValueError("solution must be of a palette that can be had, got INFEASIBLE")
    values = dict.fromkeys(spec.value for spec in needed(solution))
    if absent := [name for name in values if name not in measured]:
        raise ValueError(
            f"rewards must measure what the solution asks of; {', '.join(absent)} is not among "
            f"{', '.join(measured) or 'none'}"
        )


def check_columns(solution: Solution, columns: Iterable[str]) -> None:
    """Where a cohort is asked of, a decoder must know which prompts belong to it."""
    have = list(columns)
    for spec in needed(solution):
        if spec.cohort and spec.cohort[0] not in have:
            column, member = spec.cohort
            raise ValueError(
                f"columns must hold {column!r}, an entry for each prompt, since the solution asks of the cohort "
                f"{column}={member}, got {', '.join(have) or 'none'}"
            )


def _candidates(solution: Solution, asked: int | None) -> int:
    """The k to draw: the solution's, unless it has none of its own."""
    if solution.mode == "joint":
        warnings.warn(
            "the solution is in joint mode, which re-weights prompts too; a decoder cannot and reaches less",
            stacklevel=3,
        )
    if asked is None:
        if not isinstance(solution.candidates, int):
            raise ValueError(
                f"candidates must say k, since the solution has none of its own, got {solution.candidates!r}"
            )
        return solution.candidates
    if asked < 1:
        raise ValueError(f"candidates must be at least 1, got {asked}")
    return int(asked)


def sampling_of(solution: Solution) -> Sampling:
    """The settings of the solution's pilot."""
    recorded = dict(solution.fingerprint.get("sampling") or {})
    if not recorded:
        raise ValueError("sampling must be given, since the solution's pilot does not record its own")
    recorded["stop"] = tuple(recorded.get("stop", ()))
    try:
        return Sampling(**recorded, system_prompt=solution.fingerprint.get("system_prompt"))
    except TypeError:
        raise ValueError(
            f"sampling must be given, since the solution records settings unknown here: {', '.join(recorded)}"
        ) from None


def mismatches(solution: Solution, metadata: PilotMetadata, k: int) -> list[str]:
    """What differs from the decoder that the solution is calibrated for; what is not recorded is not compared."""
    recorded, here = solution.fingerprint, plain(metadata.to_dict())
    found = [] if solution.candidates in (None, k) else [f"candidates: {solution.candidates} -> {k}"]
    for part in ("model", "sampling"):
        if recorded.get(part) and here[part]:
            found += differences(plain(recorded[part]), here[part], part)
    if recorded.get("sampling") and here["sampling"]:
        found += differences(recorded.get("system_prompt"), here["system_prompt"], "system_prompt")
    for name, about in (recorded.get("rewards") or {}).items():
        now = here["rewards"].get(name, {})
        both = [key for key in ("definition", "version", "scale") if key in about and key in now]
        found += differences({key: about[key] for key in both}, {key: now[key] for key in both}, name)
    return found


def _refusal(found: Sequence[str]) -> str:
    return (
        f"the decoder differs from the one that the solution is for ({'; '.join(found)}): use the same, solve anew, "
        "or say allow_mismatch=True"
    )


def _warn_of_unrecorded(solution: Solution, measured: Mapping[str, object]) -> None:
    recorded = solution.fingerprint
    parts = [part for part in ("model", "sampling") if not recorded.get(part)]
    rewards = recorded.get("rewards") or {}
    parts += [
        f"the reward of {name}"
        for name in dict.fromkeys(spec.value for spec in solution.resolved.specs)
        if name in measured and name not in rewards
    ]
    if parts:
        warnings.warn(
            f"the solution's pilot does not record {', '.join(parts)}: nobody can tell whether it is the same here",
            stacklevel=3,
        )
