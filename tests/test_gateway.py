"""The gateway through HTTP, within one process: what is served, what is refused, what is said about it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import FakeEngine, FakeReward, goats
from gateways import NAME, PALETTES, SAMPLING, ask, chat, client, gateway, pilot, rewards
from valuepalette.decoding import Decoder
from valuepalette.engines import Sampling
from valuepalette.palette import Palette
from valuepalette.server.answering import Completion, Failure
from valuepalette.server.app import create_app
from valuepalette.server.deciding import Wanted
from valuepalette.server.selecting import Served
from valuepalette.solving import solve


def test_an_answer_is_that_of_the_decoder() -> None:
    own = pilot()
    solution = solve(own, PALETTES["funny"], 4)
    decoder = Decoder(FakeEngine(), rewards(), solution)
    texts = [f"Say {i}." for i in range(5)]
    answers = ask(gateway(own), *(chat(text=text, seed=7) for text in texts))
    assert [each.json()["choices"][0]["message"]["content"] for each in answers] == decoder.generate(
        texts, seed=7
    ).responses
    about = answers[0].json()["valuepalette"]
    assert (about["aligned"], about["candidates"], about["seed"], about["palette"]) == (True, 4, 7, "funny")
    assert about["weights"] == pytest.approx(dict(solution.weights))
    assert about["kl"] == pytest.approx(solution.kl)
    assert answers[0].headers["X-ValuePalette-Aligned"] == "true"
    choice = answers[0].json()["choices"][0]
    assert choice["valuepalette"]["features"]["goats"] == goats(choice["message"]["content"])
    assert 1 <= choice["valuepalette"]["effective_candidates"] <= 4
    Completion.model_validate(answers[0].json())


@pytest.mark.parametrize("stream", [False, True])
def test_levels_of_served_answers_are_the_solutions(stream: bool) -> None:
    """Three palettes interleaved: each has the levels of its own solution, within sampling error."""
    own, each = pilot(prompts=200), 250
    names = ("funny", "varied", "short")
    bodies = [chat(name, text=f"Fresh {i}.", seed=i, stream=stream) for i in range(each) for name in names]
    answers = ask(gateway(own, concurrency=8, queue=1000), *bodies)
    got: dict[str, list[list[float]]] = {name: [] for name in names}
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code == 200
        if stream:
            events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
            last = json.loads(events[-1])["choices"][0]
        else:
            last = answer.json()["choices"][0]
        features = last["valuepalette"]["features"]
        got[body["model"].removeprefix(f"{NAME}/")].append([features[v] for v in own.values])
    for name in names:
        solution = solve(own, PALETTES[name], 4)
        served = np.array(got[name])
        wanted = np.array([solution.levels[value] for value in own.values])
        error = np.sqrt(
            served.var(axis=0, ddof=1) / each
            + np.array([solution.levels.se[solution.features.index(value)] for value in own.values]) ** 2
        )
        assert (np.abs(served.mean(axis=0) - wanted) < 3.5 * error).all()
        base = np.array([solution.base[value] for value in own.values])
        # And it could fail: of what was asked for, the base level is far from what was served.
        far = np.abs(served.mean(axis=0) - base) / error
        assert far.max() > 4


def test_n_answers_are_each_of_k_candidates() -> None:
    told: list[Served] = []
    answer = ask(gateway(on_served=told.append), chat(n=3, seed=1, user="u1")).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(told) == 3
    texts = [candidate.text for each in told for candidate in each.candidates]
    drawn = FakeEngine().sample(["Say it."], 12, sampling=SAMPLING, seed=1)[0]
    assert texts == [candidate.text for candidate in drawn]
    for each, choice in zip(told, answer["choices"], strict=True):
        assert each.candidates[each.chosen.index].text == choice["message"]["content"]
        assert each.values["goats"].shape == (4,)
        assert (each.label, each.user, each.turn, each.aligned) == ("funny", "u1", 1, True)
    again = ask(gateway(), chat(n=3, seed=1)).json()
    assert [choice["message"] for choice in again["choices"]] == [
        choice["message"] for choice in answer["choices"]
    ]
    one, other = ask(gateway(), chat(), chat())
    assert one.json()["valuepalette"]["seed"] != other.json()["valuepalette"]["seed"]


def test_a_callback_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Served) -> None:
        raise RuntimeError("secret words")

    assert ask(gateway(on_served=broken), chat()).status_code == 200
    assert "on_served failed: RuntimeError" in caplog.text
    assert "secret words" not in caplog.text


def test_the_base_palette_and_the_boundary() -> None:
    base, edge = ask(gateway(), chat(None, seed=1, n=2), chat(None, palette={"goats": "reach 100%"}))
    drawn = FakeEngine().sample(["Say it."], 2, sampling=SAMPLING, seed=1)[0]
    assert [c["message"]["content"] for c in base.json()["choices"]] == [each.text for each in drawn]
    assert base.json()["valuepalette"]["reasons"] == ["no palette was asked for"]
    assert base.headers["X-ValuePalette-Aligned"] == "false"
    assert edge.json()["valuepalette"]["boundary"] is True
    floored = ask(gateway(floors=Palette({"variety": "keep"})), chat(None)).json()
    assert floored["valuepalette"]["aligned"] is True
    assert floored["valuepalette"]["asked"] == {"variety": "keep"}


def test_settings_that_are_not_the_pilots() -> None:
    """Refused, or served and marked; the pilot's own settings pass."""
    own = {
        "temperature": 1,
        "top_p": 1.0,
        "max_tokens": 12,
        "max_completion_tokens": 12,
        "top_k": 50,
        "stop": [],
    }
    same, *others = ask(
        gateway(),
        chat(**own),
        chat(temperature=0.5),
        chat(stop="x"),
        chat(max_tokens=5),
        {**chat(), "messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]},
    )
    assert same.json()["valuepalette"]["aligned"] is True
    assert [each.status_code for each in others] == [400] * 4
    assert "temperature: 1.0 -> 0.5" in others[0].json()["error"]["message"]
    marked, wrong = ask(gateway(mismatch="unaligned"), chat(max_tokens=3, n=4), chat(temperature=-1))
    about = marked.json()["valuepalette"]
    assert (about["aligned"], about["reasons"]) == (False, ["max_new_tokens: 12 -> 3"])
    assert max(len(c["message"]["content"].split()) for c in marked.json()["choices"]) <= 3
    assert wrong.status_code == 400


def test_a_system_turn_that_is_the_pilots() -> None:
    with pytest.raises(ValueError, match=r'system_prompt: null -> "Be kind\."'):
        gateway(sampling=Sampling(max_new_tokens=12, system_prompt="Be kind."))


def test_an_engine_or_reward_that_is_not_the_pilots() -> None:
    with pytest.raises(ValueError, match=r'model\.model: "fake" -> "other"'):
        gateway(engine=FakeEngine(model="other"))
    newer = {**rewards(), "goats": FakeReward("goats", goats, version="2")}
    with pytest.raises(ValueError, match=r'goats\.version: "1" -> "2"'):
        gateway(scored=newer)
    answer = ask(gateway(scored=newer, mismatch="unaligned"), chat()).json()
    assert answer["valuepalette"]["aligned"] is False
    assert "goats.version" in answer["valuepalette"]["reasons"][0]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"frequency_penalty": 0.5},
        {"logprobs": True},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
    ],
)
def test_what_only_a_server_can_do_is_refused(more: dict[str, Any]) -> None:
    named, base = ask(gateway(extras="unaligned"), chat() | more, chat(None) | more)
    strict = ask(gateway(), chat() | more)
    assert {named.status_code, base.status_code, strict.status_code} == {400}
    assert strict.json()["error"]["code"] == "extras"


def test_no_field_is_dropped() -> None:
    answers = ask(
        gateway(),
        chat(warmth=1),
        chat(stream_options={"include_usage": True}),
        chat(n=17),
        chat(n=0),
        chat(n=True),
        chat(seed=1.5),
        chat(seed=2**63),
        chat(return_candidates=True),
        chat(max_tokens=12, max_completion_tokens=3),
        {**chat(), "messages": []},
        {**chat(), "messages": [{"role": "user"}]},
        {**chat(), "messages": [{"role": "pirate", "content": "x"}]},
        {**chat(), "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    )
    assert [each.status_code for each in answers] == [400] * 7 + [403] + [400] * 5
    assert "warmth" in answers[0].json()["error"]["message"]
    for each in answers:
        Failure.model_validate(each.json())
    neutral = {"tools": [], "response_format": {"type": "text"}, "frequency_penalty": 0, "logprobs": False}
    assert ask(gateway(), chat(**neutral)).status_code == 200


def test_candidates_on_request_and_permission() -> None:
    answer = ask(gateway(show_candidates=True), chat(return_candidates=True, seed=3)).json()
    (choice,) = answer["choices"]
    shown = choice["valuepalette"]["candidates"]
    assert len(shown) == 4
    assert sum(each["probability"] for each in shown) == pytest.approx(1)
    assert shown[choice["valuepalette"]["index"]]["text"] == choice["message"]["content"]
    assert shown[0]["values"]["goats"] == goats(shown[0]["text"])


def test_completions() -> None:
    body = {"model": f"{NAME}/funny", "prompt": ["Once", "Twice"], "n": 2, "seed": 4}
    answer = ask(gateway(), body, path="/v1/completions").json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["object"] == "text_completion"
    alone = ask(gateway(), {**body, "prompt": "Twice"}, path="/v1/completions").json()
    assert [c["text"] for c in alone["choices"]] == [c["text"] for c in answer["choices"][2:]]
    bad = ask(gateway(), {**body, "suffix": "x"}, {**body, "prompt": [1, 2]}, path="/v1/completions")
    assert [each.status_code for each in bad] == [400, 400]


def test_rewards_for_a_trainer() -> None:
    own = pilot()
    made = gateway(own)
    prompts, responses = ["a", "b"], ["goat goat sun", "the the"]
    plain, hook = ask(
        made,
        {"model": f"{NAME}/funny", "prompts": prompts, "responses": responses, "beta": 0.5},
        {
            "model": f"{NAME}/funny",
            "prompts": prompts,
            "query": [p + r for p, r in zip(prompts, responses, strict=True)],
            "labels": [None, None],
        },
        path="/v1/rewards",
    )
    weights = solve(own, PALETTES["funny"], "limit").weights
    values = np.column_stack([rewards()[v].score(prompts, responses)[:, 0] for v in own.values])
    wanted = values @ [weights[value] for value in own.values]
    assert plain.json()["rewards"] == pytest.approx(0.5 * wanted)
    assert hook.json()["rewards"] == hook.json()["scores"] == pytest.approx(wanted)
    assert plain.json()["extra_logs"]["goats"] == [2.0, 0.0]
    fixed = ask(
        gateway(own),
        {"prompts": prompts, "query": ["a goat</s>", "bx"]},
        path=f"/v1/rewards?model={NAME}/funny&beta=2&candidates=4&end=%3C/s%3E",
    )
    four = solve(own, PALETTES["funny"], 4).weights
    assert fixed.json()["rewards"][0] == pytest.approx(
        2 * (four["goats"] + four["variety"] * 0.5 + four["length"])
    )
    refused = ask(
        gateway(own),
        {"prompts": prompts, "responses": responses},
        {"model": f"{NAME}/funny", "prompts": prompts, "responses": ["x"]},
        {"model": f"{NAME}/funny", "prompts": prompts, "query": ["xa", "b"]},
        {"model": f"{NAME}/funny", "prompts": [], "responses": []},
        {"model": f"{NAME}/funny", "prompts": [[{"role": "user"}]], "responses": ["x"]},
        path="/v1/rewards",
    )
    assert [each.status_code for each in refused] == [400] * 5
    kids = {"model": f"{NAME}/kids", "prompts": prompts, "responses": responses, "candidates": 4}
    none, known = ask(
        gateway(own), kids, {**kids, "columns": {"audience": ["children", "adults"]}}, path="/v1/rewards"
    )
    assert none.status_code == 400
    assert known.status_code == 200
    assert known.json()["rewards"][1] == 0.0


class Moody(FakeReward):
    """A reward that can fail, hang, or drift."""

    mood: str = ""

    def score(self, prompts: Any, responses: Any) -> Any:
        if self.mood == "down" or (self.mood == "poison" and "poison" in str(prompts)):
            raise ConnectionError(f"no answer for {prompts[0]}")
        return super().score(prompts, responses) + (1.0 if self.mood == "drift" else 0.0)


def test_a_reward_that_fails_is_503_or_a_base_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def spoken(policy: str) -> Any:
        moody = Moody("goats", goats)
        made = gateway(scored={**rewards(), "goats": moody}, reward_failure=policy)
        async with client(made) as speaker:
            moody.mood = "down"
            body = chat(text="my secret", seed=3)
            found = await speaker.post("/v1/chat/completions", json=body)
            moody.mood = ""
            return found, await speaker.post("/v1/chat/completions", json=body)

    with caplog.at_level(logging.DEBUG, "valuepalette"):
        down, up = asyncio.run(spoken("refuse"))
        base, _ = asyncio.run(spoken("unaligned"))
    assert (down.status_code, up.status_code, base.status_code) == (503, 200, 200)
    assert "Retry-After" in down.headers
    assert down.json()["error"]["message"] == "the reward of goats failed: ConnectionError"
    about = base.json()["valuepalette"]
    assert about["aligned"] is False
    assert about["reasons"] == ["the reward of goats failed: ConnectionError"]
    first = FakeEngine().sample(["my secret"], 1, sampling=SAMPLING, seed=3)[0][0]
    assert base.json()["choices"][0]["message"]["content"] == first.text
    assert "valuepalette" not in base.json()["choices"][0]
    assert "my secret" not in caplog.text


def test_scoring_is_batched_and_one_bad_text_costs_the_others_nothing() -> None:
    moody = Moody("goats", goats, delay=0.05)

    async def spoken() -> Any:
        made = gateway(scored={**rewards(), "goats": moody})
        async with client(made) as speaker:
            before = made.scorer.batches
            bodies = [chat(text=f"Say {i}.") for i in range(12)]
            found = await asyncio.gather(*(speaker.post("/v1/chat/completions", json=b) for b in bodies))
            batches = made.scorer.batches - before
            moody.mood = "poison"
            bodies = [chat(text="poison"), *bodies[:3]]
            mixed = await asyncio.gather(*(speaker.post("/v1/chat/completions", json=b) for b in bodies))
            return batches, [each.status_code for each in found], [each.status_code for each in mixed]

    batches, found, mixed = asyncio.run(spoken())
    assert found == [200] * 12
    assert batches <= 4
    assert mixed == [503, 200, 200, 200]


def test_rewards_that_hang() -> None:
    async def spoken() -> Any:
        slow = FakeReward("goats", goats)
        made = gateway(scored={**rewards(), "goats": slow}, scoring=0.1)
        async with client(made) as speaker:
            slow._delay = 0.5
            return await speaker.post("/v1/chat/completions", json=chat())

    answer = asyncio.run(spoken())
    assert answer.status_code == 503
    assert "took longer than 0.1 s" in answer.json()["error"]["message"]


@pytest.mark.parametrize("policy", ["refuse", "unaligned"])
def test_a_canary_that_drifts_stops_aligned_answers(policy: str) -> None:
    async def spoken() -> Any:
        moody = Moody("goats", goats)
        made = gateway(scored={**rewards(), "goats": moody}, reward_failure=policy, canary=0.05)
        async with client(made) as speaker:
            found = [await speaker.get("/readyz"), await speaker.post("/v1/chat/completions", json=chat())]
            moody.mood = "drift"
            while made.canary.state == "passed":
                await asyncio.sleep(0.01)
            found += [await speaker.get("/readyz"), await speaker.post("/v1/chat/completions", json=chat())]
            found.append(await speaker.get("/metrics"))
            moody.mood = "down"
            await asyncio.sleep(0.1)
            found.append(await speaker.get("/readyz"))
            moody.mood = ""
            while made.canary.state != "passed":
                await asyncio.sleep(0.01)
            return [*found, await speaker.post("/v1/chat/completions", json=chat())]

    ready, fine, drifted, after, metrics, still, again = asyncio.run(spoken())
    assert (ready.status_code, fine.status_code, drifted.status_code) == (200, 200, 503)
    assert "goats moved by" in drifted.json()["trouble"][0]
    if policy == "refuse":
        assert after.status_code == 503
    else:
        assert after.json()["valuepalette"]["aligned"] is False
    assert "valuepalette_canary_drifted 1.0" in metrics.text
    assert still.status_code == 503
    assert again.json()["valuepalette"]["aligned"] is True


def test_rewards_that_are_down_at_the_start() -> None:
    async def spoken() -> Any:
        moody = Moody("goats", goats)
        moody.mood = "down"
        made = gateway(scored={**rewards(), "goats": moody}, canary=0.05)
        async with client(made) as speaker:
            found = [await speaker.get("/readyz"), await speaker.post("/v1/chat/completions", json=chat())]
            moody.mood = ""
            while made.canary.state != "passed":
                await asyncio.sleep(0.01)
            return [each.status_code for each in [*found, await speaker.get("/readyz")]]

    assert asyncio.run(spoken()) == [503, 503, 200]


def test_more_than_can_wait_is_429() -> None:
    slow = FakeEngine(delay=0.05)
    bodies = [chat(text=f"{i}") for i in range(8)]
    answers = ask(gateway(engine=slow, concurrency=1, queue=2), *bodies)
    codes = sorted(each.status_code for each in answers)
    assert codes == [200] * 3 + [429] * 5
    assert all(int(each.headers["Retry-After"]) >= 1 for each in answers if each.status_code == 429)


def test_a_deadline() -> None:
    slow = FakeEngine(delay=0.3)
    one, other = ask(gateway(engine=slow, deadline=0.15), chat(), chat(stream=True))
    assert one.status_code == 504
    assert other.status_code == 200
    events = [line for line in other.text.splitlines() if line.startswith("data:")]
    assert json.loads(events[0][6:])["error"]["code"] == "deadline"
    assert events[-1] == "data: [DONE]"


def test_signs_of_life_before_the_answer() -> None:
    answer = ask(gateway(engine=FakeEngine(delay=0.2), keep_alive=0.05), chat(stream=True, seed=3))
    lines = [line for line in answer.text.splitlines() if line]
    assert lines[0].startswith(": ")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == ask(gateway(), chat(seed=3)).json()["choices"][0]["message"]["content"]
    assert chunks[0]["valuepalette"]["aligned"] is True
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_key() -> None:
    async def spoken() -> Any:
        async with client(gateway(), key="let-me-in") as speaker:
            codes = [(await speaker.get(path)).status_code for path in ("/healthz", "/readyz")]
            for given in (None, "Bearer wrong", "let-me-in", "Bearer let-me-in"):
                headers = {} if given is None else {"Authorization": given}
                codes.append((await speaker.get("/v1/models", headers=headers)).status_code)
                codes.append(
                    (await speaker.post("/v1/chat/completions", json=chat(), headers=headers)).status_code
                )
                codes.append((await speaker.get("/metrics", headers=headers)).status_code)
                codes.append((await speaker.get("/openapi.json", headers=headers)).status_code)
            return codes

    assert asyncio.run(spoken()) == [200, 200] + [401] * 12 + [200] * 4


def test_models_metrics_and_what_can_be_asked() -> None:
    async def spoken() -> Any:
        async with client(gateway()) as speaker:
            await speaker.post("/v1/chat/completions", json=chat(text="my secret"))
            await speaker.post("/v1/chat/completions", json=chat("impossible"))
            return [await speaker.get(path) for path in ("/v1/models", "/metrics", "/openapi.json", "/docs")]

    models, metrics, openapi, docs = asyncio.run(spoken())
    ids = [entry["id"] for entry in models.json()["data"]]
    assert ids == [NAME, *(f"{NAME}/{palette}" for palette in PALETTES)]
    assert 'valuepalette_requests_total{outcome="aligned",palette="funny"} 1.0' in metrics.text
    assert "valuepalette_candidates_total 4.0" in metrics.text
    assert "secret" not in metrics.text
    paths = openapi.json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/rewards", "/v1/models", "/readyz"} <= set(paths)
    said = paths["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "413", "422", "429", "503"} <= set(said)
    assert said["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")
    assert docs.status_code == 404


def test_no_text_in_the_log_unless_switched_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(gateway(), chat(text="my secret"), chat(text="my secret", temperature=2), chat("x", "my secret"))
    assert "my secret" not in caplog.text
    with caplog.at_level(logging.DEBUG):
        ask(gateway(log_texts=True), chat(text="my secret"))
    assert "my secret" in caplog.text


def test_inside_another_application_and_beside_another() -> None:
    async def spoken() -> Any:
        import httpx

        one, two = gateway(), gateway(palettes={"other": PALETTES["varied"]})
        host = FastAPI()
        host.mount("/one", create_app(one, key="first"))
        host.mount("/two", create_app(two))
        transport = httpx.ASGITransport(host)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as speaker:
            early = await speaker.post("/two/v1/chat/completions", json=chat("other"))
            async with one, two:
                key = {"Authorization": "Bearer first"}
                found = [
                    await speaker.post("/one/v1/chat/completions", json=chat(), headers=key),
                    await speaker.post("/two/v1/chat/completions", json=chat("other")),
                    await speaker.post("/two/v1/chat/completions", json=chat()),
                    await speaker.post("/one/v1/chat/completions", json=chat()),
                ]
        return [each.status_code for each in [early, *found]]

    assert asyncio.run(spoken()) == [503, 200, 200, 404, 401]


def test_bodies_that_are_too_large_or_no_json() -> None:
    async def spoken() -> Any:
        async with client(gateway(body_limit=2000)) as speaker:
            where, kind = "/v1/chat/completions", {"Content-Type": "application/json"}

            async def in_parts() -> Any:
                for _ in range(30):
                    yield b" " * 100

            bodies: list[Any] = [
                b"x" * 2001,
                in_parts(),
                b"",
                b"{",
                b"null",
                b"[1]",
                b"\xff\xfe",
                b"[" * 1900,
                b'{"model": NaN}',
                b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
                json.dumps(chat(text="\ud800")).encode(),
                json.dumps(chat(user="\ud800")).encode(),
                json.dumps(chat(columns={"audience": "\ud800"}), ensure_ascii=False).encode(
                    "utf-8", "surrogatepass"
                ),
            ]
            found = [await speaker.post(where, content=body, headers=kind) for body in bodies]
            found.append(await speaker.post(where, content=json.dumps(chat()).encode()))
            return [each.status_code for each in found]

    codes = asyncio.run(spoken())
    assert codes[:2] == [413, 413]
    assert codes[2:13] == [400] * 11
    assert codes[13] in (200, 400)


def test_a_conversation_is_answered_as_a_whole() -> None:
    told: list[Served] = []
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "text", "text": "Go"}, {"type": "text", "text": "on."}]},
    ]

    class Chats(FakeEngine):
        @property
        def fingerprint(self) -> Any:
            return {**super().fingerprint, "template": "sha256:1"}

    engine = Chats()
    made = gateway(pilot(engine), engine, on_served=told.append)
    assert ask(made, {**chat(), "messages": turns}).status_code == 200
    assert told[0].prompt == [*turns[:2], {"role": "user", "content": "Go\non."}]
    assert told[0].turn == 3
    body = {"model": f"{NAME}/funny", "prompt": "Once"}
    assert ask(gateway(pilot(engine), engine), body, path="/v1/completions").status_code == 400
    assert ask(gateway(), {**chat(), "messages": turns}).status_code == 400


TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "keep",
        "q60",
        "max",
        "reach 50%",
        "x1.2",
        "P(< 1) <= 0.1",
        ">= 1e308",
        "+1",
        "base-0.1",
        NAME,
        f"{NAME}/funny",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | TEXTS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ENTRIES = TEXTS | st.floats() | st.integers(-100, 100) | st.lists(TEXTS | st.floats(), max_size=3) | ANYTHING
HOSTILE_PALETTES = st.dictionaries(
    st.sampled_from(["goats", "variety", "length", "cohorts", "kl"]) | TEXTS, ENTRIES, max_size=4
)
FIELDS = [
    "model",
    "messages",
    "n",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "palette",
    "columns",
    "candidates",
    "tools",
    "response_format",
    "user",
    "prompt",
    "logit_bias",
]


def hostile(examples: int) -> None:
    """No request brings the gateway down, and an answer is aligned only with a palette that was asked for."""
    made = gateway(pilot(prompts=12), most_answers=3)
    loop = asyncio.new_event_loop()
    speaking = client(made)
    speaker = loop.run_until_complete(speaking.__aenter__())

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        st.dictionaries(st.sampled_from(FIELDS) | TEXTS, ANYTHING, max_size=3),
        st.none() | HOSTILE_PALETTES,
        st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/rewards"]),
    )
    def one(changes: dict[str, Any], palette: Any, path: str) -> None:
        body: dict[str, Any] = {"model": NAME}
        if path.endswith("chat/completions"):
            body = chat(None)
        elif path.endswith("/completions"):
            body["prompt"] = "Once"
        else:
            body |= {"prompts": ["a"], "responses": ["goat"], "candidates": 4}
        if palette is not None:
            body["palette"] = palette
        body |= changes
        try:
            raw = json.dumps(body).encode()
        except ValueError:
            return
        kind = {"Content-Type": "application/json"}
        answer = loop.run_until_complete(speaker.post(path, content=raw, headers=kind))
        assert answer.status_code in (200, 400, 403, 404, 413, 422, 429), answer.text
        if answer.status_code != 200 or path.endswith("rewards") or body.get("stream"):
            return
        about = answer.json()["valuepalette"]
        assert about["aligned"] == (about["palette"] is not None)
        if about["aligned"] and about["palette"] == "custom":
            wanted = Wanted(NAME, body["palette"], body.get("candidates"), body.get("columns") or {})
            solution = made.decider.decide(wanted).solution
            assert solution is not None
            assert about["weights"] == pytest.approx(dict(solution.weights))

    try:
        one()
    finally:
        loop.run_until_complete(speaking.__aexit__(None, None, None))
        loop.close()


def test_hostile_requests() -> None:
    hostile(300)


@pytest.mark.slow
def test_very_many_hostile_requests() -> None:
    hostile(10_000)
