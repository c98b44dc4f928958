"""Reward models behind vLLM's endpoints: a table of kinds, and the same numbers served as in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

import test_reward_models
from reward_server import Rewarder, rewarding
from valuepalette.requesting import Client
from valuepalette.rewards.checking import RewardError, checked_score
from valuepalette.rewards.kinds import TABLE, Kind, in_memory
from valuepalette.rewards.opening import open_reward
from valuepalette.rewards.parity import EXCHANGES, Parity, check_parity

needs_models = [
    pytest.mark.models,
    pytest.mark.skipif(
        find_spec("torch") is None or find_spec("transformers") is None, reason="needs the extra models"
    ),
]
PROMPTS, RESPONSES = [prompt for prompt, _ in EXCHANGES], [response for _, response in EXCHANGES]
IN_MEMORY = [kind for kind in TABLE if kind.memory is not None]
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"num_labels": 3}),
    ("distilbert", {"num_labels": 3, "problem_type": "multi_label_classification"}),
    ("roberta", {"num_labels": 1}),
    ("bert", {"num_labels": 1}),
    ("llama", {"num_labels": 1}),
    ("llama", {"num_labels": 2}),
    ("gpt2", {"num_labels": 1}),
]
"""A tiny model for each kind that runs in memory."""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_pause", lambda *_: 0.0)


def vllm(model: Any, tokenizer: Any, *, activates: bool = False) -> Callable[[str, dict[str, Any]], Any]:
    """A stand-in for vLLM that runs the model: each text alone. With `activates` it ignores what is asked."""
    import torch

    def run(*texts: str, side: str, special: bool) -> list[float]:
        tokenizer.truncation_side = side
        inputs = tokenizer(
            *([text] for text in texts), return_tensors="pt", truncation=True, add_special_tokens=special
        )
        with torch.no_grad():
            return model(**inputs).logits[0].double().tolist()

    def activated(asked: dict[str, Any], logits: list[float]) -> list[float]:
        if asked["use_activation"] is False and not activates:
            return logits
        shares = np.exp(logits)
        return list(shares / shares.sum() if len(logits) > 1 else shares / (1 + shares))

    def answer(path: str, asked: dict[str, Any]) -> Any:
        assert asked["model"] == "judge"
        assert asked["truncate_prompt_tokens"] == -1
        side = asked["truncation_side"]
        if path == "/score":
            pairs = zip(asked["queries"], asked["documents"], strict=True)
            rows = [run(one, other, side=side, special=True) for one, other in pairs]
            if len(rows[0]) != 1:
                return 400, {"error": {"message": "Score API is only enabled for num_labels == 1."}}
            return {"data": [{"index": i, "score": activated(asked, row)[0]} for i, row in enumerate(rows)]}
        if "messages" in asked:
            text = tokenizer.apply_chat_template(asked["messages"], tokenize=False)
            rows = [run(text, side=side, special=False)]
        else:
            rows = [run(text, side=side, special=True) for text in asked["input"]]
        rows = [activated(asked, row) for row in rows]
        if path == "/classify":
            data = [{"index": i, "label": "?", "probs": row} for i, row in enumerate(rows)]
            return {"data": data[::-1]}
        if asked["task"] == "token_classify":
            return {"data": [{"index": i, "data": [[0.0] * len(row), row]} for i, row in enumerate(rows)]}
        return {"data": [{"index": i, "data": row} for i, row in enumerate(rows)]}

    return answer


@contextmanager
def serving_model(
    folder: Path, kind: str, settings: dict[str, Any], **more: Any
) -> Iterator[tuple[Rewarder, str]]:
    model, tokenizer = test_reward_models.save(folder, kind, **settings)
    rewarder = Rewarder(vllm(model, tokenizer, **more))
    with rewarding(rewarder) as url:
        yield rewarder, url


def line(kind: Kind, url: str) -> dict[str, Any]:
    return {"reward": "vllm", "model": "judge", "base_url": f"{url}/v1", "tries": 2, **kind.line}


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        pytest.param(*each, marks=needs_models, id=each[0].model)
        for each in zip(IN_MEMORY, MODELS, strict=True)
    ],
)
def test_what_is_served_is_what_is_computed_in_memory(
    kind: Kind, model: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    with serving_model(tmp_path, *model) as (rewarder, url):
        told = line(kind, url)
        derived = in_memory(told)
        assert derived == {**(kind.memory or {}), "model": "judge"}
        found = check_parity(told, memory={**derived, "model": str(tmp_path)}, tolerance=1e-5)
        assert found.agrees, str(found)
        assert found.spread > 1e-3, "numbers that are all alike would agree in any case"
        assert found.memory.shape == (5, len(kind.line.get("heads", "1")))
        for path, asked in rewarder.requests:
            assert path == kind.endpoint
            assert kind.sends.items() <= asked.items()
        # An output of another scale, turned round.
        if kind.line["task"] == "classify":
            options = {"output": "probability", "negate": True}
            assert check_parity(
                {**told, **options}, memory={**derived, **options, "model": str(tmp_path)}, tolerance=1e-5
            ).agrees


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.model)
def test_every_kind_is_asked_as_the_table_says(kind: Kind) -> None:
    """Without a model: the texts go where the table says, with its settings, and the last numbers come back."""
    heads = len(kind.line.get("heads", "1"))

    def answer(path: str, asked: dict[str, Any]) -> Any:
        texts = asked.get("input") or asked.get("queries") or [asked["messages"]]
        own = [float(place) - 3 for place in range(heads + (path == "/classify"))]
        told = {"/classify": {"probs": own}, "/score": {"score": own[0]}, "/pooling": {"data": own}}[path]
        if asked.get("task") == "token_classify":
            told = {"data": [[9.0] * heads, [8.0] * heads, own]}
        return {"data": [{"index": place, **told} for place in range(len(texts))]}

    rewarder = Rewarder(answer)
    with rewarding(rewarder) as url:
        reward = open_reward(
            "kind",
            {**line(kind, url), **({"output": "logit"} if heads == 1 else {})}
            if kind.line["task"] == "classify"
            else line(kind, url),
        )
        found = checked_score(reward, "kind", PROMPTS, RESPONSES)
    label = kind.line.get("label", 0)
    assert found.tolist() == [[label - 3.0 + head for head in range(heads)]] * 5
    for path, asked in rewarder.requests:
        assert path == kind.endpoint
        assert kind.sends.items() <= asked.items()


def row(kind: Kind) -> str:
    """The row of the page on servers that says what the table does."""

    def told(line: Mapping[str, Any]) -> str:
        entries = (f"{name} = {json.dumps(entry)}" for name, entry in line.items() if name != "reward")
        return ", ".join(entries)

    memory = "–"
    if kind.memory is not None:
        options = {name: entry for name, entry in kind.memory.items() if kind.line.get(name) != entry}
        memory = f"`{kind.memory['reward']}`" + (f", `{told(options)}`" if told(options) else "")
    serve = f"`{kind.serve}`" if kind.serve else "–"
    return f"| {kind.model} | `{told(kind.line)}` | `{kind.endpoint}` | {serve} | {memory} |"


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.model)
def test_the_page_has_the_table(kind: Kind) -> None:
    page = (Path(__file__).parents[1] / "docs" / "servers.md").read_text(encoding="utf-8")
    assert row(kind) in page.splitlines()


def test_texts_are_those_of_the_adapters_in_memory() -> None:
    seen: list[dict[str, Any]] = []

    def answer(path: str, asked: dict[str, Any]) -> Any:
        seen.append(asked)
        texts = asked.get("input") or asked.get("queries") or [asked["messages"]]
        return {
            "data": [{"index": i, "probs": [0.1], "score": 0.1, "data": [0.1]} for i in range(len(texts))]
        }

    with rewarding(Rewarder(answer)) as url:
        base = {"reward": "vllm", "model": "judge", "base_url": url}
        prompts, responses = PROMPTS[2:5:2], RESPONSES[2:5:2]
        for options in (
            {"label": 0, "reads": "conversation"},
            {"task": "score", "template": "Q: {prompt}"},
            {"task": "pooling", "format": "text", "template": "{prompt} / {answer}"},
        ):
            open_reward("v", {**base, **options}).score(prompts, responses)
        open_reward("v", {**base, "task": "pooling", "thinking": True}).score(prompts[:1], responses[:1])
    answers = ["Four — ça va?", "Then a window will tell you sooner than I can."]
    assert seen[0]["input"] == [
        "¿Cuánto es 2 + 2?Four — ça va?",
        f"Is it going to rain?\nWhere are you?\nAt home,\nof course.\n{answers[1]}",
    ]
    assert seen[1]["queries"] == ["Q: ¿Cuánto es 2 + 2?", "Q: At home,\nof course."]
    assert seen[1]["documents"] == answers
    assert seen[2]["input"][1] == f"At home,\nof course. / {answers[1]}"
    assert seen[3]["messages"] == [
        {"role": "user", "content": "¿Cuánto es 2 + 2?"},
        {"role": "assistant", "content": "<think>Two and two.</think> Four — ça va?"},
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param(TABLE[0], "gave probabilities where raw outputs were asked", marks=needs_models),
        pytest.param(TABLE[2], None, marks=needs_models),
    ],
)
def test_a_server_that_activates_is_found_out(kind: Kind, said: str | None, tmp_path: Path) -> None:
    model, settings = MODELS[IN_MEMORY.index(kind)]
    with serving_model(tmp_path, model, settings, activates=True) as (_, url):
        memory = {**(kind.memory or {}), "model": str(tmp_path)}
        if said is not None:
            with pytest.raises(RewardError, match=said):
                check_parity(line(kind, url), memory=memory)
            return
        found = check_parity(line(kind, url), memory=memory)
        assert not found.agrees
        assert "DIFFER" in str(found)
        assert "\n" not in str(found)


def test_a_parity_names_the_worst() -> None:
    memory, served = np.zeros((5, 2)), np.zeros((5, 2))
    served[3, 1] = 0.5
    assert "0.5 apart (allowed 0.1), at exchange 3 in 'b'" in str(Parity(("a", "b"), memory, served, 0.1))
    assert Parity(("a", "b"), memory, served, 0.5).agrees
    with pytest.raises(ValueError, match="pooling must be 'classify' to be run in memory"):
        in_memory({"reward": "vllm", "model": "m", "task": "pooling", "pooling": "token_classify"})


def data(*entries: Any) -> dict[str, Any]:
    return {"data": [{"index": place, "probs": entry} for place, entry in enumerate(entries)]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"object": "list"}, "'How do I bake bread.*: the server answered without data"),
        ({"data": ["x"] * 5}, "without data"),
        (data([1.0, 2.0]), "the server gave 5 responses 1 results"),
        ({"data": [{"index": 0, "probs": [1.0, 2.0]}] * 5}, "numbered 0 to 4"),
        (data(*[[1.0, 2.0]] * 4, ["a", "b"]), "prompt 'At home, of course.', .* answered 'a' where a number"),
        (data(*[[1.0, 2.0]] * 3, [1.0], [1.0, 2.0]), r"prompt 'Why\?', .* gave 1 outputs, and 2 for"),
        (data(*[[1.0, 2.0]] * 3, [], [1.0, 2.0]), r"prompt 'Why\?', .* gave 0 outputs"),
        (data(*[[1.0, float("nan")]] * 5), "value 'v' is nan at prompt 'How do I"),
        (data(*[[1.0]] * 5), "the model has 1 outputs, 0 to 0, and number 1 is asked"),
        (data(*[None] * 5), "answered None where a number should be"),
        ((400, {"error": {"message": "no such model"}}), r"refused \(400\): no such model"),
        ((404, {"detail": "Not Found"}), r"refused \(404\)"),
    ],
)
def test_nonsense_is_refused_in_one_line(answer: Any, said: str) -> None:
    with rewarding(Rewarder(lambda *_: answer)) as url:
        reward = open_reward("v", {"reward": "vllm", "model": "judge", "base_url": url, "output": "logit"})
        with pytest.raises(RewardError, match=said) as caught:
            checked_score(reward, "v", PROMPTS, RESPONSES)
    assert "\n" not in str(caught.value)
    assert "value 'v'" in str(caught.value)


@pytest.mark.parametrize("mood", [503, "html", "cut", "close"])
def test_trouble_passes_or_is_one_line(mood: Any) -> None:
    rewarder = Rewarder(lambda _, asked: data(*[[0.5, 2.0]] * len(asked["input"])))
    with rewarding(rewarder) as url:
        reward = open_reward(
            "v",
            {
                "reward": "vllm",
                "model": "judge",
                "base_url": url,
                "output": "logit",
                "tries": 2,
                "batch_size": 2,
            },
        )
        rewarder.next = [mood]
        assert reward.score(PROMPTS, RESPONSES).tolist() == [[2.0]] * 5
        rewarder.next = [mood] * 20
        with pytest.raises(RewardError, match="value 'v' failed at prompt") as caught:
            checked_score(reward, "v", PROMPTS, RESPONSES)
        assert "\n" not in str(caught.value)


def test_heads_are_those_the_model_has() -> None:
    rewarder = Rewarder(lambda _, asked: {"data": [{"index": 0, "data": [1.0, -2.0]}]})
    with rewarding(rewarder) as url:
        base = {"reward": "vllm", "model": "judge", "base_url": url, "task": "pooling"}
        heads = open_reward("v", {**base, "heads": {"brief": 1}, "negate": ["brief"]})
        assert heads.columns[0].name == "brief"
        assert heads.score(PROMPTS, RESPONSES).tolist() == [[2.0]] * 5
        for options, said in (({}, "2 outputs: heads must name them"), ({"heads": ["a"]}, "heads names 1")):
            with pytest.raises(RewardError, match=said):
                checked_score(open_reward("v", {**base, **options}), "v", PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "rank"}, "task must be one of 'classify', 'score', 'pooling'; got 'rank'"),
        ({"task": "score", "label": 1}, "task 'score' takes template; got label"),
        ({"label": "yes"}, "label must be a label's number, .* got 'yes'"),
        ({"label": True}, "label must be"),
        ({"output": "odds"}, "output must be one of"),
        ({"task": "pooling", "format": "pair"}, "format must be 'chat' or 'text'"),
        ({"task": "pooling", "template": "{prompt}"}, "template belongs to"),
        ({"task": "pooling", "pooling": "embed"}, "pooling must be"),
        ({"task": "pooling", "heads": ["a", "a"]}, "heads must be different names"),
        ({"task": "score", "negate": ["other"]}, "negate must be"),
        ({"base_url": "host:8000"}, "base_url must be http"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_what_cannot_be_asked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"value 'v': .*{said}"):
        open_reward("v", {"reward": "vllm", "model": "judge", "base_url": "http://127.0.0.1:9", **options})


def test_the_version_says_what_is_asked() -> None:
    base = {"reward": "vllm", "model": "judge", "base_url": "http://127.0.0.1:9"}
    lines = (
        {},
        {"revision": "2"},
        {"label": 0},
        {"output": "logit"},
        {"negate": True},
        {"multi_label": True},
        {"reads": "conversation"},
        {"thinking": True},
        {"task": "score"},
        {"task": "pooling"},
        {"task": "pooling", "pooling": "token_classify"},
    )
    versions = [open_reward("v", {**base, **options}).version for options in lines]
    assert len(set(versions)) == len(versions)
    moved = open_reward("v", {**base, "base_url": "http://127.0.0.2:9", "batch_size": 3, "timeout": 5})
    assert moved.version == versions[0], "where a model is served does not change its numbers"
