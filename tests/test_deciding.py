"""Which solution serves a request, and what is refused: no web, no engine, no reward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from valuepalette.dual import Status
from valuepalette.monitoring.renewing import renew
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.server.deciding import BASE, CUSTOM, Decider, Wanted
from valuepalette.server.policies import Policies, Refusal
from valuepalette.solution import Solution
from valuepalette.solving import solve

PALETTES = {
    "funny": Palette({"humor": "reach 60%"}),
    "kids": Palette({"humor": "keep"}, cohorts={"audience=children": {"safety": "reach 30%"}}),
}


@pytest.fixture(scope="module")
def pilot() -> Pilot:
    """Humor against safety: what has more of one has less of the other."""
    rng = np.random.default_rng(0)
    humor = rng.normal(size=320)
    safety = -0.8 * humor + 0.6 * rng.normal(size=320)
    return Pilot.from_arrays(
        {"humor": humor, "safety": safety},
        prompt_id=np.repeat(np.arange(40), 8),
        columns={"audience": np.repeat(np.array(["children", "adults"])[np.arange(40) % 2], 8)},
    )


def decider(pilot: Pilot, floors: Palette | None = None, *, keep: int = 256, **policies: Any) -> Decider:
    return Decider(
        pilot,
        PALETTES,
        name="org/model",
        candidates=8,
        measured=pilot.values,
        floors=floors,
        policies=Policies(**policies),
        keep=keep,
    )


def refused(made: Decider, wanted: Wanted) -> Refusal:
    with pytest.raises(Refusal) as caught:
        made.decide(wanted)
    assert "\n" not in caught.value.message
    return caught.value


def test_the_models_name_carries_the_palette(pilot: Pilot) -> None:
    made = decider(pilot)
    found = made.decide(Wanted("org/model/funny"))
    assert found.label == "funny"
    assert found.solution is not None
    wanted = solve(pilot, PALETTES["funny"], 8)
    np.testing.assert_array_equal(found.solution.weights.array, wanted.weights.array)
    base = made.decide(Wanted("org/model"))
    assert (base.label, base.palette, base.solution) == (BASE, None, None)
    for name in ("org", "model/funny", "org/model/", "org/model/none", "org/model/funny/funny", ""):
        assert refused(made, Wanted(name)).status == 404


def test_a_request_brings_its_palette(pilot: Pilot) -> None:
    made = decider(pilot)
    found = made.decide(Wanted("org/model", {"humor": "+0.3", "safety": ["<= 2", "base-1"]}, candidates=4))
    assert found.label == CUSTOM
    assert found.solution is not None
    assert found.solution.candidates == 4
    named = made.decide(Wanted("org/model", "funny"))
    assert named.label == "funny"
    cohort = {"humor": "max", "cohorts": {"audience=children": {"safety": "keep"}}, "kl": 0.5}
    assert made.decide(Wanted("org/model", cohort, columns={"audience": "children"})).palette == Palette(
        {"humor": "max"}, cohorts={"audience=children": {"safety": "keep"}}, kl=0.5
    )


@pytest.mark.parametrize(
    ("palette", "said"),
    [
        ({"humour": 1}, "may ask of humor, safety"),
        ({"humor": "lots"}, "an entry is"),
        ({"humor": float("nan")}, "finite"),
        ({"humor": 10**400}, "finite"),
        ({"humor": None}, "a number or a text"),
        ({"humor": {"a": 1}}, "a number or a text"),
        ({"humor": []}, "at least one"),
        ({"humor": "x1.2"}, "needs a value whose scale"),
        ({"humor": 1e300}, "standard deviations"),
        ({"humor": "max", "kl": -1}, "kl must be"),
        ({"cohorts": {"audience": {"humor": 1}}}, "COLUMN=ENTRY"),
        ({"cohorts": {"size=3": {"humor": 1}}}, "size"),
        ({"humor": ["keep"] * 65}, "at most 64 entries"),
    ],
)
def test_what_makes_no_sense_is_400(pilot: Pilot, palette: Any, said: str) -> None:
    refusal = refused(decider(pilot), Wanted("org/model", palette))
    assert refusal.status == 400
    assert said in refusal.message


def test_other_requests_that_make_no_sense(pilot: Pilot) -> None:
    made = decider(pilot)
    assert refused(made, Wanted("org/model/funny", {"humor": 1})).status == 400
    assert refused(made, Wanted("org/model", "nonsense")).status == 404
    assert refused(made, Wanted("org/model/funny", candidates=9)).status == 400
    assert refused(made, Wanted("org/model/funny", candidates=1)).status == 400
    assert refused(made, Wanted("org/model/funny", columns={"size": 3})).status == 400
    assert "audience" in refused(made, Wanted("org/model/kids")).message
    assert refused(decider(pilot, palettes="named"), Wanted("org/model", {"humor": 1})).status == 400
    assert made.decide(Wanted("org/model/kids", columns={"audience": "adults"})).label == "kids"


def test_what_cannot_be_had_is_422_with_proof_and_nearest(pilot: Pilot) -> None:
    made = decider(pilot)
    refusal = refused(made, Wanted("org/model", {"humor": "reach 80%", "safety": "reach 80%"}))
    assert refusal.status == 422
    assert "cannot average above" in refusal.detail["proof"]
    nearest = refusal.detail["nearest"]["palette"]
    served = made.decide(Wanted("org/model", nearest))
    assert served.solution is not None
    assert served.solution.status is Status.OPTIMAL
    crossed = refused(made, Wanted("org/model", {"humor": ["0.5", "<= 0.2"]}))
    assert crossed.status == 422
    assert crossed.detail["nearest"] is None


def test_by_policy_the_nearest_is_served_and_named(pilot: Pilot) -> None:
    asked = {"humor": "reach 80%", "safety": "reach 80%"}
    found = decider(pilot, infeasible="adjust").decide(Wanted("org/model", asked))
    assert found.asked == Palette(asked)
    assert found.solution is not None
    assert found.solution.status is Status.OPTIMAL


def test_the_boundary_is_served(pilot: Pilot) -> None:
    found = decider(pilot).decide(Wanted("org/model", {"humor": "reach 100%"}))
    assert found.solution is not None
    assert found.solution.status is Status.BOUNDARY


@pytest.mark.parametrize(
    "palette",
    [
        None,
        {"humor": "reach 40%"},
        {"humor": "reach 60%", "safety": "free"},
        {"safety": "base-5"},
        {"safety": "<= 5"},
        {"safety": "reach 50%"},
    ],
)
def test_nobody_asks_below_the_floors(pilot: Pilot, palette: Any) -> None:
    """Whatever is asked, what is served has the floor; humor pulls safety down where nothing holds it."""
    floors = Palette({"safety": "base-0.1"})
    free = solve(pilot, {"humor": "reach 40%"}, 8)
    assert free.levels["safety"] < free.base["safety"] - 0.2
    made = decider(pilot, floors, infeasible="adjust")
    solution = made.decide(Wanted("org/model", palette)).solution
    assert solution is not None
    floor = float(solve(pilot, floors, 8).lower[0])
    assert solution.levels["safety"] >= floor - 1e-9
    assert solution.lower[solution.features.index("safety")] >= floor - 1e-9


def test_a_palette_that_is_adjusted_keeps_the_floors(pilot: Pilot) -> None:
    """The nearest levels would give up some of the floor; what is served is on the way from the floors instead."""
    floors = Palette({"safety": "reach 70%"})
    floor = float(solve(pilot, floors, 8).lower[0])
    made = decider(pilot, floors, infeasible="adjust")
    found = made.decide(Wanted("org/model", {"humor": "reach 80%"}))
    assert found.asked is not None
    assert found.solution is not None
    assert found.solution.levels["safety"] >= floor - 1e-8
    alone = solve(pilot, floors, 8)
    assert found.solution.levels["humor"] > alone.levels["humor"] + 0.1
    # It is as far as one can go: a little more cannot be had.
    more = found.solution.levels["humor"] + 0.01
    beyond = solve(pilot, {"humor": more, "safety": floor}, 8, on_infeasible="return")
    assert beyond.status is Status.INFEASIBLE
    refusal = refused(decider(pilot, floors), Wanted("org/model", {"humor": "reach 80%"}))
    again = decider(pilot, floors).decide(Wanted("org/model", refusal.detail["nearest"]["palette"]))
    assert again.solution is not None
    assert again.solution.levels["safety"] >= floor - 1e-8


def test_floors_that_cannot_be_had(pilot: Pilot) -> None:
    with pytest.raises(ValueError, match="floors must be a palette that can be had"):
        decider(pilot, Palette({"humor": 50}))


def test_what_was_solved_is_kept_and_no_more_than_that(pilot: Pilot) -> None:
    made = decider(pilot, keep=2)
    first = made.decide(Wanted("org/model/funny"))
    assert made.known(Wanted("org/model", {"humor": "reach 60%"})).solution is first.solution  # type: ignore[union-attr]
    assert made.known(Wanted("org/model/funny", candidates=4)) is None
    made.decide(Wanted("org/model", {"humor": "+0.1"}))
    made.decide(Wanted("org/model/funny"))
    made.decide(Wanted("org/model", {"humor": "+0.2"}))
    assert made.known(Wanted("org/model/funny")) is not None
    assert made.known(Wanted("org/model", {"humor": "+0.1"})) is None
    impossible = Wanted("org/model", {"humor": 50})
    refused(made, impossible)
    with pytest.raises(Refusal):
        made.known(impossible)


def test_a_solution_from_elsewhere_is_served_where_it_is_the_palettes(pilot: Pilot) -> None:
    rng = np.random.default_rng(1)
    fresh = Pilot.from_arrays(
        {"humor": rng.normal(0.2, 1.0, size=320), "safety": rng.normal(size=320)},
        prompt_id=np.repeat(np.arange(40), 8),
    )
    served = solve(pilot, PALETTES["funny"], 4)
    today = renew(fresh, served)
    assert dict(today.weights) != pytest.approx(dict(served.weights), abs=0.01)

    def made(solutions: dict[str, Solution], floors: Palette | None = None) -> Decider:
        return Decider(
            pilot,
            PALETTES,
            name="org/model",
            candidates=4,
            measured=pilot.values,
            floors=floors,
            solutions=solutions,
        )

    decides = made({"funny": today})
    for request, solution in (
        (Wanted("org/model/funny"), today),
        (Wanted("org/model/funny", candidates=3), solve(pilot, PALETTES["funny"], 3)),
        (Wanted("org/model", {"humor": "reach 60%"}), served),  # whoever brings a palette has it solved
    ):
        found = decides.decide(request).solution
        assert found is not None
        assert dict(found.weights) == pytest.approx(dict(solution.weights))
    elsewhere = replace(today, fingerprint={**today.fingerprint, "rewards": {"humor": {"version": "2"}}})
    assert made({"funny": elsewhere})  # the pilot records no version to compare
    limit = solve(pilot, PALETTES["funny"], "limit")
    more = renew(fresh, solve(pilot, Palette({"humor": ["reach 60%", "P(< -3) <= 0.5"]}), 4))
    for solutions, floors, said in (
        ({"other": today}, None, "must name one of"),
        ({"kids": today}, None, "must ask what the palette asks on this pilot"),
        ({"funny": solve(fresh, PALETTES["funny"], 4)}, None, "must ask what the palette asks on this pilot"),
        (
            {"funny": today},
            Palette({"safety": "keep"}),
            "must ask what the palette asks on this pilot, safety",
        ),
        ({"funny": limit}, None, "must be solved for k from 2 to 4"),
        ({"funny": replace(today, status=Status.NUMERICAL)}, None, "must be solved for k .*, got NUMERICAL"),
        ({"funny": more}, None, r"which is nothing of P\(humor < -3\)"),
    ):
        with pytest.raises(ValueError, match=said):
            made(solutions, floors)
