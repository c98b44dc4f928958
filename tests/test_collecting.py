"""Collecting: what is written, what is done again after a kill, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fakes import FakeEngine, FakeReward, goats, variety
from valuepalette import folders
from valuepalette.collecting import finished, sample, score
from valuepalette.engines import Message, Prompt, Sampling

PROMPTS = [f"Tell me about number {number}." for number in range(10)]
SAMPLING = Sampling(max_new_tokens=6)
REWARDS = {"goats": lambda: FakeReward("goats", goats), "size": lambda: FakeReward("size")}


def collect(folder: Path, **changes: object) -> None:
    settings: dict[str, object] = {"k": 3, "sampling": SAMPLING, "seed": 1, "shard": 4, "quiet": True}
    sample(FakeEngine(), PROMPTS, folder, **{**settings, **changes})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name, the lock aside: it is empty and says nothing."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_the_folder_reads_as_one_pilot(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    pilot = sample(
        FakeEngine(),
        PROMPTS,
        folder,
        k=3,
        sampling=SAMPLING,
        seed=1,
        shard=4,
        columns={"audience": ["children", "adults"] * 5},
        logprobs=True,
        quiet=True,
    )
    assert sorted(contents(folder)) == ["manifest.json", *(f"part-0000{i}.parquet" for i in range(3))]
    assert (pilot.rows, pilot.prompts, pilot.candidates, pilot.values) == (30, 10, 3, ())
    assert pilot.texts()[3] == PROMPTS[1]
    assert list(pilot.column("audience")[:2]) == ["children", "adults"]
    alone = FakeEngine().sample([PROMPTS[9]], 3, sampling=SAMPLING, seed=1, logprobs=True)[0]
    assert pilot.responses is not None
    assert pilot.responses[27:] == [candidate.text for candidate in alone]
    assert pilot.table["logprob"].to_pylist()[27:] == [candidate.logprob for candidate in alone]
    assert pilot.table["finish_reason"].to_pylist()[27:] == [candidate.finish_reason for candidate in alone]
    assert pilot.metadata.model["model"] == "fake"
    assert pilot.metadata.sampling["max_new_tokens"] == 6
    assert pilot.metadata.seed == 1


def test_conversations_are_kept_as_conversations(tmp_path: Path) -> None:
    turns: list[Prompt] = [
        [Message(role="system", content="Be kind."), Message(role="user", content=f"Hello {i}")]
        for i in range(3)
    ]
    pilot = sample(FakeEngine(), turns, tmp_path / "pilot", k=2, shard=2, quiet=True)
    assert [list(turn) for turn in pilot.texts()[::2]] == [list(turn) for turn in turns]


def test_a_value_that_some_part_lacks_is_left_out_until_it_is_scored(tmp_path: Path) -> None:
    collect(tmp_path)
    score(tmp_path, REWARDS, quiet=True)
    (tmp_path / "part-00001.parquet").unlink()
    sampled = sample(FakeEngine(), PROMPTS, tmp_path, k=3, sampling=SAMPLING, seed=1, shard=4, quiet=True)
    assert (sampled.rows, sampled.values, sampled.metadata.rewards) == (30, (), {})
    assert score(tmp_path, REWARDS, quiet=True).values == ("goats", "size")


def test_only_what_is_missing_is_sampled(tmp_path: Path) -> None:
    collect(tmp_path / "whole")
    collect(tmp_path / "part")
    (tmp_path / "part" / "part-00001.parquet").unlink()
    assert not finished(tmp_path / "part")
    engine = FakeEngine()
    sample(engine, PROMPTS, tmp_path / "part", k=3, sampling=SAMPLING, seed=1, shard=4, quiet=True)
    assert engine.calls == [PROMPTS[4:8]]
    assert finished(tmp_path / "part")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 2}, "seed: 1 -> 2"),
        ({"k": 4}, "candidates: 3 -> 4"),
        ({"shard": 5}, "shard: 4 -> 5"),
        ({"logprobs": True}, "logprobs: false -> true"),
        ({"sampling": Sampling(max_new_tokens=6, top_k=40)}, "sampling.top_k: 50 -> 40"),
        (
            {"sampling": Sampling(max_new_tokens=6, system_prompt="Hi")},
            'sampling.system_prompt: null -> "Hi"',
        ),
        ({"columns": {"weight": [1.0] * 10}}, "prompts.sha256: "),
    ],
)
def test_a_setting_that_changes_results_is_refused(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    collect(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError) as refused:
        collect(tmp_path, **changes)
    assert named in str(refused.value)
    assert "new folder" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before
    collect(tmp_path / "new", **changes)


def test_another_engine_is_refused(tmp_path: Path) -> None:
    collect(tmp_path)
    with pytest.raises(ValueError, match=r'engine.model: "fake" -> "other"'):
        sample(
            FakeEngine(model="other"), PROMPTS, tmp_path, k=3, sampling=SAMPLING, seed=1, shard=4, quiet=True
        )


@pytest.mark.parametrize(
    ("prompts", "settings", "named"),
    [
        ([], {}, "at least one"),
        ("one text", {}, "list"),
        (["a", "b", "a"], {}, "0 and 2"),
        (["a", [Message(role="user", content="b")]], {}, "prompts 0 and 1"),
        (["a", "b"], {"columns": {"audience": ["x"]}}, "audience"),
        (["a", "b"], {"columns": {"response": ["x", "y"]}}, "response"),
        (["a", "b"], {"k": 0}, "k must be at least 1, got 0"),
        (["a", "b"], {"shard": 0}, "shard must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_is_written(
    tmp_path: Path, prompts: list[Prompt], settings: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        sample(FakeEngine(), prompts, tmp_path / "pilot", **{"k": 2, "quiet": True, **settings})  # type: ignore[arg-type]
    assert not (tmp_path / "pilot").exists()


def test_an_engine_that_draws_too_few_is_refused(tmp_path: Path) -> None:
    class Short(FakeEngine):
        def sample(self, prompts, k, **settings):  # type: ignore[no-untyped-def]
            return super().sample(prompts, k - 1, **settings)

    with pytest.raises(ValueError, match="must draw 3 candidates for prompt 0, got 2"):
        sample(Short(), PROMPTS, tmp_path, k=3, quiet=True)


def test_parts_without_a_manifest_are_left_alone(tmp_path: Path) -> None:
    collect(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        collect(tmp_path)


def test_scores_stand_in_their_rows(tmp_path: Path) -> None:
    collect(tmp_path)
    pilot = score(
        tmp_path,
        REWARDS,
        quiet=True,
    )
    assert pilot.values == ("goats", "size")
    assert pilot.responses is not None
    np.testing.assert_array_equal(pilot.array[:, 0], [goats(text) for text in pilot.responses])
    np.testing.assert_array_equal(pilot.array[:, 1], [len(text) for text in pilot.responses])
    assert dict(pilot.metadata.rewards["goats"]) == {
        "definition": "the fake value goats",
        "scale": "real",
        "version": "1",
        "reward": "goats",
    }


def test_a_value_that_is_added_is_the_only_one_scored(tmp_path: Path) -> None:
    collect(tmp_path)
    first = FakeReward("goats", goats)
    score(tmp_path, {"goats": lambda: first}, quiet=True)
    assert first.calls == 3
    again, added = FakeReward("goats", goats), FakeReward("variety", variety)
    pilot = score(tmp_path, {"goats": lambda: again, "variety": lambda: added}, quiet=True)
    assert (again.calls, added.calls) == (0, 3)
    assert pilot.values == ("goats", "variety")


def test_a_complete_value_named_by_its_line_is_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(tmp_path)
    first = score(tmp_path, {"length": "length"}, model="fake", quiet=True)
    monkeypatch.setattr("valuepalette.collecting.open_reward", lambda *_, **__: pytest.fail("opened"))
    assert score(tmp_path, {"length": "length"}, model="fake", quiet=True).table == first.table


def test_one_reward_is_open_at_a_time_and_none_stays_open(tmp_path: Path) -> None:
    collect(tmp_path)
    now: list[str] = []

    def fail(_: str) -> float:
        raise RuntimeError("out of memory")

    rewards = {
        "goats": lambda: FakeReward("goats", goats, open_now=now),
        "broken": lambda: FakeReward("broken", fail, open_now=now),
    }
    with pytest.raises(ValueError, match="broken"):
        score(tmp_path, rewards, quiet=True)
    assert now == []


def test_a_reward_that_fails_loses_nothing_that_is_scored(tmp_path: Path) -> None:
    collect(tmp_path / "whole")
    collect(tmp_path / "failed")
    score(tmp_path / "whole", REWARDS, quiet=True)
    texts = FakeEngine().sample([PROMPTS[8]], 3, sampling=SAMPLING, seed=1)[0]
    third_part = texts[0].text

    def size(response: str) -> float:
        return float("nan") if response == third_part else float(len(response))

    with pytest.raises(ValueError, match="size"):
        score(tmp_path / "failed", {**REWARDS, "size": lambda: FakeReward("size", size)}, quiet=True)
    names = [pq.read_schema(path).names for path in sorted((tmp_path / "failed").glob("*.parquet"))]
    assert ["goats" in columns for columns in names] == [True, True, True]
    assert ["size" in columns for columns in names] == [True, True, False]
    rest = FakeReward("size")
    score(tmp_path / "failed", {**REWARDS, "size": lambda: rest}, quiet=True)
    assert rest.calls == 1
    assert contents(tmp_path / "failed") == contents(tmp_path / "whole")


def test_another_version_of_a_reward_is_refused_until_it_is_to_be_scored_again(tmp_path: Path) -> None:
    collect(tmp_path)
    score(
        tmp_path,
        REWARDS,
        quiet=True,
    )
    before = contents(tmp_path)
    newer = {"goats": lambda: FakeReward("goats", lambda text: goats(text) + 1, version="2")}
    with pytest.raises(ValueError, match=r'value \'goats\' .*version: "1" -> "2"'):
        score(tmp_path, newer, quiet=True)
    assert contents(tmp_path) == before
    pilot = score(tmp_path, newer, again=["goats"], quiet=True)
    assert pilot.responses is not None
    goat = pilot.array[:, pilot.values.index("goats")]
    np.testing.assert_array_equal(goat, [goats(text) + 1 for text in pilot.responses])
    assert sorted(pilot.values) == ["goats", "size"]
    with pytest.raises(ValueError, match="again must name values among goats; got 'gaots'"):
        score(tmp_path, newer, again=["gaots"], quiet=True)


def test_two_rewards_cannot_measure_one_column(tmp_path: Path) -> None:
    collect(tmp_path)
    rewards = {"a": lambda: FakeReward("size"), "b": lambda: FakeReward("size")}
    with pytest.raises(ValueError, match="'b' measures 'size', which 'a' measures already"):
        score(tmp_path, rewards, quiet=True)


def test_what_is_not_sampled_to_its_end_is_not_scored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json"):
        score(tmp_path, {}, quiet=True)
    collect(tmp_path)
    (tmp_path / "part-00002.parquet").unlink()
    with pytest.raises(ValueError, match="lacks 1 of its 3 parts"):
        score(tmp_path, {}, quiet=True)


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    collect(tmp_path)
    with folders.alone(tmp_path), pytest.raises(ValueError, match="another process"):
        collect(tmp_path)


def test_progress_is_told_in_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect(tmp_path, quiet=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"sampling {tmp_path.name}: 0 of 10 prompts"
    assert lines[-1].startswith(f"sampling {tmp_path.name}: 10 of 10 prompts in ")


class Stop(BaseException):
    """The process ends here."""


def test_a_stop_before_or_after_any_write_leaves_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path) -> None:
        collect(folder)
        score(folder, REWARDS, quiet=True)

    run(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    real, budget = os.replace, 0

    def replace(source: str, target: str) -> None:
        nonlocal budget
        if budget == 0:
            raise Stop
        budget -= 1
        real(source, target)

    monkeypatch.setattr(folders.os, "replace", replace)
    writes = 3 + 1 + 2 * (3 + 1)
    for allowed in range(writes):
        folder = tmp_path / f"stopped-{allowed}"
        budget = allowed
        with pytest.raises(Stop):
            run(folder)
        assert any(path.name.endswith(".tmp") for path in folder.iterdir())
        budget = writes - allowed
        run(folder)
        assert budget == 0, "a write was repeated"
        assert contents(folder) == expected


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from fakes import FakeEngine, FakeReward, goats, variety
from valuepalette.collecting import sample, score
from valuepalette.engines import Sampling
prompts = [f"Tell me about number {{number}}." for number in range(24)]
delay = float(sys.argv[2])
sampling = Sampling(max_new_tokens=6)
rewards = {{"goats": lambda: FakeReward("goats", goats, delay=delay),
           "variety": lambda: FakeReward("variety", variety, delay=delay)}}
sample(FakeEngine(delay=delay), prompts, sys.argv[1], k=3, sampling=sampling, seed=1, shard=2)
score(sys.argv[1], rewards)
"""


def test_a_run_killed_again_and_again_ends_in_the_same_files(tmp_path: Path) -> None:
    script, folder = tmp_path / "run.py", tmp_path / "killed"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    subprocess.run([sys.executable, script, tmp_path / "whole", "0"], check=True, capture_output=True)

    def written() -> set[int]:
        return {path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}

    for kills in range(4):
        before = written()
        process = subprocess.Popen([sys.executable, script, folder, "0.1"], stderr=subprocess.DEVNULL)
        patience = time.monotonic() + 120
        while len(written() - before) <= kills and process.poll() is None:
            assert time.monotonic() < patience
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    subprocess.run([sys.executable, script, folder, "0"], check=True, capture_output=True)
    assert contents(folder) == contents(tmp_path / "whole")
    assert json.loads((folder / "manifest.json").read_text())["prompts"]["count"] == 24
