"""The gateway without the web: a request that was read comes in, answers and a report of them go out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any
from uuid import uuid4

import numpy as np

from valuepalette.decoding import mismatches, sampling_of
from valuepalette.dual import Status
from valuepalette.engines import Candidate, Engine, Prompt, Sampling
from valuepalette.grouping import Array
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.rewards import Reward
from valuepalette.server.admitting import Gate
from valuepalette.server.asking import Asked
from valuepalette.server.canary import Canary
from valuepalette.server.deciding import Decider, Decision, Wanted
from valuepalette.server.metering import Meters
from valuepalette.server.planning import Plan, Planner, summary
from valuepalette.server.policies import Policies, Refusal
from valuepalette.server.scoring import Scorer, ScoringError
from valuepalette.server.selecting import Served, candidates, report, select
from valuepalette.server.sourcing import Source
from valuepalette.solution import Solution

__all__ = ["Answer", "Answered", "Gateway"]

log = logging.getLogger("valuepalette.server")


@dataclass(frozen=True)
class Answer:
    """One answer, with the report of its choice where there was one; `shown` are its candidates, where asked for."""

    candidate: Candidate
    report: Mapping[str, Any] | None = None
    shown: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Answered:
    """The answers, n to each prompt in turn, and the report of all of them."""

    answers: Sequence[Answer]
    report: Mapping[str, Any]


class Gateway:
    """Serves palettes solved on a pilot from an engine and rewards that are open; an async context manager.

        async with Gateway(pilot, engine, rewards, name="support-bot", palettes=study_palettes) as gateway:
            answered = await gateway.answer(await gateway.plan(asked))

    name        what clients call the model
    palettes    by name; requests may bring others
    floors      what every palette is intersected with
    candidates  k; the pilot's where None
    sampling    the settings of the model; the pilot's where None
    checks      values of the pilot that are second opinions: not scored here, never asked of
    solutions   of some of the palettes, found elsewhere, such as on traffic; they are served as they are
    on_served   is told of each group of k scored candidates; an error of it is logged and costs no answer

    Raises ValueError in one line where model, settings or rewards differ from the pilot's (policy `mismatch`), where
    floors cannot be had, and where the pilot has no texts for the canary.
    """

    def __init__(
        self,
        pilot: Pilot,
        engine: Engine,
        rewards: Mapping[str, Reward],
        *,
        name: str,
        palettes: Mapping[str, Palette],
        floors: Palette | None = None,
        candidates: int | None = None,
        sampling: Sampling | None = None,
        policies: Policies | None = None,
        weighting: str = "prompts",
        seed: int = 0,
        checks: Collection[str] = (),
        solutions: Mapping[str, Solution] | None = None,
        on_served: Callable[[Served], object] | None = None,
    ) -> None:
        self.pilot, self.policies = pilot, policies or Policies()
        k = candidates or pilot.candidates
        if k is None:
            raise ValueError(
                "candidates must say k, since the pilot's prompts differ in their number, got None"
            )
        self.source = Source(engine)
        self.scorer = Scorer(rewards, [value for value in pilot.values if value not in checks])
        self.decider = Decider(
            pilot,
            palettes,
            name=name,
            candidates=k,
            measured=self.scorer.columns,
            floors=floors,
            policies=self.policies,
            weighting=weighting,
            seed=seed,
            solutions=solutions,
        )
        self.canary = Canary(
            pilot, self.scorer, every=self.policies.canary, tolerance=self.policies.canary_tolerance
        )
        base = Solution.from_weights(pilot, {}, k, mode="prompt", weighting=weighting)
        self.sampling = sampling_of(base) if sampling is None else sampling
        self.different = self._differences(base, rewards)
        if self.different and self.policies.mismatch == "refuse":
            raise ValueError(
                f"what is served must be what the pilot was made with, but {'; '.join(self.different)}: sample and "
                'score anew, or serve it as unaligned by mismatch = "unaligned"'
            )
        self.texts = "prompt" in pilot.table.column_names
        self.planner = Planner(
            pilot,
            self.policies,
            self.sampling,
            k=k,
            forwards=self.source.forwards,
            different=self.different,
        )
        self.gate = Gate(self.policies.concurrency, self.policies.queue)
        self.meters = Meters(lambda: self.gate.inside, lambda: self.canary.state == "drifted")
        self.weighting, self.on_served = weighting, on_served
        self.started = False

    def _differences(self, base: Solution, rewards: Mapping[str, Reward]) -> list[str]:
        about: dict[str, dict[str, str]] = {}
        for name, reward in rewards.items():
            for column in reward.columns:
                entry = {"definition": column.definition, "version": reward.version}
                about[column.name] = {**entry, "scale": column.scale, "reward": name}
        sampling = asdict(self.sampling)
        system = sampling.pop("system_prompt")
        here = PilotMetadata(dict(self.source.engine.fingerprint), sampling, system, 0, about)
        return mismatches(base, here, int(base.candidates or 0))

    async def __aenter__(self) -> Gateway:
        self._solver = ThreadPoolExecutor(1, thread_name_prefix="solving")
        await self.source.__aenter__()
        await self.scorer.__aenter__()
        try:
            await self.canary.look()
        except ScoringError as error:
            log.warning("the canary did not pass: %s", error)
        self._watch = asyncio.create_task(self.canary.watch())
        await asyncio.get_running_loop().run_in_executor(self._solver, self._warm)
        self.started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.started = False
        self._watch.cancel()
        await self.scorer.__aexit__()
        await self.source.__aexit__()
        self._solver.shutdown(wait=False, cancel_futures=True)

    def _warm(self) -> None:
        """Solves the study's palettes, so that the first request of each need not wait."""
        for name in self.decider.palettes:
            try:
                self.decider.decide(Wanted(self.decider.name, name))
            except Refusal as refusal:
                if refusal.code != "columns":
                    log.warning("palette %s is not served: %s", name, refusal)

    def trouble(self) -> list[str]:
        """Why aligned answers are not served now; nothing where they are."""
        if not self.started:
            return ["the gateway is not started"]
        if self.canary.state == "unknown":
            return ["the rewards have not answered yet"]
        return [f"{name} moved by {far:.3g} standard deviations" for name, far in self.canary.drifted.items()]

    async def plan(self, asked: Asked) -> Plan:
        """How a request will be served; raises Refusal."""
        if not self.started:
            raise Refusal(503, "not_started", "the gateway is not started", after=1)
        until = asyncio.get_running_loop().time() + self.policies.deadline
        self.planner.check(asked)
        decision = await self.decided(asked.wanted)
        return self.planner.plan(asked, decision, self.trouble(), until)

    async def decided(self, wanted: Wanted) -> Decision:
        """Which solution serves it; what was not solved before is, in a thread."""
        known = self.decider.known(wanted)
        if known is not None:
            return known
        loop, began = asyncio.get_running_loop(), perf_counter()
        try:
            async with asyncio.timeout(self.policies.deadline):
                return await loop.run_in_executor(self._solver, self.decider.decide, wanted)
        except TimeoutError:
            raise Refusal(504, "deadline", "solving the palette took too long") from None
        finally:
            self.meters.took("solve", perf_counter() - began)

    async def answer(self, plan: Plan) -> Answered:
        """The answers of a plan that is not handed on; raises Refusal."""
        try:
            async with asyncio.timeout_at(plan.until), self.gate.turn:
                if plan.how == "choose":
                    return await self._chosen(plan)
                return self._plain(plan, await self._drawn(plan, plan.asked.n), plan.asked.n)
        except TimeoutError:
            raise Refusal(504, "deadline", f"no answer within {self.policies.deadline:g} s") from None

    async def forward(self, plan: Plan) -> dict[str, Any]:
        """What the model's server says to a request that is handed on."""
        try:
            async with asyncio.timeout_at(plan.until), self.gate.turn:
                return await self.source.forward(plan.asked.path, self.planner.content(plan))
        except TimeoutError:
            raise Refusal(504, "deadline", f"no answer within {self.policies.deadline:g} s") from None

    async def stream(self, plan: Plan) -> AsyncIterator[dict[str, Any]]:
        """The same chunk by chunk."""
        try:
            async with asyncio.timeout_at(plan.until), self.gate.turn:
                async for chunk in self.source.stream(plan.asked.path, self.planner.content(plan)):
                    yield chunk
        except TimeoutError:
            raise Refusal(504, "deadline", f"no end within {self.policies.deadline:g} s") from None

    async def _drawn(self, plan: Plan, k: int) -> list[list[Candidate]]:
        began = perf_counter()
        prompts = plan.asked.prompts
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_unwrapped(self.source.draw(prompt, k, plan.sampling, plan.seed)))
                for prompt in prompts
            ]
        found: list[list[Candidate]] = []
        for task in tasks:
            result = task.result()
            if isinstance(result, Refusal):
                raise result
            found.append(result)
        self.meters.took("draw", perf_counter() - began)
        self.meters.drew(k * len(prompts))
        return found

    async def _chosen(self, plan: Plan) -> Answered:
        """n answers, each one of k candidates of its own."""
        asked, k, n = plan.asked, plan.k, plan.asked.n
        drawn = await self._drawn(plan, n * k)
        prompts = [prompt for prompt in asked.prompts for _ in range(n * k)]
        texts = [candidate.text for own in drawn for candidate in own]
        began = perf_counter()
        try:
            values = await self._scored(prompts, texts)
        except ScoringError as error:
            self.meters.failed()
            log.warning("scoring failed: %s", error)
            if self.policies.reward_failure == "refuse":
                raise Refusal(503, "rewards", str(error), after=5) from None
            return self._plain(replace(plan, reasons=(*plan.reasons, str(error))), drawn, n)
        self.meters.took("score", perf_counter() - began)
        answers: list[Answer] = []
        request = uuid4().hex
        for place, prompt in enumerate(asked.prompts):
            for turn in range(n):
                first = turn * k
                own = drawn[place][first : first + k]
                rows = slice(place * n * k + first, place * n * k + first + k)
                here = {v: numbers[rows] for v, numbers in values.items()}
                answers.append(self._choice(plan, prompt, (request, place, turn), own, here))
        return Answered(answers, self._report(plan, drawn))

    async def _scored(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, Array]:
        try:
            return await asyncio.wait_for(self.scorer.score(prompts, texts), self.policies.scoring)
        except TimeoutError:
            raise ScoringError(f"the rewards took longer than {self.policies.scoring:g} s") from None

    def _choice(
        self,
        plan: Plan,
        prompt: Prompt,
        which: tuple[str, int, int],
        own: list[Candidate],
        values: dict[str, Array],
    ) -> Answer:
        """`which` names the request, which of its prompts this is, and which answer to it."""
        solution, asked = plan.decision.solution, plan.asked
        assert solution is not None
        columns = asked.wanted.columns
        chosen = select(solution, values, columns, seed=plan.seed, prompt=prompt, turn=which[2])
        if self.on_served is not None:
            turns = 1 if isinstance(prompt, str) else len(prompt)
            try:
                self.on_served(
                    Served(
                        *which,
                        plan.decision.label,
                        solution,
                        prompt,
                        turns,
                        columns,
                        asked.user,
                        plan.seed,
                        own,
                        values,
                        chosen,
                        not plan.reasons,
                    )
                )
            except Exception as error:
                log.error("on_served failed: %s", type(error).__name__)
        return Answer(
            own[chosen.index],
            report(plan.decision, chosen),
            candidates(own, values, chosen) if asked.show else None,
        )

    def _plain(self, plan: Plan, drawn: list[list[Candidate]], n: int) -> Answered:
        """Base answers: of every group of candidates the first, which is a draw of the base model."""
        answers = [Answer(own[turn * (len(own) // n)]) for own in drawn for turn in range(n)]
        return Answered(answers, self._report(plan, drawn))

    def _report(self, plan: Plan, drawn: list[list[Candidate]]) -> dict[str, Any]:
        tokens = sum(candidate.tokens for own in drawn for candidate in own)
        return {**summary(plan), "candidate_tokens": tokens}

    async def rewards(
        self,
        wanted: Wanted,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
        beta: float,
    ) -> tuple[Array, dict[str, Array]]:
        """β·λᵀf of each response, (n,), and each value; raises Refusal."""
        if not self.started:
            raise Refusal(503, "not_started", "the gateway is not started", after=1)
        decision = await self.decided(wanted)
        solution = decision.solution
        if solution is None:
            raise Refusal(400, "palette", "rewards need a palette, in model or beside it")
        if solution.status is Status.BOUNDARY:
            raise Refusal(
                422, "boundary", "the palette lies on the boundary, where no weights λ have its levels"
            )
        if trouble := self.trouble():
            raise Refusal(503, "rewards", f"rewards are not told now: {'; '.join(trouble)}", after=30)
        try:
            async with asyncio.timeout(self.policies.deadline), self.gate.turn:
                values = await self._scored(prompts, responses)
        except TimeoutError:
            raise Refusal(504, "deadline", f"no rewards within {self.policies.deadline:g} s") from None
        except ScoringError as error:
            self.meters.failed()
            raise Refusal(503, "rewards", str(error), after=5) from None
        names = tuple(values)
        table = np.column_stack([values[name] for name in names])
        features = solution.resolved.features_of(table, names, columns, partial=True)
        measured = solution.resolved.measured(names, columns)
        return beta * (np.where(measured, features, 0.0) @ solution.weights.array), values


async def _unwrapped(draw: Any) -> Any:
    """A Refusal as a value: a task group would wrap it."""
    try:
        return await draw
    except Refusal as refusal:
        return refusal
