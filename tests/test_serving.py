"""The gateway on a port of its own: the official client, a server with its faults, clients that leave."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import httpx
import openai

import test_study
from fake_server import MODEL, Behaviour, serving
from fakes import FakeEngine
from gateways import NAME, chat, gateway, pilot, running
from valuepalette.cli import main
from valuepalette.engines.openai import OpenAIEngine
from valuepalette.palette import Palette
from valuepalette.requesting import Limits
from valuepalette.server.app import create_app
from valuepalette.server.running import key_of, opened

QUICK = Limits(timeout=1.5, tries=2, backoff=0.01)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(create_app(gateway(), key="let-me-in")) as found:
        yield found


MESSAGES: Any = [{"role": "user", "content": "Say it."}]


def test_the_official_client(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="let-me-in", max_retries=0) as speaker:
        answer = speaker.chat.completions.create(
            model=f"{NAME}/funny", messages=MESSAGES, n=2, seed=3, user="me"
        )
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.valuepalette["aligned"] is True
        brought = speaker.chat.completions.create(
            model=NAME,
            messages=MESSAGES,
            extra_body={
                "palette": {"goats": "+0.1", "cohorts": {"audience=children": {"variety": "+0.01"}}},
                "columns": {"audience": "children"},
            },
        )
        assert brought.valuepalette["palette"] == "custom"
        said = speaker.completions.create(model=f"{NAME}/varied", prompt="Once", seed=1)
        assert said.choices[0].text
        assert f"{NAME}/funny" in [model.id for model in speaker.models.list()]
        with pytest.raises(openai.UnprocessableEntityError, match="cannot average above") as caught:
            speaker.chat.completions.create(model=f"{NAME}/impossible", messages=MESSAGES)
        assert "nearest" in caught.value.body  # type: ignore[operator]
        with pytest.raises(openai.NotFoundError):
            speaker.chat.completions.create(model="other", messages=MESSAGES)
    with (
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as speaker,
        pytest.raises(openai.AuthenticationError),
    ):
        speaker.models.list()


def test_the_official_client_streams(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="let-me-in", max_retries=0) as speaker:
        whole = speaker.chat.completions.create(model=f"{NAME}/funny", messages=MESSAGES, seed=3, n=2)
        got = ["", ""]
        told = []
        for chunk in speaker.chat.completions.create(
            model=f"{NAME}/funny", messages=MESSAGES, seed=3, n=2, stream=True
        ):
            told.append(getattr(chunk, "valuepalette", None))
            for choice in chunk.choices:
                got[choice.index] += choice.delta.content or ""
        assert got == [choice.message.content for choice in whole.choices]
        assert told[0]["weights"] == whole.valuepalette["weights"]
        text = speaker.completions.create(model=f"{NAME}/funny", prompt="Once", seed=3, stream=True)
        assert "".join(chunk.choices[0].text for chunk in text)


def test_the_official_client_asynchronous(url: str) -> None:
    async def spoken() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="let-me-in", max_retries=0) as speaker:
            answers = await asyncio.gather(
                *(
                    speaker.chat.completions.create(
                        model=f"{NAME}/{name}", messages=[{"role": "user", "content": f"{i}"}]
                    )
                    for i in range(8)
                    for name in ("funny", "varied")
                )
            )
            streamed = await speaker.chat.completions.create(
                model=f"{NAME}/short", messages=MESSAGES, stream=True
            )
            assert [chunk async for chunk in streamed]
            return [answer.valuepalette["palette"] for answer in answers]

    assert asyncio.run(spoken()) == ["funny", "varied"] * 8


# A model behind a server.


@pytest.fixture
def upstream() -> Iterator[tuple[Behaviour, str]]:
    behaviour = Behaviour()
    with serving(behaviour) as found:
        yield behaviour, found


def engine(url: str, limits: Limits = QUICK) -> OpenAIEngine:
    return OpenAIEngine(MODEL, base_url=url, key="upstream-key", limits=limits)


def speak(made: Any, *bodies: Any, before: Any = None) -> list[httpx.Response]:
    with running(create_app(made)) as url, httpx.Client(timeout=30) as speaker:
        if before is not None:
            before()
        return [speaker.post(f"{url}/chat/completions", json=body) for body in bodies]


def test_in_front_of_a_server(upstream: tuple[Behaviour, str]) -> None:
    behaviour, url = upstream
    made = gateway(pilot(engine(url)), engine(url))
    aligned, base = speak(made, chat(seed=2), chat(None, seed=5, user="me", temperature=0.5))
    assert aligned.json()["valuepalette"]["aligned"] is True
    assert base.json()["model"] == NAME
    assert base.json()["valuepalette"]["reasons"] == ["no palette was asked for"]
    asked = behaviour.requests[-1]
    assert (asked["model"], asked["temperature"], asked["max_tokens"], asked["top_k"], asked["seed"]) == (
        MODEL,
        0.5,
        12,
        50,
        5,
    )
    assert asked["user"] == "me"
    assert "palette" not in asked


def test_extras_are_handed_on_by_policy(upstream: tuple[Behaviour, str]) -> None:
    behaviour, url = upstream
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = chat(tools=tools, response_format={"type": "json_object"}, palette=None)
    (answer,) = speak(gateway(pilot(engine(url)), engine(url), extras="unaligned"), body)
    assert answer.json()["valuepalette"]["aligned"] is False
    assert "tools" in answer.json()["valuepalette"]["reasons"][0]
    assert behaviour.requests[-1]["tools"] == tools
    (refused,) = speak(gateway(pilot(engine(url)), engine(url)), body)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("moods", "status"),
    [
        ([503], 200),  # tried again
        (["cut"], 200),
        ([500] * 2, 502),
        ([429] * 2, 503),
        ([400], 400),
        ([401], 502),
        (["slow"] * 2, 502),
        (["cut"] * 2, 502),
        (["text"] * 2, 502),
        (["close"] * 2, 502),
        (["empty"], 502),
    ],
)
def test_faults_of_the_server(upstream: tuple[Behaviour, str], moods: list[Any], status: int) -> None:
    behaviour, url = upstream
    made = gateway(pilot(engine(url)), engine(url))
    (answer, after) = speak(
        made, chat(seed=1), chat(seed=1), before=lambda: setattr(behaviour, "next", list(moods))
    )
    assert answer.status_code == status
    assert after.status_code == 200
    assert "127.0.0.1" not in answer.text
    assert "upstream-key" not in answer.text


def test_a_server_that_is_not_there() -> None:
    with serving(Behaviour()) as url:
        made = gateway(pilot(engine(url)), engine(url))
    (answer, streamed) = speak(made, chat(), chat(stream=True))
    assert answer.status_code == 502
    assert streamed.status_code == 200
    assert json.loads(streamed.text.splitlines()[0][6:])["error"]["type"] == "server_error"


@pytest.mark.parametrize("several", [3, 1, 0])
def test_fewer_candidates_than_asked(upstream: tuple[Behaviour, str], several: int) -> None:
    behaviour, url = upstream
    own = pilot(engine(url))
    behaviour.several = several
    (answer,) = speak(
        gateway(own, engine(url), show_candidates=True), chat(return_candidates=True, n=2, seed=1)
    )
    shown = [choice["valuepalette"]["candidates"] for choice in answer.json()["choices"]]
    assert [len(each) for each in shown] == [4, 4]


def test_an_engine_that_gives_fewer() -> None:
    class Short(FakeEngine):
        def sample(self, prompts: Any, k: int, **more: Any) -> Any:
            return [own[:-1] for own in super().sample(prompts, k, **more)]

    class Broken(FakeEngine):
        def sample(self, prompts: Any, k: int, **more: Any) -> Any:
            raise KeyError(f"secret {prompts}")

    (short,) = speak(gateway(engine=Short()), chat())
    (broken,) = speak(gateway(engine=Broken()), chat())
    assert (short.status_code, broken.status_code) == (502, 502)
    assert "3 of 4 candidates" in short.json()["error"]["message"]
    assert "secret" not in broken.text


# Clients that hang up.


class _Slow(BaseHTTPRequestHandler):
    """Answers after a while, and notices when nobody waits any more."""

    protocol_version = "HTTP/1.1"
    left: threading.Event
    begun: threading.Event
    stream = False

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.begun.set()
        if self.stream:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
        self.connection.settimeout(0.05)
        for place in range(200):
            try:
                if self.stream:
                    chunk = {"choices": [{"index": 0, "delta": {"content": f"{place} "}}]}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                if self.connection.recv(1) == b"":
                    self.left.set()
                    return
            except TimeoutError:
                continue
            except OSError:
                self.left.set()
                return


@pytest.fixture
def slow() -> Iterator[Any]:
    handler = type("Handler", (_Slow,), {"left": threading.Event(), "begun": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def renamed(url: str) -> Any:
    """An engine whose pilot was drawn by words at another address."""

    class Moved(OpenAIEngine):
        @property
        def fingerprint(self) -> Any:
            return FakeEngine().fingerprint

    return Moved(MODEL, base_url=url, limits=Limits(timeout=30, tries=1))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_the_server(slow: Any, stream: bool) -> None:
    handler, url = slow
    made = gateway(engine=renamed(url))
    with running(create_app(made)) as own:
        host, port = own.split("/")[2].split(":")
        body = json.dumps(chat(stream=stream)).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as line:
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert handler.begun.wait(10)
        assert handler.left.wait(10), "the request went on without anybody waiting"
        deadline = time.monotonic() + 10
        while made.gate.inside:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_base_palette_streams_chunk_by_chunk(slow: Any) -> None:
    handler, url = slow
    handler.stream = True
    with running(create_app(gateway(engine=renamed(url)))) as own:
        with httpx.stream(
            "POST", f"{own}/chat/completions", json=chat(None, stream=True), timeout=10
        ) as answer:
            lines = answer.iter_lines()
            chunks = [json.loads(line[6:]) for line in (next(lines) for _ in range(6)) if line]
            assert not handler.left.is_set()
        assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["0 ", "1 ", "2 "]
        assert {chunk["model"] for chunk in chunks} == {NAME}
        assert chunks[0]["valuepalette"]["aligned"] is False
        assert handler.left.wait(10)


# A study.


SERVE = """
[serve]
name = "bot"
candidates = 4
show_candidates = true

[serve.floors]
variety = "keep"
"""


def test_a_study_is_served(tmp_path: Path) -> None:
    study = test_study.study(test_study.write(tmp_path, test_study.TEXT + SERVE))
    study.sample(quiet=True)
    study.score(quiet=True)
    with opened(study) as made:
        assert made.decider.name == "bot"
        assert made.decider.floors == Palette({"variety": "keep"})
        assert set(made.scorer.columns) == {"goats", "variety", "length"}
        answer, check = speak(
            made,
            {"model": "bot/funny", "messages": MESSAGES, "return_candidates": True},
            {"model": "bot", "messages": MESSAGES, "palette": {"shortness": "keep"}},
        )
    assert answer.json()["valuepalette"]["asked"] == {"goats": "reach 50%", "variety": "keep"}
    assert check.status_code == 400


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('infeasible = "guess"', "infeasible must be one of refuse, adjust"),
        ("port = 0", "port must be a port, 1 to 65535"),
        ("deadline = -1", "deadline must be a positive number of seconds"),
        ('floors = { goats = "max" }', 'goats must have a bound, got "max"'),
        ('floors = { shortness = "keep" }', "shortness is a check"),
        ('floors = { goats = "lots" }', "[serve.floors] palette['goats']: an entry is"),
        ('extra = "x"', "has no key extra"),
        ('key = "a b"', "key must be a variable of the environment"),
    ],
)
def test_what_a_study_may_say_of_serving(
    tmp_path: Path, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = test_study.write(tmp_path, f"{test_study.TEXT}\n[serve]\n{line}\n")
    assert main(["serve", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VALUEPALETTE_KEY", raising=False)
    assert key_of(None, "127.0.0.1") is None
    assert key_of(None, "localhost") is None
    with pytest.raises(ValueError, match="host must be this machine alone"):
        key_of(None, "0.0.0.0")
    with pytest.raises(ValueError, match="key names OTHER, which must be set"):
        key_of("OTHER", "127.0.0.1")
    monkeypatch.setenv("VALUEPALETTE_KEY", "x")
    monkeypatch.setenv("OTHER", "y")
    assert (key_of(None, "0.0.0.0"), key_of("OTHER", "::")) == ("x", "y")


def test_the_pilots_settings_stay_the_studys(tmp_path: Path) -> None:
    text = test_study.TEXT.replace("max_new_tokens = 12", "max_new_tokens = 13")
    study = test_study.study(test_study.write(tmp_path))
    study.sample(quiet=True)
    study.score(quiet=True)
    longer = test_study.study(test_study.write(tmp_path, text))
    with pytest.raises(ValueError, match="max_new_tokens: 12 -> 13"), opened(longer):
        pass
