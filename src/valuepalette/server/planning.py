"""How a request is served: the operator's policies on what it asks for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from valuepalette.engines import Sampling
from valuepalette.pilot import Pilot
from valuepalette.server.asking import Asked
from valuepalette.server.deciding import Decision
from valuepalette.server.policies import Policies, Refusal
from valuepalette.server.selecting import told

__all__ = ["Plan", "Planner", "summary"]


@dataclass(frozen=True, eq=False)
class Plan:
    """How a request will be served.

    how      "choose" one of k candidates; "draw" from the base model; "forward" to the model's server as it is
    reasons  why the answer will not be aligned; none where it will be
    until    when its time is over, on the loop's clock
    """

    asked: Asked
    decision: Decision
    how: Literal["choose", "draw", "forward"]
    sampling: Sampling
    seed: int
    k: int
    reasons: tuple[str, ...]
    until: float


class Planner:
    """Applies policies.

    sampling   the settings of the pilot
    k          candidates of an answer, where a request does not say
    forwards   whether the model's server can be handed a request as it is
    different  in what model, settings or rewards differ from the pilot's, by policy
    """

    def __init__(
        self,
        pilot: Pilot,
        policies: Policies,
        sampling: Sampling,
        *,
        k: int,
        forwards: bool,
        different: Sequence[str],
    ) -> None:
        self._policies, self._sampling, self._k = policies, sampling, k
        self._forwards, self._different = forwards, tuple(different)
        self._own_systems = _has_system_turns(pilot)

    def check(self, asked: Asked) -> None:
        """What is refused whatever palette it is; raises Refusal."""
        most = self._policies.most_answers
        if asked.n * len(asked.prompts) > most:
            raise Refusal(400, "n", f"n must be at most {most} answers in all, got {asked.n}")
        if asked.show and not self._policies.show_candidates:
            raise Refusal(403, "return_candidates", "candidates are not shown here")

    def plan(self, asked: Asked, decision: Decision, trouble: Sequence[str], until: float) -> Plan:
        """The plan of a request; `trouble` is why aligned answers are not served now. Raises Refusal."""
        k = asked.wanted.candidates or self._k
        assert isinstance(k, int)
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        how, reasons = self._how(asked, decision, trouble)
        if asked.show and how != "choose":
            raise Refusal(400, "return_candidates", "there are no candidates of a base answer")
        if asked.raw.get("stream_options", {}).get("include_usage") and how != "forward":
            raise Refusal(400, "stream_options", "include_usage: tokens of prompts are not counted here")
        try:
            sampling = replace(self._sampling, **asked.sampling)
        except (ValueError, TypeError) as error:
            raise Refusal(400, "sampling", str(error)) from None
        return Plan(asked, decision, how, sampling, seed, k, reasons, until)

    def _how(
        self, asked: Asked, decision: Decision, trouble: Sequence[str]
    ) -> tuple[Literal["choose", "draw", "forward"], tuple[str, ...]]:
        forwards = self._forwards
        if asked.extras:
            named = ", ".join(asked.extras[:5])
            if decision.solution is not None and self._policies.extras == "refuse":
                raise Refusal(
                    400, "extras", f"answers are not chosen by a palette where a request has {named}; refused"
                )
            if not forwards:
                raise Refusal(400, "extras", f"{named}: only a model behind a server can be asked for that")
            return "forward", (f"handed on for {named}",)
        if decision.solution is None:
            return ("forward" if forwards else "draw"), ("no palette was asked for",)
        if trouble and self._policies.reward_failure == "refuse":
            raise Refusal(
                503, "rewards", f"aligned answers are not served now: {'; '.join(trouble)}", after=30
            )
        if trouble:
            return "draw", tuple(trouble)
        found = [*self._deviations(asked)]
        if found and self._policies.mismatch == "refuse":
            raise Refusal(
                400,
                "mismatch",
                f"the palette was solved for other settings ({'; '.join(found)}); leave these out",
            )
        return "choose", (*self._different, *found)

    def _deviations(self, asked: Asked) -> list[str]:
        """What a request asks for that the pilot was not drawn with, as pilot -> request."""
        mine = asdict(self._sampling)
        found = [
            f"{name}: {mine[name]} -> {entry}"
            for name, entry in asked.sampling.items()
            if mine[name] != entry
        ]
        if not self._own_systems:
            if any(place > 0 for place in asked.system):
                found.append("a system turn amid the conversation")
            elif asked.system and asked.system[0] != self._sampling.system_prompt:
                found.append("the system turn is not the pilot's system prompt")
        return found

    def content(self, plan: Plan) -> dict[str, Any]:
        """The request with the pilot's settings where it has none of its own."""
        mine, raw = self._sampling, dict(plan.asked.raw)
        raw.setdefault("temperature", mine.temperature)
        raw.setdefault("top_p", mine.top_p)
        raw.setdefault("seed", plan.seed % 2**31)
        if "max_completion_tokens" not in raw:
            raw.setdefault("max_tokens", mine.max_new_tokens)
        if mine.top_k:
            raw.setdefault("top_k", mine.top_k)
        if mine.stop:
            raw.setdefault("stop", list(mine.stop))
        if "messages" in raw and mine.system_prompt is not None and not plan.asked.system:
            raw["messages"] = [{"role": "system", "content": mine.system_prompt}, *raw["messages"]]
        return raw


def summary(plan: Plan) -> dict[str, Any]:
    """What is known of the answers before they are there."""
    found: dict[str, Any] = {"aligned": not plan.reasons, "reasons": list(plan.reasons), "seed": plan.seed}
    if plan.how == "choose":
        found |= {"candidates": plan.k, **told(plan.decision)}
    elif plan.decision.solution is not None:
        found["palette"] = plan.decision.label
    else:
        found["palette"] = None
    return found


def _has_system_turns(pilot: Pilot) -> bool:
    """Whether the pilot's prompts bring system turns of their own, so that a request may too."""
    if "messages" not in pilot.table.column_names:
        return False
    return any(
        turn["role"] == "system"
        for messages in pilot.table["messages"].to_pylist()
        for turn in messages or ()
    )
