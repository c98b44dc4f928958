"""What a gateway keeps of what it served: through its own web, and through kills, full queues and full disks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx

import test_study
from fakes import FakeEngine
from gateways import NAME, PALETTES, chat, client, gateway, pilot
from valuepalette.cli import main
from valuepalette.judging import Verdict
from valuepalette.monitoring import monitor
from valuepalette.pilot import Pilot
from valuepalette.server.gateway import Gateway
from valuepalette.server.recording import Parts, Recorder, group_of
from valuepalette.server.running import opened, recording
from valuepalette.server.selecting import Served
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.study import Study
from valuepalette.traffic import Group, Layout, Traffic, solution_id

HERE = Path(__file__).parent


class Chatty(FakeEngine):
    """With a chat template, so that conversations are answered."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {**super().fingerprint, "template": "own"}


def spoken(made: Gateway, bodies: list[Any], watched: int = 0) -> tuple[list[Any], str]:
    """The answers, and the page of metrics once it tells of so many requests."""

    async def all_of_them() -> tuple[list[Any], str]:
        async with client(made) as speaker:
            turn = asyncio.Semaphore(50)

            async def one(body: Any) -> Any:
                async with turn:
                    return await speaker.post("/v1/chat/completions", json=body)

            answers = await asyncio.gather(*map(one, bodies))
            assert {answer.status_code for answer in answers} == {200}
            deadline = time.monotonic() + 30
            while True:
                page = (await speaker.get("/metrics")).text
                told = [
                    line for line in page.splitlines() if line.startswith("valuepalette_watched_requests{")
                ]
                if sum(float(line.rpartition(" ")[2]) for line in told) >= watched:
                    return [answer.json() for answer in answers], page
                assert time.monotonic() < deadline, "the watch was not told"
                await asyncio.sleep(0.05)

    return asyncio.run(all_of_them())


def metric(page: str, name: str, **labels: str) -> float:
    wanted = ",".join(f'{label}="{entry}"' for label, entry in sorted(labels.items()))
    (line,) = [line for line in page.splitlines() if line.startswith(f"{name}{{{wanted}}} ")]
    return float(line.rpartition(" ")[2])


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.parquet"))


def test_what_is_served_is_a_pilot(tmp_path: Path) -> None:
    own = pilot(Chatty())
    made = gateway(own, Chatty())
    bodies = [
        chat("kids", text=f"Say {i}.", seed=i, columns={"audience": "children"}, user="u1") for i in range(5)
    ]
    bodies.append({**chat(n=3, seed=9), "messages": [{"role": "user", "content": "Hi"}] * 3})
    bodies += [chat(palette={"goats": "+0.1"}, model=NAME), chat(None)]
    with recording(made, tmp_path, {"record": True}):
        answers, _ = spoken(made, bodies)
    (part,) = parts(tmp_path)
    found = Pilot.read(part.parent)
    assert (found.prompts, found.candidates, found.values) == (5 + 3 + 1, 4, own.values)
    assert found.metadata == own.metadata
    assert not {"prompt", "messages", "response"} & set(found.table.column_names)
    assert b"u1" not in part.read_bytes()
    table = found.table.to_pylist()
    chosen = [row for row in table if row["drawn"]]
    assert len(chosen) == 9
    for body, answer in zip(bodies[:5], answers, strict=False):
        (row,) = [row for row in chosen if row["seed"] == body["seed"]]
        about = answer["choices"][0]["valuepalette"]
        assert row["probability"] == pytest.approx(about["probability"])
        assert row["candidate"] == about["index"]
        assert (row["palette"], row["audience"], row["turn"], row["aligned"]) == ("kids", "children", 1, True)
        assert abs(row["time"].timestamp() - time.time()) < 60
    np.testing.assert_allclose(np.bincount(found.prompt_index, found.table["probability"]), 1)
    several = [row for row in chosen if row["seed"] == 9]
    assert len({row["request"] for row in several}) == 1
    assert [row["turn"] for row in several] == [3, 3, 3]
    assert {row["palette"] for row in chosen} == {"kids", "funny", "custom"}
    # The solutions are beside, as they were served.
    kept = Traffic.read(tmp_path).solutions
    assert set(kept) == {row["solution"] for row in chosen}
    key = several[0]["solution"]
    assert key == solution_id(solve(own, PALETTES["funny"], 4))
    assert dict(kept[key].weights) == pytest.approx(dict(solve(own, PALETTES["funny"], 4).weights))


def test_texts_are_kept_where_asked(tmp_path: Path) -> None:
    made = gateway(pilot(Chatty()), Chatty())
    bodies = [
        chat(text="Say it.", seed=1),
        {**chat(seed=2), "messages": [{"role": "user", "content": "a"}] * 2},
    ]
    with recording(made, tmp_path, {"record": True, "texts": True}):
        answers, _ = spoken(made, bodies)
    found = Pilot.read(parts(tmp_path)[0].parent)
    assert {str(text) for text in found.texts()} == {"Say it.", str([{"role": "user", "content": "a"}] * 2)}
    said = [row["response"] for row in found.table.to_pylist() if row["drawn"]]
    assert set(said) == {answer["choices"][0]["message"]["content"] for answer in answers}


def test_end_to_end_levels_are_met_and_shown(tmp_path: Path) -> None:
    """Through HTTP: three palettes interleaved, what is monitored is what was solved, and the page says it."""
    own = pilot(prompts=300)
    made = gateway(own, concurrency=8, queue=5000)
    names = ("funny", "varied", "short")
    bodies = [chat(name, text=f"Fresh {i}.", seed=i) for i in range(300) for name in names]
    settings = {"record": True, "tolerance": 0.3, "part_groups": 100}
    with recording(made, tmp_path, settings):
        _, page = spoken(made, bodies, watched=900)
    assert 3 <= len(parts(tmp_path)) <= 9
    found = monitor(Traffic.read(tmp_path, own.metadata), own, tolerance=0.3)
    assert (found.requests, [each.palette for each in found.served]) == (900, sorted(names))
    for each in found.served:
        solution = solve(own, PALETTES[each.palette], 4)
        for target in each.targets:
            room = target.level_half + 3 * solution.levels.se[solution.features.index(target.name)]
            assert target.level == pytest.approx(solution.levels[target.name], abs=room)
            assert target.verdict in (None, Verdict.MET, Verdict.UNDECIDED)
            about = {"palette": each.palette, "candidates": "4", "value": target.name}
            assert metric(page, "valuepalette_level", **about) == pytest.approx(target.level)
    assert found["funny"]["goats"].verdict is Verdict.MET
    about = {"palette": "funny", "candidates": "4"}
    assert metric(page, "valuepalette_attained", value="goats", **about) == 1
    assert metric(page, "valuepalette_watched_requests", **about) == 300
    assert metric(page, "valuepalette_traffic_groups_total", fate="dropped") == 0
    assert metric(page, "valuepalette_moved", value="goats") < 1
    assert found.well


def test_only_watching_writes_nothing(tmp_path: Path) -> None:
    made = gateway()
    with recording(made, tmp_path / "traffic", {"watch": True}):
        _, page = spoken(made, [chat(), chat()], watched=2)
    assert metric(page, "valuepalette_watched_requests", palette="funny", candidates="4") == 2
    assert not (tmp_path / "traffic").exists()


def test_nothing_is_kept_unless_asked(tmp_path: Path) -> None:
    study = test_study.study(test_study.write(tmp_path))
    study.sample(quiet=True)
    study.score(quiet=True)
    with opened(study) as made:
        assert made.on_served is None
    assert not (study.folder / "traffic").exists()


# Faults.


def told(made: Gateway) -> list[Served]:
    """Groups as a gateway tells them."""
    groups: list[Served] = []
    made.on_served = groups.append
    spoken(made, [chat(text=f"Say {i}.", n=2) for i in range(20)])
    return groups


@pytest.fixture(scope="module")
def groups() -> list[Served]:
    return told(gateway(pilot()))


def layout() -> Layout:
    own = pilot()
    return Layout(own.values, own.columns, own.metadata)


def test_a_full_queue_drops_and_counts_and_holds_nobody_up(tmp_path: Path, groups: list[Served]) -> None:
    recorder = Recorder(Parts(tmp_path, layout()), queue=10)
    began = time.perf_counter()
    for group in groups:  # nobody takes them: the thread is not started
        recorder(group)
    assert time.perf_counter() - began < 0.5
    assert recorder.fates["dropped"] == len(groups) - 10
    with recorder:
        pass
    assert recorder.fates["kept"] == 10
    assert Pilot.read(parts(tmp_path)[0]).prompts == 10


def test_a_share_of_requests_is_kept_whole(tmp_path: Path, groups: list[Served]) -> None:
    with Recorder(Parts(tmp_path, layout()), sample=0.5) as recorder:
        for group in groups:
            recorder(group)
    found = Pilot.read(parts(tmp_path)[0])
    kept = found.column("request").tolist()
    assert {kept.count(request) for request in kept} == {2}
    assert 0 < len(set(kept)) < 20
    assert recorder.fates["kept"] + recorder.fates["skipped"] == 40


def test_the_oldest_parts_go_where_there_are_too_many(tmp_path: Path, groups: list[Served]) -> None:
    whole = Parts(tmp_path / "whole", layout())
    first = next(iter(groups))
    group = _group(first)
    whole.add(group, first.solution)
    whole.flush()
    size = whole.size
    moments = iter(range(1_790_000_000, 1_790_001_000))
    few = Parts(tmp_path / "few", layout(), megabytes=3.5 * size / 1e6, clock=lambda: float(next(moments)))
    for _ in range(8):
        few.add(group, first.solution)
        few.flush()
    left = parts(tmp_path / "few")
    assert len(left) == 3
    assert few.size <= 3.5 * size
    assert left[-1].name.startswith("20260921T1413")
    names = sorted(path.name for path in left)
    few.add(group, first.solution)
    few.flush()
    assert [path.name for path in parts(tmp_path / "few")][:2] == names[1:]


def _group(served: Served) -> Group:
    return group_of(1_790_000_000.0, served, solution_id(served.solution))


def test_only_what_was_served_since(tmp_path: Path, groups: list[Served]) -> None:
    """Parts that ended before are not opened; of the one in between, some of the rows are left."""
    start = moment = 1_790_000_000.0
    own = Parts(tmp_path, layout(), clock=lambda: moment)
    for i in range(9):
        moment = start + i
        own.add(replace(_group(groups[i]), time=moment), groups[i].solution)
        if i % 3 == 2:
            own.flush()
    first, *_ = parts(tmp_path)
    first.write_bytes(b"no Parquet")
    assert Traffic.read(tmp_path, since=start + 4).pilot.prompts == 5
    with pytest.raises(ValueError, match="since must leave some traffic, which ends at 2026-09-21"):
        Traffic.read(tmp_path, since=start + 100)


def test_age_and_number_make_a_part(tmp_path: Path, groups: list[Served]) -> None:
    own = Parts(tmp_path, layout(), groups=3, seconds=0.05)
    assert not own.due
    own.add(_group(groups[0]), groups[0].solution)
    assert not own.due
    time.sleep(0.06)
    assert own.due
    assert own.flush() == 1
    for served in groups[1:4]:
        own.add(_group(served), served.solution)
    assert own.due


def test_a_disk_that_is_full_costs_groups_and_nothing_else(
    tmp_path: Path, groups: list[Served], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device: secret words")

    own = Parts(tmp_path, layout(), groups=5)
    with monkeypatch.context() as patched, Recorder(own) as recorder:
        patched.setattr(pq, "write_table", full)
        for served in groups[:10]:
            recorder(served)
        deadline = time.monotonic() + 10
        while recorder.fates["lost"] < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert recorder.fates["lost"] == 10
    assert "recording failed: OSError" in caplog.text
    assert "secret words" not in caplog.text
    with Recorder(own) as recorder:
        recorder(groups[0])
    assert recorder.fates["kept"] == 1


def test_what_comes_just_before_the_end_is_kept(tmp_path: Path, groups: list[Served]) -> None:
    """The queue was found empty, then a group comes, then the end."""

    class Late:
        def add(self, *_: object) -> None:
            if not recorder._stop.is_set():
                recorder(groups[2])
                recorder._stop.set()

    recorder: Any = Recorder(Parts(tmp_path, layout()), Late())  # type: ignore[arg-type]
    with recorder:
        recorder(groups[0])
        recorder._thread.join(10)
    assert recorder.fates["kept"] == 2


def test_a_group_that_cannot_be_kept_costs_no_other(
    tmp_path: Path, groups: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A solution that cannot be written is that of one group; each is counted once."""
    other = replace(groups[2], solution=solve(pilot(), PALETTES["varied"], 4))
    save = Solution.save

    def full(solution: Solution, path: Path) -> None:
        if solution is other.solution:
            raise OSError
        save(solution, path)

    monkeypatch.setattr(Solution, "save", full)
    with Recorder(Parts(tmp_path, layout())) as recorder:
        for served in (groups[0], other, groups[4]):
            recorder(served)
    assert (recorder.fates["kept"], recorder.fates["lost"]) == (2, 1)
    assert Pilot.read(parts(tmp_path)[0]).prompts == 2


def test_a_watch_that_fails_loses_nothing_that_is_kept(tmp_path: Path, groups: list[Served]) -> None:
    class Broken:
        def add(self, *_: object) -> None:
            raise ZeroDivisionError

    with Recorder(Parts(tmp_path, layout()), Broken()) as recorder:  # type: ignore[arg-type]
        for served in groups[:4]:
            recorder(served)
    assert (recorder.fates["kept"], recorder.fates["lost"]) == (4, 0)


def test_the_newest_part_stays_however_little_room_there_is(tmp_path: Path, groups: list[Served]) -> None:
    own = Parts(tmp_path, layout(), megabytes=1e-6)
    for served in groups[:2]:
        own.add(_group(served), served.solution)
        own.flush()
    assert len(parts(tmp_path)) == 1
    assert Traffic.read(tmp_path).pilot.prompts == 1


def test_a_gateway_is_left_as_it_was(tmp_path: Path) -> None:
    """Recorded twice in a row, its page says everything once."""
    made = gateway()
    before = made.meters.page()
    for _ in range(2):
        with recording(made, tmp_path, {"record": True}):
            assert made.meters.page().count(b"# TYPE valuepalette_traffic_bytes ") == 1
    assert made.meters.page() == before
    assert made.on_served is None


def test_names_that_the_traffic_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be named turn"):
        Layout(("humor", "turn"), (), pilot().metadata)


def test_other_rewards_get_a_folder_of_their_own(tmp_path: Path, groups: list[Served]) -> None:
    own = layout()
    other = Layout(own.values[:2], own.columns, own.metadata.with_rewards({}))
    for each in (own, other):
        written = Parts(tmp_path, each)
        written.add(_group(groups[0]), groups[0].solution)
        written.flush()
    assert len({path.parent for path in parts(tmp_path)}) == 2
    assert Traffic.read(tmp_path).pilot.values == own.values[:2]  # the newest
    assert Traffic.read(tmp_path, own.metadata).pilot.values == own.values
    with pytest.raises(ValueError, match="holds no traffic of the present model"):
        Traffic.read(tmp_path, own.metadata.with_rewards({"goats": {"version": "2"}}))
    with pytest.raises(ValueError, match="holds no traffic; a gateway keeps it"):
        Traffic.read(tmp_path / "none")


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, str(HERE / "recording_gateway.py"), str(folder), str(port)]
    with subprocess.Popen(command, env=environment) as running:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while True:
                assert time.monotonic() < deadline, "the gateway did not start"
                assert running.poll() is None, "the gateway ended"
                try:
                    if httpx.get(f"{url}/healthz", timeout=1).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield running, url
        finally:
            running.kill()


def test_a_kill_while_it_writes_costs_the_last_part_alone(tmp_path: Path) -> None:
    """kill -9 amid requests, three times over: every file can be read, and what was said to be kept is there."""
    rng, answered, before = np.random.default_rng(0), set[int](), 0
    for turn in range(3):
        with process(tmp_path) as (running, url):

            def ask(first: int, url: str = url) -> None:
                with httpx.Client(timeout=5) as speaker:
                    for seed in range(first, first + 1_000_000):
                        try:
                            said = speaker.post(f"{url}/v1/chat/completions", json=chat(seed=seed))
                        except httpx.TransportError:
                            return
                        if said.status_code == 200:
                            answered.add(seed)

            firsts = [1_000_000 * (2 * turn + i) for i in range(2)]
            askers = [threading.Thread(target=ask, args=(first,), daemon=True) for first in firsts]
            for asker in askers:
                asker.start()
            deadline, kept = time.monotonic() + 60, 0.0
            while kept < 40 or rng.random() > 0.2:  # at no moment in particular
                assert time.monotonic() < deadline, "nothing is kept"
                page = httpx.get(f"{url}/metrics", timeout=10).text
                kept = metric(page, "valuepalette_traffic_groups_total", fate="kept")
                time.sleep(0.05)
            running.send_signal(signal.SIGKILL)
            for asker in askers:
                asker.join(20)
        found = Traffic.read(tmp_path).pilot
        assert found.prompts >= before + kept
        before = found.prompts
        # One request of each asker may have been served, and not heard of.
        assert len(set(np.asarray(found.column("seed")).tolist()) - answered) <= 2 * (turn + 1)
        for path in parts(tmp_path):
            assert pq.read_table(path).num_rows


def test_what_a_killed_one_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    own = Parts(tmp_path, layout())
    old, new = own.folder / ".a.parquet.tmp", own.folder / ".b.parquet.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    Parts(tmp_path, layout())
    assert (old.exists(), new.exists()) == (False, True)


# The command.


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = test_study.TEXT.replace('"keep"', '"base-0.1"') + "\n[monitor]\nrecord = true\ntolerance = 0.5\n"
    path = test_study.write(tmp_path, text)
    study = test_study.study(path)
    study.sample(quiet=True)
    study.score(quiet=True)
    served = study.solve("funny")
    bodies = [
        {"model": "fake/funny", "messages": [{"role": "user", "content": f"Say {i} now."}], "seed": i}
        for i in range(250)
    ]
    monkeypatch.setattr(Study, "read", classmethod(lambda *_, **__: study))
    assert main(["monitor", str(path)]) == 1
    assert "holds no traffic" in capsys.readouterr().err
    with opened(study) as made:
        spoken(made, bodies)
    assert main(["monitor", str(path), "--check", "--palette", "impossible"]) == 1
    assert "palette must be one that was served in this time, got 'impossible'" in capsys.readouterr().err
    assert main(["monitor", str(path), "--check"]) == 0
    said = capsys.readouterr().out
    assert "funny: 250 requests, one of k = 4 candidates" in said
    assert "written" not in said
    before = (study.folder / "solutions" / "funny.json").read_bytes()
    assert main(["monitor", str(path), "--write", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["requests"] == 250
    assert told["served"][0]["why"] == ""
    written = Path(told["written"]["funny"])
    assert written.parent == study.folder / "solutions" / "from-traffic"
    today = Solution.load(written)
    assert (today.candidates, today.prompts) == (4, 250)
    assert dict(today.weights)["goats"] == pytest.approx(told["served"][0]["targets"][0]["today"])
    assert (study.folder / "solutions" / "funny.json").read_bytes() == before
    assert today.fingerprint["rewards"] == served.fingerprint["rewards"]
    assert main(["monitor", str(path), "--since", "1h"]) == 0
    assert main(["monitor", str(path), "--since", "2100-01-01"]) == 1
    assert main(["monitor", str(path), "--since", "yesterday"]) == 1
    assert main(["monitor", str(path), "--since", "9999999999d"]) == 1
    assert main(["monitor", str(path), "--since", "900000d"]) == 1
    assert main(["monitor", str(path), "--palette", "none"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "must leave some traffic" in errors[0]
    assert all("--since must be a time" in error for error in errors[1:4])
    assert "--palette must be one of" in errors[4]


def test_the_command_says_what_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Served with rewards that have come to mean something else, of which nothing tells but the levels."""
    path = test_study.write(tmp_path, test_study.TEXT + "\n[monitor]\nrecord = true\n")
    study = test_study.study(path)
    study.sample(quiet=True)
    study.score(quiet=True)
    monkeypatch.setattr(Study, "read", classmethod(lambda *_, **__: study))
    with opened(study) as made:

        def even(solution: Any, features: np.ndarray) -> np.ndarray:
            return np.full(len(features), 1 / len(features))

        monkeypatch.setattr(Solution, "probabilities", even)
        spoken(
            made,
            [
                {"model": "fake/funny", "messages": [{"role": "user", "content": f"Say {i} now."}]}
                for i in range(300)
            ],
        )
    assert main(["monitor", str(path), "--check"]) == 1
    assert "missed: funny goats" in capsys.readouterr().err
