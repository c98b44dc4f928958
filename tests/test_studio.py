"""The studio without a browser: what it computes, and whom it answers."""

from __future__ import annotations

import json
import shlex
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import test_study
import valuepalette as vp
from studios import opened, studio
from valuepalette.decoding import choose
from valuepalette.pilot import Pilot
from valuepalette.studio.asking import (
    Adjusting,
    Asked,
    Faults,
    Reaching,
    Solving,
    faults_of,
    read_palette,
    split,
)
from valuepalette.studio.atelier import Atelier
from valuepalette.studio.guarding import names_of
from valuepalette.studio.opening import Opened, open_source
from valuepalette.studio.reweighing import bins_of, chances, draw, share
from valuepalette.studio.running import bound
from valuepalette.studio.working import Lanes


def pilot(k: int = 6, prompts: int = 30) -> Pilot:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(2, prompts * k))
    return Pilot.from_arrays(
        {"humor": values[0], "care": values[1] - 0.5 * values[0]},
        prompts=[f"What is {i}?" for i in range(prompts) for _ in range(k)],
        responses=[f"{j} of {i}" for i in range(prompts) for j in range(k)],
        columns={"audience": np.repeat(["children", "adults", "adults"] * (prompts // 3), k)},
    )


@pytest.fixture(scope="module")
def atelier() -> Atelier:
    return Atelier(opened(pilot()))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with studio(opened(pilot())) as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found


# What is computed.


def test_figures_are_those_of_solve(atelier: Atelier):
    told = atelier.solve(Solving(entries={"humor": "reach 50%", "care": "keep"}, candidates=4))
    solution = vp.solve(atelier.pilot, {"humor": "reach 50%", "care": "keep"}, 4)
    assert told["status"] == "OPTIMAL"
    assert [feature["weight"] for feature in told["features"]] == solution.weights.array.tolist()
    assert [feature["level"] for feature in told["features"]] == solution.levels.array.tolist()
    assert told["kl"] == solution.kl
    assert told["effective"] == solution.effective


def test_chances_are_the_decoders(atelier: Atelier):
    told = atelier.solve(Solving(entries={"humor": "reach 50%"}, prompt=7))
    chosen = choose(atelier.pilot, vp.solve(atelier.pilot, {"humor": "reach 50%"}))
    mine = chosen.table["probability"].to_numpy()[chosen.prompt_index == 7]
    np.testing.assert_allclose(told["chances"], mine, atol=1e-6)


@pytest.mark.parametrize(
    "entries", [{"humor": "reach 60%"}, {"humor": "reach 100%"}, {"humor": "reach 100%", "care": "<= keep"}]
)
def test_chances_of_every_prompt_are_those_of_probabilities(entries: dict[str, str]):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, size=(2, 80)).astype(float)
    small = Pilot.from_arrays({"humor": values[0], "care": values[1]}, prompt_id=np.repeat(np.arange(10), 8))
    solution = vp.solve(small, entries, on_infeasible="return")
    features = solution.features_of(small)[0]
    found = chances(solution, features, draw(small.starts, 8)).reshape(10, 8)
    for g in range(10):
        np.testing.assert_allclose(found[g], solution.probabilities(features[8 * g : 8 * g + 8]), atol=1e-12)


def test_below_the_pilots_k_draws_average_to_the_levels():
    big = pilot(k=8, prompts=300)
    solution = vp.solve(big, {"humor": "reach 60%"}, 4)
    features = solution.features_of(big)[0][big.order]
    chance = chances(solution, features, draw(big.starts, 4, partitions=16))
    np.testing.assert_allclose(np.add.reduceat(chance, big.starts[:-1]), 1)
    assert chance @ features[:, 0] / 300 == pytest.approx(solution.levels["humor"], abs=0.02)


def test_prompts_of_different_sizes_are_drawn_from_alike():
    starts = np.array([0, 3, 8, 10])
    draws = draw(starts, 2)
    nothing = vp.Solution.from_weights(
        Pilot.from_arrays({"humor": np.zeros(10)}, prompt_id=np.repeat([0, 1, 2], [3, 5, 2])),
        {"humor": 0.0},
        2,
    )
    found = chances(nothing, np.zeros((10, 1)), draws)
    np.testing.assert_allclose(np.add.reduceat(found, starts[:-1]), 1)


def test_a_distribution_adds_up_and_moves_with_the_level(atelier: Atelier):
    about = atelier.about()
    before = about["values"][0]["before"]
    after = atelier.solve(Solving(entries={"humor": "reach 70%"}))["after"]["humor"]
    middles = np.array(about["values"][0]["edges"])[:-1]
    assert sum(before) == pytest.approx(1, abs=1e-4)
    assert sum(after) == pytest.approx(1, abs=1e-4)
    assert middles @ after > middles @ before + 0.3


def test_bins_hold_everything_and_a_constant():
    bins = bins_of(np.r_[np.linspace(0, 1, 1000), 50.0])
    assert bins.edges[-1] < 2
    assert share(bins, np.ones(1001)).sum() == pytest.approx(1)
    assert np.isfinite(share(bins_of(np.zeros(5)), np.ones(5))).all()


def test_what_cannot_be_had_comes_with_its_proof_and_without_levels(atelier: Atelier):
    told = atelier.solve(Solving(entries={"humor": "reach 95%", "care": "reach 95%"}, prompt=0))
    assert told["status"] == "INFEASIBLE"
    assert "cannot average above" in told["proof"]
    assert told["after"] is None
    assert told["chances"] is None
    assert all(feature["level"] is None and feature["weight"] is None for feature in told["features"])


@pytest.mark.parametrize("method", ["interpolate", "greedy", "nearest"])
def test_an_adjusted_palette_can_be_had(atelier: Atelier, method: Any):
    asked = {"humor": "reach 95%", "care": "reach 95%"}
    found = atelier.adjust(Adjusting(entries=asked, method=method))
    assert found["in_the_way"]
    told = atelier.solve(Solving(entries=found["entries"], cohorts=found["cohorts"], kl=found["kl"]))
    assert told["status"] in ("OPTIMAL", "BOUNDARY")


def test_ranges_are_those_of_reach_and_coarse_ones_are_near(atelier: Atelier):
    entries = {"humor": "reach 60%", "care": "keep"}
    exact, coarse = (
        atelier.reach(Reaching(entries=entries, feature="care", gap=gap)) for gap in (1e-6, 0.05)
    )
    alone = vp.reach(atelier.pilot, {"humor": "reach 60%"}, "care")
    assert (exact["low"], exact["high"]) == pytest.approx((alone.low, alone.high), abs=1e-5)
    assert (coarse["low"], coarse["high"]) == pytest.approx((alone.low, alone.high), abs=0.1)
    nothing = atelier.reach(Reaching(entries={"humor": ">= 50"}, feature="care"))
    assert nothing["low"] is None


def test_every_kind_of_entry_and_cohorts(atelier: Atelier):
    told = atelier.solve(
        Solving(
            entries={"humor": "q55, P(< -2) <= x0.5", "care": "<= +0.1"},
            cohorts={"audience=children": {"care": "keep"}},
        )
    )
    names = [feature["name"] for feature in told["features"]]
    assert names == ["humor", "P(humor < -2)", "care", "care @ audience=children"]
    assert [feature["cohort"] for feature in told["features"]][-1] == "audience=children"
    most = atelier.solve(Solving(entries={"humor": "max"}, kl=0.2))
    assert most["kl"] == pytest.approx(0.2, abs=1e-3)
    # A budget waits where nothing is asked to be as high as it can.
    assert atelier.solve(Solving(entries={"humor": "keep"}, kl=0.2))["status"] == "OPTIMAL"


def test_cohorts_are_offered_with_their_own_ends(atelier: Atelier):
    assert {cohort["name"] for cohort in atelier.about()["cohorts"]} == {
        "audience=children",
        "audience=adults",
    }
    own = atelier.of_cohort("audience=children", 6)["care"]
    children = atelier.pilot.select(np.repeat(atelier.pilot.column("audience") == "children", 6))
    alone = vp.reach(children, None, "care")
    assert (own["base"], own["low"], own["high"]) == pytest.approx((alone.base, alone.low, alone.high))


def test_a_plan_has_a_line_for_each_k(atelier: Atelier):
    found = atelier.plan(Asked(entries={"humor": "reach 50%"}))
    assert {2, 4, 6} <= {each["candidates"] for each in found["choices"]}
    assert found["choices"][-1]["status"] == "OPTIMAL"


@pytest.mark.filterwarnings("ignore:only 0%")
def test_one_answer_a_prompt_means_joint_mode():
    single = Atelier(opened(Pilot.from_arrays({"humor": np.arange(20.0)}, prompt_id=np.arange(20))))
    assert single.about()["joint"]
    assert single.about()["choices"] == []
    told = single.solve(Solving(entries={"humor": "12"}, prompt=3))
    assert told["status"] == "OPTIMAL"
    assert sum(told["after"]["humor"]) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="no k to choose"):
        single.plan(Asked(entries={"humor": "12"}))


def test_in_joint_mode_the_distribution_has_the_level():
    sizes = np.where(np.arange(60) % 2, 1, 7)  # rows of few answers weigh more
    ids = np.repeat(np.arange(60), sizes)
    humor = np.random.default_rng(0).normal(size=len(ids)) + ids % 2
    joint = Atelier(opened(Pilot.from_arrays({"humor": humor}, prompt_id=ids), solve={"mode": "joint"}))
    told = joint.solve(Solving(entries={"humor": "+0.3"}))
    edges = joint.bins["humor"].edges
    mean = (edges[1:] + edges[:-1]) / 2 @ np.array(told["after"]["humor"])
    assert mean == pytest.approx(told["features"][0]["level"], abs=0.05)


def test_prompts_are_found_by_their_text(atelier: Atelier):
    found = atelier.prompts("IS 2")
    assert [each["number"] for each in found["prompts"]] == [2, *range(20, 30)]
    assert atelier.prompts(most=3)["found"] == 30
    content = atelier.answers(4)
    assert content["messages"] == [{"role": "user", "content": "What is 4?"}]
    assert [answer["text"] for answer in content["answers"]][:2] == ["0 of 4", "1 of 4"]
    with pytest.raises(ValueError, match="prompt must lie between 0 and 29, got 30"):
        atelier.answers(30)


def test_a_conversation_keeps_its_turns():
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    told = Atelier(
        opened(Pilot.from_arrays({"humor": [0.0, 1.0]}, prompts=[talk, talk], responses=["a", "b"]))
    )
    assert told.answers(0)["messages"] == talk
    assert told.prompts("why")["found"] == 1


# What a palette may be.


def test_every_entry_that_cannot_be_read_is_named():
    asked = Asked(
        entries={"humor": "wat", "care": "keep", "joy": "1"}, cohorts={"audience=x": {"care": "q900"}}
    )
    with pytest.raises(Faults) as caught:
        read_palette(asked, ("humor", "care"))
    where = [(fault["cohort"], fault["value"]) for fault in caught.value.found]
    assert where == [(None, "humor"), (None, "joy"), ("audience=x", "care")]
    assert "0 to 100, got 900" in str(caught.value.found[-1]["message"])


def test_an_error_whose_entry_cannot_be_told_names_none():
    name = """a'"']: b"""
    assert faults_of(ValueError(f"palette[{name!r}]: must be a number")) == []


def test_a_browser_leaves_out_the_webs_own_port():
    assert names_of(80) == {"127.0.0.1", "localhost"}
    assert names_of(8080) == {"127.0.0.1:8080", "localhost:8080"}


def test_entries_have_a_limit():
    with pytest.raises(Faults, match="at most 48 entries"):
        read_palette(Asked(entries={"humor": ",".join(["keep"] * 49)}), ("humor",))


def test_nothing_asked_is_the_model_as_it_is():
    assert read_palette(Asked(entries={"humor": " , "}), ("humor", "care")).entries == {
        "humor": "free",
        "care": "free",
    }
    assert split(" ") == []


# What goes out again: solving it gives the same weights.


@pytest.mark.parametrize(
    "asked",
    [
        Asked(entries={"humor": "reach 50%", "care": "keep, P(< -2) <= x0.9"}, candidates=4),
        Asked(entries={"humor": "0.25"}, cohorts={"audience=children": {"care": "keep"}}),
        Asked(entries={"humor": "max"}, kl=0.25, candidates=6),
        Asked(entries={"humor": "== 0.2"}),
    ],
)
def test_exports_solve_to_the_same_weights(
    atelier: Atelier, asked: Asked, capsys: pytest.CaptureFixture[str]
):
    texts = atelier.export(asked)
    told = atelier.solve(Solving(**asked.model_dump()))
    wanted = {f["name"]: f["weight"] for f in told["features"] if f["weight"]}

    def same(solution: vp.Solution) -> None:
        """Up to rounding: features come in another order."""
        found = {name: weight for name, weight in solution.weights.items() if weight}
        assert found == pytest.approx(wanted, rel=1e-12)

    table = tomllib.loads(texts["toml"])
    entries = table["palettes"]["studio"]
    palette = vp.Palette(
        {name: entry for name, entry in entries.items() if name not in ("cohorts", "kl")},
        cohorts=entries.get("cohorts"),
        kl=entries.get("kl"),
    )
    same(vp.solve(atelier.pilot, palette, table["solve"]["candidates"]))
    names: dict[str, Any] = {}
    code = texts["python"].replace('vp.Pilot.read("pilot.parquet")', "PILOT")
    exec(code, {"PILOT": atelier.pilot}, names)
    same(names["solution"])
    assert "OPTIMAL" in capsys.readouterr().out
    body = json.loads(shlex.split(texts["curl"])[-1])
    palette = vp.Palette(
        {name: entry for name, entry in body["palette"].items() if name not in ("cohorts", "kl")},
        cohorts=body["palette"].get("cohorts"),
        kl=body["palette"].get("kl"),
    )
    same(vp.solve(atelier.pilot, palette, body["candidates"]))
    assert ("columns" in body) == bool(asked.cohorts)


def test_a_request_names_the_entry_of_each_column():
    rows = np.arange(48)
    columns = {"age_group": np.where(rows < 24, "old", "young"), "age": np.where(rows % 24 < 12, "7", "8")}
    values = {"humor": np.random.default_rng(0).normal(size=48)}
    made = Atelier(opened(Pilot.from_arrays(values, prompt_id=rows // 4, columns=columns)))
    keep = {"humor": "keep"}
    texts = made.export(Asked(cohorts={"age_group=old": keep, "age=7": keep}))
    body = json.loads(shlex.split(texts["curl"])[-1])
    assert body["columns"] == {"age_group": "old", "age": "7"}


def test_trl_gets_its_settings_or_the_reason(atelier: Atelier):
    assert "RLOOConfig" in atelier.export(Asked(entries={"humor": "+0.2"}))["trl"]
    refused = atelier.export(Asked(entries={"humor": "reach 99%"}))["trl"]
    assert refused.startswith("# No trainer's optimum has these levels:\n# ")


def test_hostile_names_survive_every_export():
    name = """x"; rm -rf ~ '$(echo)' <script>"""
    made = opened(Pilot.from_arrays({name: np.tile([0.0, 1.0], 9)}, prompt_id=np.repeat(np.arange(9), 2)))
    texts = Atelier(made).export(Asked(entries={name: "keep"}))
    assert tomllib.loads(texts["toml"])["palettes"]["studio"] == {name: "keep"}
    assert json.loads(shlex.split(texts["curl"])[-1])["palette"] == {name: "keep"}
    compile(texts["python"], "export", "exec")


# What is opened.


def test_the_example_is_opened_where_nothing_is_named():
    found = open_source()
    assert found.pilot.prompts == 60
    assert found.code == "vp.example_pilot()"


def test_a_study_brings_its_palettes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = test_study.write(tmp_path)
    study = test_study.study(path)
    study.sample(quiet=True)
    study.score(quiet=True)
    monkeypatch.setattr("valuepalette.studio.opening.Study.read", classmethod(lambda *_: study))
    found = open_source(path)
    assert set(found.palettes) == {"funny", "impossible"}
    assert found.checks == ("shortness",)
    made = Atelier(found)
    assert made.about()["candidates"] == 4
    assert made.about()["palettes"]["funny"]["entries"] == {"goats": "reach 50%", "variety": "keep"}
    solved = study.solve("funny")
    told = made.solve(Solving(entries={"goats": "reach 50%", "variety": "keep"}))
    weights = {f["name"]: f["weight"] for f in told["features"]}
    assert weights == {**dict.fromkeys(weights, 0.0), **dict(solved.weights)}
    run = open_source(study.folder)
    assert run.pilot.prompts == found.pilot.prompts
    assert open_source(study.folder / "pilot").pilot.rows == found.pilot.rows


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match=r"name a study\.toml"):
        open_source(tmp_path / "nothing.parquet")
    Pilot.from_arrays({}, prompts=["a"], responses=["b"]).write(tmp_path / "plain.parquet")
    with pytest.raises(ValueError, match="holds no values: score it first"):
        open_source(tmp_path / "plain.parquet")


def test_a_taken_port_is_said():
    with bound(0) as door, pytest.raises(OSError, match="cannot be had"), bound(door.getsockname()[1]):
        pass


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_said(port: int):
    with pytest.raises(ValueError, match=f"^port must lie between 0 and 65535, got {port}$"), bound(port):
        pass


def test_the_door_is_this_machines_and_holds_nothing_back():
    with bound(0) as door:
        assert door.getsockname()[0] == "127.0.0.1"
        assert door.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's algorithm on


def test_two_studios_in_one_process_share_nothing():
    other = Pilot.from_arrays({"joy": np.tile([0.0, 1.0], 9)}, prompt_id=np.repeat(np.arange(9), 2))
    with studio(opened(pilot())) as one, studio(opened(other)) as two:
        names = [[v["name"] for v in httpx.get(f"{url}/api/about").json()["values"]] for url in (one, two)]
    assert names == [["humor", "care"], ["joy"]]


def test_the_slow_lane_is_a_process_of_its_own_and_comes_back():
    with studio(opened(pilot()), apart=True) as url, httpx.Client(base_url=url, timeout=120) as client:
        asked = {"entries": {"humor": "keep"}, "feature": "care"}
        first = client.post("/api/reach", json=asked).json()
        assert first["low"] < first["high"]
        assert client.post("/api/plan", json={"entries": {"humor": "wat"}}).status_code == 422


def test_a_worker_that_was_ended_is_begun_again():
    import asyncio

    lanes = Lanes(opened(pilot()))
    try:

        async def twice() -> list[Any]:
            asked = Reaching(entries={}, feature="care")
            first = await lanes.slow("reach", asked)
            for process in lanes._slow._processes.values():  # pyright: ignore[reportAttributeAccessIssue]
                process.kill()
                process.join()
            return [first, await lanes.slow("reach", asked)]

        first, second = asyncio.run(twice())
    finally:
        lanes.close()
    assert first == second


def test_all_who_waited_for_it_get_the_same_new_worker(monkeypatch: pytest.MonkeyPatch):
    import asyncio
    from concurrent.futures import Executor, Future
    from concurrent.futures.process import BrokenProcessPool

    class Broken(Executor):
        def submit(self, fn: Any, /, *given: Any, **more: Any) -> Future[Any]:
            told: Future[Any] = Future()
            told.set_exception(BrokenProcessPool("ended"))
            return told

    class Whole(Executor):
        def submit(self, fn: Any, /, *given: Any, **more: Any) -> Future[Any]:
            told: Future[Any] = Future()
            told.set_result(self)
            return told

    made = list[Executor]()

    def worker(_: Lanes) -> Executor:
        made.append(Whole() if made else Broken())
        return made[-1]

    monkeypatch.setattr(Lanes, "_worker", worker)
    lanes = Lanes(opened(pilot()))

    async def three() -> list[Any]:
        return await asyncio.gather(*(lanes.slow("prompts", "") for _ in range(3)))

    found = asyncio.run(three())
    lanes.close()
    assert len(made) == 2
    assert found == made[1:] * 3


# Whom it answers.


def test_the_page_is_sent_with_a_strict_policy(client: httpx.Client):
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert page.status_code == 200
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "<script>" not in page.text
    assert "style=" not in page.text
    for path in ("js/main.js", "vendor/uPlot.iife.min.js", "vendor/uPlot.LICENSE", "style.css"):
        assert client.get(f"/static/{path}").status_code == 200
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "localhost:1", "evil.example:{port}", "127.0.0.1.evil:{port}", ""]
)
def test_another_host_is_refused(client: httpx.Client, host: str):
    host = host.format(port=client.base_url.port)
    assert client.get("/", headers={"Host": host}).status_code == 403
    assert client.get("/api/about", headers={"Host": host}).status_code == 403


def test_localhost_is_this_machine(client: httpx.Client):
    assert client.get("/api/about", headers={"Host": f"localhost:{client.base_url.port}"}).status_code == 200


def test_two_hosts_are_none(client: httpx.Client):
    port = client.base_url.port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=20) as line:
        line.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil\r\nConnection: close\r\n\r\n".encode()
        )
        assert line.recv(200).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_another_origin_is_refused(client: httpx.Client, origin: str):
    origin = origin.format(port=client.base_url.port)
    assert client.post("/api/solve", json={}, headers={"Origin": origin}).status_code == 403
    own = {"Origin": f"http://127.0.0.1:{client.base_url.port}"}
    assert client.post("/api/solve", json={}, headers=own).status_code == 200


def test_another_page_gets_nothing_but_the_page(client: httpx.Client):
    there = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/about", headers=there).status_code == 403
    assert client.get("/static/js/main.js", headers=there).status_code == 403
    assert client.get("/", headers=there).status_code == 200


def test_a_form_of_another_page_is_no_json(client: httpx.Client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        refused = client.post("/api/solve", content=b"{}", headers={"Content-Type": kind})
        assert refused.status_code == 415
    assert client.put("/api/solve", json={}).status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"entries": 1}',
        b'{"entries": {"humor": 1}}',
        b'{"entries": {"humor": ["keep"]}}',
        b'{"path": "/etc/passwd"}',
        b'{"candidates": true}',
        b'{"candidates": 1e3}',
        b'{"candidates": 0}',
        b'{"kl": NaN}',
        b'{"kl": -1}',
        b'{"kl": Infinity}',
        b'{"prompt": -1}',
        b"[" * 20000,
        b'{"entries": {"humor": "\\ud800"}}',
        b"\xff\xfe",
        json.dumps({"entries": {"humor": "x" * 301}}).encode(),
        json.dumps({"entries": {str(i): "keep" for i in range(65)}}).encode(),
    ],
)
def test_hostile_json_is_refused_in_one_line(client: httpx.Client, body: bytes):
    for path in ("solve", "reach", "adjust", "plan", "export"):
        refused = client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code in (400, 422), (path, refused.text)
        assert "\n" not in refused.json()["error"]
        assert "Traceback" not in refused.text


def test_a_palette_that_makes_no_sense_is_refused_with_its_entry(client: httpx.Client):
    refused = client.post("/api/solve", json={"entries": {"humor": "wat", "joy": "1"}})
    assert refused.status_code == 422
    assert [fault["value"] for fault in refused.json()["faults"]] == ["humor", "joy"]
    scale = client.post("/api/solve", json={"entries": {"humor": "x1.2"}})
    assert [fault["value"] for fault in scale.json()["faults"]] == ["humor"]
    cohort = {"entries": {}, "cohorts": {"audience=children": {"care": "P(< 0) <= x0.5, x2"}}}
    faults = client.post("/api/reach", json={**cohort, "feature": "humor"}).json()["faults"]
    assert [(fault["cohort"], fault["value"]) for fault in faults] == [("audience=children", "care")]
    many = client.post("/api/solve", json={"candidates": 7})
    assert many.status_code == 422
    assert "candidates must be at most" in many.json()["error"]


def test_a_body_has_a_limit(client: httpx.Client):
    body = b'{"entries": {}, "x": "' + b"y" * 70_000 + b'"}'
    assert (
        client.post("/api/solve", content=body, headers={"Content-Type": "application/json"}).status_code
        == 413
    )


def test_queries_are_checked(client: httpx.Client):
    assert client.get("/api/answers?prompt=30").status_code == 422
    assert client.get("/api/answers?prompt=-1").status_code == 400
    assert client.get("/api/alone?k=99").status_code == 422
    assert client.get("/api/cohort?name=wat").status_code == 422
    assert client.get("/api/cohort?name=audience%3Dnobody").status_code == 422
    assert client.get("/api/nothing").status_code == 404
    assert client.get("/docs").status_code == 404


def test_more_than_a_page_asks_is_refused():
    import asyncio

    from valuepalette.studio.working import Busy

    lanes = Lanes(opened(pilot()), apart=False)

    async def flood() -> list[Any]:
        asks = (lanes.fast("solve", Solving(entries={"humor": "keep"})) for _ in range(80))
        return await asyncio.gather(*asks, return_exceptions=True)

    found = asyncio.run(flood())
    lanes.close()
    assert sum(isinstance(each, Busy) for each in found) == 16


def test_opened_is_sent_to_another_process(tmp_path: Path):
    import pickle

    made = Opened(pilot(), "x", "y", palettes={"a": vp.Palette({"humor": "keep"})})
    again = pickle.loads(pickle.dumps(made))
    assert again.pilot.rows == made.pilot.rows
    assert again.palettes == made.palettes
