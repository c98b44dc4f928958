"""The engine behind a server: what it finds out, what it bears, what it never tells."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")

from fake_server import MODEL, Behaviour, serving
from valuepalette.engines import Sampling
from valuepalette.engines.openai import OpenAIEngine
from valuepalette.engines.opening import open_engine
from valuepalette.requesting import Limits, ServerError
from valuepalette.study import Study

PROMPTS = ["Hi", "Tell me of a goat.", "And of the sun?"]
SHORT = Sampling(max_new_tokens=6)
QUICK = Limits(timeout=1.5, tries=3, backoff=0.01)  # half of what "slow" takes; a busy machine is quicker


@pytest.fixture
def server() -> Iterator[tuple[Behaviour, str]]:
    behaviour = Behaviour()
    with serving(behaviour) as url:
        yield behaviour, url


def draw(url: str, k: int = 4, *, sampling: Sampling = SHORT, limits: Limits = QUICK, **more: Any) -> Any:
    engine = OpenAIEngine(MODEL, base_url=url, key="secret-key", limits=limits)
    return engine.sample(PROMPTS, k, sampling=sampling, seed=0, **more)


@pytest.mark.parametrize(("several", "requests"), [(100, 3), (3, 6), (1, 3 * 4), (0, 1 + 3 * 4)])
def test_how_many_candidates_a_request_gives_is_found_out(
    server: tuple[Behaviour, str], several: int, requests: int
) -> None:
    behaviour, url = server
    behaviour.several = several
    drawn = draw(url)
    assert [len(own) for own in drawn] == [4, 4, 4]
    assert len(behaviour.requests) == requests
    assert len({each.text for own in drawn for each in own}) > 8


def test_without_log_probabilities_tokens_are_shared_out(server: tuple[Behaviour, str]) -> None:
    behaviour, url = server
    counted = draw(url)
    behaviour.logprobs = False
    shared = draw(url)
    for own, even in zip(counted, shared, strict=True):
        assert [each.text for each in own] == [each.text for each in even]
        total = sum(each.tokens for each in own)
        assert {each.tokens for each in even} == {round(total / 4)}
    with pytest.raises(ServerError, match="logprobs are not supported"):
        draw(url, logprobs=True)
    behaviour.usage = False
    with pytest.raises(ServerError, match="tokens cannot be counted"):
        draw(url)


def test_a_setting_that_the_server_does_not_take(server: tuple[Behaviour, str]) -> None:
    behaviour, url = server
    behaviour.top_k = False
    with pytest.raises(ServerError, match="does not take top_k: set top_k = 0") as caught:
        draw(url)
    assert "\n" not in str(caught.value)
    assert len(draw(url, sampling=Sampling(max_new_tokens=6, top_k=0))) == 3
    asked = behaviour.requests[-1]
    assert "top_k" not in asked
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"]) == (1.0, 1.0, 6)


def test_the_name_of_the_longest_answer_is_found_out(server: tuple[Behaviour, str]) -> None:
    behaviour, url = server
    wanted = draw(url)
    before = len(behaviour.requests)
    behaviour.renamed = True
    assert draw(url) == wanted
    assert len(behaviour.requests) == before + 4
    assert [("max_tokens" in asked) for asked in behaviour.requests[before:]] == [True, False, False, False]


@pytest.mark.parametrize("mood", [429, 500, 503, "slow", "cut", "text", "close"])
def test_trouble_that_passes_changes_nothing(server: tuple[Behaviour, str], mood: Any) -> None:
    behaviour, url = server
    wanted = draw(url)
    behaviour.next = [mood, mood]
    assert draw(url) == wanted


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        (503, r"refused \(503\): not now"),
        ("slow", r"did not answer within 1\.5 s"),
        ("cut", "did not answer in JSON"),
        ("text", "did not answer in JSON: <html>busy</html>"),
        ("close", "cannot be reached"),
    ],
)
def test_trouble_that_stays_is_one_line(server: tuple[Behaviour, str], mood: Any, said: str) -> None:
    behaviour, url = server
    behaviour.next = [mood] * 3
    with pytest.raises(ServerError, match=said) as caught:
        draw(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(behaviour.requests) == 3


def test_what_is_wrong_for_good_is_not_tried_again(server: tuple[Behaviour, str]) -> None:
    behaviour, url = server
    behaviour.next = [401]
    with pytest.raises(ServerError, match=r"refused \(401\)"):
        draw(url)
    assert len(behaviour.requests) == 1
    behaviour.next = [None, 400]
    with pytest.raises(ServerError, match=r"refused \(400\)"):
        draw(url)
    behaviour.next = ["empty"]
    with pytest.raises(ServerError, match="answered without choices"):
        draw(url)


def test_no_server_at_all() -> None:
    with pytest.raises(ServerError, match="cannot be reached"):
        draw("http://127.0.0.1:9/v1")


def test_no_more_requests_at_a_time_than_allowed(server: tuple[Behaviour, str]) -> None:
    behaviour, url = server
    behaviour.several, behaviour.delay = 1, 0.02
    draw(url, 8, limits=Limits(concurrency=3))
    assert behaviour.busiest == 3


def test_a_budget_holds_requests_back(server: tuple[Behaviour, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is made to pass by sleeping alone, a minute at a time."""
    from valuepalette import requesting

    behaviour, url = server
    clock = [0.0]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(requesting, "_now", lambda: clock[0])
    monkeypatch.setattr(requesting.asyncio, "sleep", sleep)
    draw(url, limits=Limits(per_minute=2))
    assert slept == [60.0]
    assert len(behaviour.requests) == 3
    slept.clear()
    clock[0] += 1000
    draw(url, limits=Limits(tokens=1, concurrency=1))
    assert slept == [60.0, 60.0]


def test_the_key_and_the_address_come_from_the_environment(
    server: tuple[Behaviour, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour, url = server
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    engine = open_engine(f"openai:{MODEL}")
    engine.sample(["Hi"], 1, sampling=SHORT, seed=0)
    assert behaviour.keys == {"Bearer secret-key"}
    told = f"{engine.fingerprint} {engine!r} {vars(engine)['client']!r}"
    assert "secret" not in told
    assert engine.fingerprint["model"] == f"openai:{MODEL}"
    assert engine.fingerprint["server"].startswith("127.0.0.1:")


@pytest.mark.parametrize("key", ["secret-key\n", "secret key", "secret-kéy"])
def test_a_key_that_cannot_be_sent_is_not_shown(server: tuple[Behaviour, str], key: str) -> None:
    with pytest.raises(ValueError, match="key must be printable ASCII") as caught:
        OpenAIEngine(MODEL, base_url=server[1], key=key)
    assert "secret" not in str(caught.value)


def test_conversations_and_plain_text(server: tuple[Behaviour, str]) -> None:
    behaviour, url = server
    talk: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go."},
    ]
    engine = OpenAIEngine(MODEL, base_url=url, limits=QUICK)
    engine.sample(
        [talk], 1, sampling=Sampling(max_new_tokens=6, system_prompt="Be kind.", stop=("END",)), seed=0
    )
    asked = behaviour.requests[-1]
    assert asked["messages"] == [{"role": "system", "content": "Be kind."}, *talk]
    assert asked["stop"] == ["END"]
    plain = OpenAIEngine(MODEL, base_url=url, template="none", limits=QUICK)
    found = plain.sample(["Once"], 2, sampling=SHORT, seed=0, logprobs=True)[0]
    assert behaviour.requests[-1]["prompt"] == "Once"
    assert all(each.logprob is not None and each.logprob < 0 for each in found)
    with pytest.raises(ValueError, match="prompts must be texts without a system prompt"):
        plain.sample([talk], 1, sampling=SHORT, seed=0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OpenAIEngine(""), "got openai:"),
        (lambda: OpenAIEngine("m", template="{{ x }}"), 'must be "own" or "none"'),
        (lambda: OpenAIEngine("m", base_url="localhost:8000"), "base_url must begin with http"),
        (lambda: Limits(tries=0), "tries must be at least 1, got 0"),
        (lambda: Limits(timeout=float("inf")), "timeout must be positive and finite"),
    ],
)
def test_what_cannot_be_asked(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_where_an_event_loop_is_running(server: tuple[Behaviour, str]) -> None:
    async def notebook() -> Any:
        return draw(server[1])

    assert asyncio.run(notebook()) == draw(server[1])


def test_a_study_of_a_model_behind_a_server(server: tuple[Behaviour, str], tmp_path: Path) -> None:
    behaviour, url = server
    (tmp_path / "prompts.txt").write_text("\n".join(f"Say {i}." for i in range(10)))
    (tmp_path / "study.toml").write_text(
        f"""
        model = {{ id = "openai:{MODEL}", base_url = "{url}", concurrency = 2, max_new_tokens = 8 }}
        prompts = {{ path = "prompts.txt", held_out = 0.4 }}
        pilot = {{ candidates = 4 }}
        [values]
        diversity = "diversity"
        [palettes.varied]
        diversity = "reach 50%"
        """
    )
    made = Study.read(tmp_path / "study.toml")
    made.sample(quiet=True)
    made.score(quiet=True)
    assert made.pilot().metadata.model["model"] == f"openai:{MODEL}"
    assert made.evaluate("varied").prompts == 4
    assert behaviour.busiest <= 2
    asked = len(behaviour.requests)
    made.sample(quiet=True)
    assert len(behaviour.requests) == asked
