"""A reward behind a server of one's own: every shape of answer, every kind of nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from fakes import FakeEngine
from reward_server import Rewarder, rewarding
from valuepalette.requesting import Client
from valuepalette.rewards.checking import RewardError, checked_score
from valuepalette.rewards.opening import open_reward
from valuepalette.study import Study

PROMPTS: list[Any] = [
    "Hi",
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go."},
    ],
    "Why?",
    "Où?",
    "And?",
]
RESPONSES = ["Hello.", "<think>Go where?</think> Gone.", "", "Là-bas.", "No."]
LENGTHS = [6.0, 5.0, 0.0, 7.0, 3.0]
QUICK = {"timeout": 2, "tries": 2}


def lengths(path: str, asked: dict[str, Any]) -> Any:
    return {"scores": [len(response) for response in asked["responses"]]}


@pytest.fixture
def server() -> Iterator[tuple[Rewarder, str]]:
    rewarder = Rewarder(lengths)
    with rewarding(rewarder) as url:
        yield rewarder, url


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_pause", lambda *_: 0.0)


def opened(server: str, **options: Any) -> Any:
    return open_reward("size", {"reward": "endpoint", "url": f"{server}/judge", **QUICK, **options})


def test_prompts_and_responses_go_out_and_numbers_come_back(server: tuple[Rewarder, str]) -> None:
    rewarder, url = server
    reward = opened(url, batch_size=2)
    assert checked_score(reward, "size", PROMPTS, RESPONSES)[:, 0].tolist() == LENGTHS
    assert reward.columns[0].name == "size"
    assert {path for path, _ in rewarder.requests} == {"/judge"}
    asked = sorted((content for _, content in rewarder.requests), key=lambda each: str(each["responses"]))
    assert sorted(len(each["prompts"]) for each in asked) == [1, 2, 2]
    assert {"prompts": PROMPTS[:2], "responses": ["Hello.", "Gone."]} in asked
    assert reward.score([], []).shape == (0, 1)


@pytest.mark.parametrize(
    "shape",
    [
        lambda rows: {"scores": rows},
        lambda rows: {"rewards": rows},
        lambda rows: {"scores": {"b": [row[1] for row in rows], "a": [row[0] for row in rows], "c": []}},
    ],
)
def test_several_columns_in_any_shape(server: tuple[Rewarder, str], shape: Any) -> None:
    rewarder, url = server
    rewarder.answer = lambda _, asked: shape([[len(each), -len(each)] for each in asked["responses"]])
    reward = opened(url, columns=["a", "b"], batch_size=3, options={"mood": "mild"})
    assert [column.name for column in reward.columns] == ["a", "b"]
    found = checked_score(reward, "size", PROMPTS, RESPONSES)
    assert np.array_equal(found, np.outer(LENGTHS, [1, -1]))
    assert rewarder.requests[0][1]["options"] == {"mood": "mild"}
    assert "mild" in reward.version


def test_columns_that_the_server_declares(server: tuple[Rewarder, str]) -> None:
    rewarder, url = server
    declared = ["plain", {"name": "chance", "definition": "of a smile", "scale": "probability"}]
    version = ["7"]

    def answer(path: str, asked: dict[str, Any]) -> Any:
        rows = [[len(each), 0.5] for each in asked["responses"]]
        return {"columns": declared, "version": version[0], "scores": rows}

    rewarder.answer = answer
    reward = opened(url, columns="server")
    plain, chance = reward.columns
    assert (plain.name, plain.scale) == ("plain", "real")
    assert (chance.definition, chance.scale, chance.range) == ("of a smile", "probability", (0.0, 1.0))
    assert "version 7" in reward.version
    assert checked_score(reward, "size", PROMPTS, RESPONSES)[:, 0].tolist() == LENGTHS
    version[0] = "8"
    with pytest.raises(RewardError, match="the server's version was 7 and is 8 now"):
        checked_score(reward, "size", PROMPTS, RESPONSES)
    for wrong, said in (
        ([], "with its columns"),
        ([{"name": ""}], "objects with a name"),
        (["a", "a"], "must differ"),
        ([{"name": "a", "scale": "odds"}], "scale must be one of .* got 'odds'"),
        ([{"name": "a", "range": [1, 0]}], "range must be two numbers"),
    ):
        declared[:] = wrong  # type: ignore[assignment]
        with pytest.raises(ValueError, match=said) as caught:
            opened(url, columns="server")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1, 2], r"prompt 'Hi', response 'Hello\.': the server gave 5 responses 2 scores"),
        ([1, 2, "high", 4, 5], r"prompt 'Why\?', response '': the server answered 'high' where a number"),
        ([1, 2, 10**400, 4, 5], r"prompt 'Why\?', .*too large for a number"),
        ([1, 2, 3, None, 5], r"prompt 'Où\?', response 'Là-bas\.': the server answered None"),
        ([1, True, 3, 4, 5], r"prompt 'Go\.', response .*: the server answered True"),
        ([1, 2, 3, 4, float("nan")], r"value 'size' is nan at prompt 'And\?', response 'No\.'"),
        ([1, 2, 3, 4, float("inf")], r"value 'size' is inf at prompt 'And\?'"),
        ([1, 2, 3, [4, 4], 5], r"prompt 'Où\?', .*: the server gave 2 numbers for size"),
        ("good", "must answer with scores or rewards, a list or a table; got 'good'"),
        (None, "must answer with scores or rewards"),
        ({"other": [1] * 5}, "lack a list for 'size'"),
        ({"size": [1] * 4}, "gave 5 responses 4 'size'"),
    ],
)
def test_nonsense_is_refused_in_one_line(server: tuple[Rewarder, str], scores: Any, said: str) -> None:
    rewarder, url = server
    rewarder.answer = lambda *_: {"scores": scores}
    with pytest.raises(RewardError, match=said) as caught:
        checked_score(opened(url), "size", PROMPTS, RESPONSES)
    assert "\n" not in str(caught.value)
    assert "value 'size'" in str(caught.value)
    assert len(rewarder.requests) == 1, "what is wrong is not asked again"


def test_a_number_outside_its_range_is_nonsense(server: tuple[Rewarder, str]) -> None:
    with pytest.raises(
        RewardError, match=r"response 'Hello\.': the server answered 6, and 'size' lies in \[0, 1\]"
    ):
        checked_score(opened(server[1], scale="probability"), "size", PROMPTS, RESPONSES)
    assert opened(server[1], range=[0, 10]).score(PROMPTS, RESPONSES).shape == (5, 1)


@pytest.mark.parametrize("mood", [429, 503, "html", "cut", "close", "[1, 2]"])
def test_trouble_passes_or_is_one_line(server: tuple[Rewarder, str], mood: Any) -> None:
    rewarder, url = server
    rewarder.next = [mood]
    assert checked_score(opened(url), "size", PROMPTS, RESPONSES)[:, 0].tolist() == LENGTHS
    rewarder.next, before = [mood] * 20, len(rewarder.requests)
    with pytest.raises(
        RewardError, match=r"value 'size' failed at prompt 'Hi', response 'Hello\.': http"
    ) as caught:
        checked_score(opened(url), "size", PROMPTS, RESPONSES)
    assert "\n" not in str(caught.value)
    assert len(rewarder.requests) - before == 2, "a server that is down is not asked for each half"


def test_the_key_comes_from_the_environment(
    server: tuple[Rewarder, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarder, url = server
    with pytest.raises(ValueError, match="variable that is set; REWARD_KEY is not"):
        opened(url, key="REWARD_KEY")
    monkeypatch.setenv("REWARD_KEY", "secret-key")
    reward = opened(url, key="REWARD_KEY")
    reward.score(PROMPTS, RESPONSES)
    assert rewarder.keys == {"Bearer secret-key"}
    assert "secret" not in f"{reward.version} {reward.columns} {vars(reward)}"
    rewarder.answer = lambda *_: (403, {"error": "secret-key is not allowed"})
    with pytest.raises(RewardError, match=r"\[key\] is not allowed") as caught:
        checked_score(reward, "size", PROMPTS, RESPONSES)
    assert "secret" not in str(caught.value)
    for options in (
        {"key": "sk-secret"},
        {"url": "http://me:secret@host/"},
        {"url": "http://host/?key=secret"},
    ):
        with pytest.raises(ValueError, match="environment") as wrong:
            opened(url, **options)
        assert "secret" not in str(wrong.value)
    with pytest.raises(ValueError, match="needs url; got key") as missing:
        open_reward("size", {"reward": "endpoint", "key": "sk-secret"})
    assert "secret" not in str(missing.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "localhost:8000"}, "url must be http"),
        ({"columns": "all"}, 'columns must be a list of names or "server"'),
        ({"columns": "server", "scale": "real", "version": "1"}, "are the server's"),
        ({"scale": "odds"}, "scale must be one of"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"reads": "all"}, "reads must be one of"),
        ({"tries": 0}, "tries must be at least 1"),
    ],
)
def test_what_cannot_be_asked(server: tuple[Rewarder, str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"value 'size': .*{said}"):
        opened(server[1], **options)
    assert not server[0].requests


def test_a_study_of_values_behind_servers(
    server: tuple[Rewarder, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward server, a reward model and a judge in one study; the key is in no file."""
    rewarder, url = server
    monkeypatch.setenv("REWARD_KEY", "secret-key")
    monkeypatch.setenv("VALUEPALETTE_CACHE", str(tmp_path / "cache"))

    def answer(path: str, asked: dict[str, Any]) -> Any:
        if path == "/judge":
            rows = [[len(each), each.count("goat")] for each in asked["responses"]]
            return {"columns": ["size", "goats"], "version": 1, "scores": rows}
        if path == "/classify":
            shares = [[0.0, len(set(text.split())) / 3 - 1] for text in asked["input"]]
            return {"data": [{"index": place, "probs": own} for place, own in enumerate(shares)]}
        return {"choices": [{"message": {"content": f'{{"score": {asked["seed"] % 5 + 1}}}'}}]}

    rewarder.answer = answer
    (tmp_path / "prompts.txt").write_text("\n".join(f"Say {i}." for i in range(12)))
    (tmp_path / "study.toml").write_text(
        f"""
        model = {{ id = "fake", max_new_tokens = 8 }}
        prompts = {{ path = "prompts.txt", held_out = 0.5 }}
        pilot = {{ candidates = 4 }}
        [values]
        told = {{ reward = "endpoint", url = "{url}/judge", columns = "server", key = "REWARD_KEY" }}
        varied = {{ reward = "vllm", model = "m", base_url = "{url}", key = "REWARD_KEY" }}
        [values.kind]
        reward = "judge"
        rubric = "Kind?"
        model = "wise"
        base_url = "{url}/v1"
        key = "REWARD_KEY"
        draws = 1
        [palettes.goatish]
        goats = "reach 40%"
        kind = "keep"
        """
    )
    made = Study.read(tmp_path / "study.toml", open_engine=FakeEngine)
    made.sample(quiet=True)
    made.score(quiet=True)
    assert set(made.pilot().values) == {"size", "goats", "varied", "kind", "length"}
    assert made.pilot().scale("varied") == "log-probability"
    assert made.evaluate("goatish").prompts == 6
    assert rewarder.keys == {"Bearer secret-key"}
    asked = len(rewarder.requests)
    made.score(quiet=True)
    assert len(rewarder.requests) == asked
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not any(b"secret" in path.read_bytes() for path in files)
