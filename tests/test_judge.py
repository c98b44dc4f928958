"""A language model that judges: marks, draws, what is kept, what it costs, what it does with nonsense."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")

from fakes import FakeEngine
from reward_server import Rewarder, rewarding
from valuepalette import collecting
from valuepalette.requesting import Client
from valuepalette.rewards.checking import RewardError, checked_score
from valuepalette.rewards.judgements import Judgements
from valuepalette.rewards.marks import mark
from valuepalette.rewards.opening import open_reward

RUBRIC = "Is the answer kind?\nRudeness is the worst."
PROMPTS: list[Any] = [
    "Hi",
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go."},
    ],
    "Why?",
]
RESPONSES = ["Hello.", "<think>Rude.</think> Gone.", "No."]


def said(content: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": content}}],
        "usage": {"total_tokens": 40},
    }


def judged(_: str, asked: dict[str, Any]) -> Any:
    """A mark that depends on the seed: draws differ."""
    return said(f'{{"score": {asked["seed"] % 5 + 1}}}')


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(Client, "_pause", lambda *_: 0.0)
    monkeypatch.setenv("VALUEPALETTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[Rewarder, str]]:
    rewarder = Rewarder(judged)
    with rewarding(rewarder) as url:
        yield rewarder, f"{url}/v1"


def line(url: str, **options: Any) -> dict[str, Any]:
    return {"reward": "judge", "rubric": RUBRIC, "model": "wise", "base_url": url, "tries": 2, **options}


def opened(url: str, **options: Any) -> Any:
    return open_reward("kind", line(url, **options))


def test_marks_are_averaged_over_draws(server: tuple[Rewarder, str]) -> None:
    rewarder, url = server
    found = checked_score(opened(url, draws=4), "kind", PROMPTS, RESPONSES)
    assert len(rewarder.requests) == 12
    by_text: dict[str, list[int]] = {}
    for _, asked in rewarder.requests:
        by_text.setdefault(asked["messages"][1]["content"], []).append(asked["seed"] % 5 + 1)
    means = sorted(sum(marks) / 4 for marks in by_text.values())
    assert [len(marks) for marks in by_text.values()] == [4, 4, 4]
    assert sorted(found[:, 0]) == pytest.approx(means)
    column = opened(url).columns[0]
    assert (column.name, column.range, column.scale) == ("kind", (1.0, 5.0), "real")


def test_the_judge_is_told_the_rubric_and_held_to_a_schema(server: tuple[Rewarder, str]) -> None:
    rewarder, url = server
    opened(url, draws=1).score(PROMPTS, RESPONSES)
    path, asked = next(each for each in rewarder.requests if "Go." in each[1]["messages"][1]["content"])
    assert path == "/v1/chat/completions"
    assert asked["model"] == "wise"
    system, user = (turn["content"] for turn in asked["messages"])
    assert system.startswith(RUBRIC)
    assert "from 1, the worst, to 5, the best" in system
    lines = user.splitlines()
    assert [text for text in lines if not text.startswith("<")] == ["Hi", "Yes?", "Go.", "Gone."]
    mark_of = lines[0].removeprefix("<user ").removesuffix(">")
    assert len(mark_of) == 8
    assert lines[-1] == f"</answer {mark_of}>"
    schema = asked["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"] == {"score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}}
    opened(url, draws=1, scale=[0, 1], reads="answer").score(PROMPTS[:1], RESPONSES[:1])
    asked = rewarder.requests[-1][1]
    assert "Hi" not in asked["messages"][1]["content"]
    limits = {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert asked["response_format"]["json_schema"]["schema"]["properties"] == {"score": limits}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "complaint", [{"param": "response_format", "message": "no"}, {"message": "json_schema?"}]
)
def test_a_server_without_schemas_is_found_out(
    server: tuple[Rewarder, str], status: int, complaint: dict[str, Any]
) -> None:
    rewarder, url = server

    def answer(path: str, asked: dict[str, Any]) -> Any:
        return (status, {"error": complaint}) if "response_format" in asked else said("Score: **4/5**")

    rewarder.answer = answer
    reward = opened(url, draws=1)
    assert reward.score(PROMPTS, RESPONSES)[:, 0].tolist() == [4, 4, 4]
    assert len(rewarder.requests) == 4, "asked once too often, and not again"


@pytest.mark.parametrize(
    ("refused", "complaint", "instead"),
    [
        ("max_tokens", {"message": "Use 'max_completion_tokens' instead."}, "max_completion_tokens"),
        ("seed", {"param": "seed", "message": "unknown"}, None),
    ],
)
def test_what_a_server_calls_otherwise_or_lacks_is_found_out(
    server: tuple[Rewarder, str], refused: str, complaint: dict[str, Any], instead: str | None
) -> None:
    rewarder, url = server
    rewarder.answer = lambda _, asked: (400, {"error": complaint}) if refused in asked else said("4")
    assert opened(url, draws=1).score(PROMPTS, RESPONSES)[:, 0].tolist() == [4, 4, 4]
    assert len(rewarder.requests) == 4
    asked = rewarder.requests[-1][1]
    assert refused not in asked
    assert "response_format" in asked
    assert instead is None or asked[instead] == 512


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"score": 4}', 4),
        ('```json\n{"score": 4.5, "why": "x"}\n```', 4.5),
        ("4", 4),
        (" 4. ", 4),
        ("Score: 4", 4),
        ("**Rating:** 4", 4),
        ("4/5", 4),
        ("4 out of 5", 4),
        ("<think>5, no, 2</think>4", 4),
        ("4/10", None),
        ("-3", None),
        ("6", None),
        ("I give it 4", None),
        ("", None),
        ('{"score": "high"}', None),
        ('{"score": 2} or {"score": 3}', None),
        ('{"score": NaN}', None),
        ("4 5", None),
    ],
)
def test_what_is_a_mark(text: str, found: float | None) -> None:
    assert mark(text, 1, 5) == found
    assert mark("-3", -5, 5) == -3


def test_what_is_no_mark_is_drawn_again(server: tuple[Rewarder, str]) -> None:
    rewarder, url = server
    replies = iter(["Well.", "", '{"score": 2}'])
    rewarder.answer = lambda *_: said(next(replies))
    assert opened(url, draws=1).score(PROMPTS[:1], RESPONSES[:1]).tolist() == [[2]]
    assert len({asked["seed"] for _, asked in rewarder.requests}) == 3


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (said("I cannot\njudge this."), "the judge said 'I cannot"),
        (said('{"score": 9}'), "where a mark from 1 to 5 should be"),
        (said('{"score": NaN}'), "the judge said"),
        (said(None), "the judge said"),
        ({"choices": [{"message": {"content": None, "refusal": "I refuse"}}]}, "refuse"),
        ({"choices": []}, "the judge said {'choices'"),
        ({"choices": [{"text": "4"}]}, "the judge said {'text'"),
        ((400, {"error": {"message": "no such model"}}), r"refused \(400\): no such model"),
    ],
)
def test_nonsense_is_refused_in_one_line(server: tuple[Rewarder, str], answer: Any, shown: str) -> None:
    rewarder, url = server
    rewarder.answer = lambda _, asked: (
        answer if "Why?" in asked["messages"][1]["content"] else judged(_, asked)
    )
    with pytest.raises(
        RewardError, match=rf"value 'kind' failed at prompt 'Why\?', response 'No\.': .*{shown}"
    ) as caught:
        checked_score(opened(url, draws=1, concurrency=1), "kind", PROMPTS, RESPONSES)
    assert "\n" not in str(caught.value)
    before = len(rewarder.requests)
    rewarder.answer = judged
    opened(url, draws=1).score(PROMPTS, RESPONSES)
    assert len(rewarder.requests) == before + 1, "what was judged before is kept"


@pytest.mark.parametrize("mood", [429, "html", "cut", "close"])
def test_trouble_passes_or_is_one_line(server: tuple[Rewarder, str], mood: Any) -> None:
    rewarder, url = server
    rewarder.next = [mood]
    assert opened(url).score(PROMPTS, RESPONSES).shape == (3, 1)
    rewarder.next = [mood] * 40
    with pytest.raises(RewardError, match="value 'kind' failed at prompt") as caught:
        checked_score(opened(url, scale=[1, 9]), "kind", PROMPTS, RESPONSES)
    assert "\n" not in str(caught.value)


def test_nothing_is_judged_twice(server: tuple[Rewarder, str], folder: Path) -> None:
    rewarder, url = server
    first = opened(url).score(PROMPTS, RESPONSES)
    assert len(rewarder.requests) == 9
    assert (opened(url).score(PROMPTS, RESPONSES) == first).all()
    assert len(rewarder.requests) == 9
    opened(url, draws=4).score(PROMPTS, RESPONSES)
    assert len(rewarder.requests) == 12, "a draw more for each"
    opened(url, cache=str(folder / "other.sqlite")).score(PROMPTS[:1] * 2, RESPONSES[:1] * 2)
    assert len(rewarder.requests) == 15, "equal answers are judged once"
    whole = (folder / "cache" / "judgements.sqlite").read_bytes()
    assert b"Hello" not in whole
    assert b"kind" not in whole
    for change in (
        {"rubric": "Other."},
        {"model": "wiser"},
        {"scale": [1, 4]},
        {"temperature": 0.5},
        {"revision": "2"},
    ):
        before = len(rewarder.requests)
        opened(url, **{"draws": 1, **change}).score(PROMPTS[:1], RESPONSES[:1])
        assert len(rewarder.requests) == before + 1, change


def test_the_version_says_what_is_asked() -> None:
    changes = (
        {},
        {"rubric": "Other."},
        {"model": "wiser"},
        {"scale": [1, 4]},
        {"draws": 2},
        {"temperature": 0.5},
        {"reads": "answer"},
        {"revision": "2"},
        {"thinking": True},
    )
    versions = [opened("http://127.0.0.1:9/v1", **change).version for change in changes]
    assert len(set(versions)) == len(versions)
    assert opened("http://127.0.0.1:8/v1", tries=1, timeout=3).version == versions[0]


def test_a_broken_cache_is_named(server: tuple[Rewarder, str], folder: Path) -> None:
    broken = folder / "broken.sqlite"
    broken.write_text("no database, whatever its name says")
    with pytest.raises(ValueError, match=r"cache must be a file of judgements .*broken\.sqlite"):
        opened(server[1], cache=str(broken)).score(PROMPTS, RESPONSES)
    many = Judgements(folder / "many.sqlite")
    many.keep("key 1200", 3.5)
    assert many.known([f"key {number}" for number in range(1300)]) == {"key 1200": 3.5}


SCORING = """
import sys
from valuepalette.rewards.opening import open_reward
line = {"reward": "judge", "rubric": "Kind?", "model": "wise", "base_url": sys.argv[1], "draws": 1, "concurrency": 1}
reward = open_reward("kind", line)
print(reward.score(["Hi"] * 12, [str(number) for number in range(12)])[:, 0].tolist())
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_a_kill_loses_what_is_under_way_alone(server: tuple[Rewarder, str]) -> None:
    rewarder, url = server
    hold = False

    def answer(path: str, asked: dict[str, Any]) -> Any:
        while hold and len(rewarder.requests) >= 7:
            time.sleep(0.01)
        return judged(path, asked)

    rewarder.answer, hold = answer, True
    command = [sys.executable, "-c", SCORING, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3000):
            if len(rewarder.requests) >= 7 or process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    hold = False
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert len(rewarder.requests) == 7 + 6, "six were kept, the seventh was under way"
    again = subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout
    assert len(rewarder.requests) == 13
    assert len(again.split(",")) == 12


def test_the_cost_is_told_before_the_run(
    server: tuple[Rewarder, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewarder, url = server
    own, out = folder / "pilot", folder / "held_out"
    collecting.sample(FakeEngine(), ["a", "b", "c"], own, k=2, shard=2, quiet=True)
    collecting.sample(FakeEngine(), ["d"], out, k=2, quiet=True)
    capsys.readouterr()
    collecting.score_all([own, out], {"kind": line(url), "length": "length"})
    told = capsys.readouterr().err
    costs = [text for text in told.splitlines() if "requests" in text]
    assert len(costs) == 1
    assert costs[0].startswith(f"scoring kind: 24 requests to wise at {url}, about ")
    assert len(rewarder.requests) == 24
    tokens = sum(
        sum(len(turn["content"]) for turn in asked["messages"]) / 4 for _, asked in rewarder.requests
    )
    assert int(costs[0].split("about ")[1].split(" tokens")[0].replace(",", "")) == pytest.approx(
        tokens, rel=0.1
    )
    collecting.score_all([own, out], {"kind": line(url)})
    assert "requests" not in capsys.readouterr().err, "nothing is left to score"
    collecting.score_all([own, out], {"kind": line(url, draws=4)}, again=["kind"])
    assert "kind: 8 requests to wise" in capsys.readouterr().err
    collecting.score_all([own, out], {"kinder": line(url)}, quiet=True)
    assert capsys.readouterr().err == ""


def test_the_key_comes_from_the_environment(
    server: tuple[Rewarder, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarder, url = server
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.setenv("JUDGE_KEY", "secret-other")
    told = {"reward": "judge", "rubric": RUBRIC, "model": "wise"}
    for options in ({}, {"key": "JUDGE_KEY", "scale": [1, 3]}):
        reward = open_reward("kind", {**told, **options})
        reward.score(PROMPTS[:1], RESPONSES[:1])
        assert "secret" not in f"{reward.version} {vars(reward)}"
    assert rewarder.keys == {"Bearer secret-key", "Bearer secret-other"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rubric": " "}, "rubric must be a text"),
        ({"model": ""}, "model must be the server's name"),
        ({"scale": [5, 1]}, r"scale must be two numbers, .* got \[5, 1\]"),
        ({"scale": [1, 2, 3]}, "scale must be two numbers"),
        ({"scale": "1 to 5"}, "scale must be two numbers"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"temperature": 0}, "draws must be 1 where temperature is 0"),
        ({"temperature": -1}, "temperature must be 0 or positive"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"base_url": "host"}, "base_url must be http"),
        ({"key": "NOT_SET_KEY"}, "variable that is set; NOT_SET_KEY is not"),
        ({"requests_per_minute": 0}, "per_minute must be at least 1"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"value 'kind': .*{said}"):
        opened("http://127.0.0.1:9", **options)
