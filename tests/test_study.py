"""A study from its file to an evaluation, with an engine and rewards that cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeEngine, FakeReward, goats, variety
from valuepalette.attainment import Evaluation
from valuepalette.collecting import Line
from valuepalette.dual import Status
from valuepalette.engines import Engine
from valuepalette.pilot import Pilot
from valuepalette.settings import read_settings
from valuepalette.solution import Infeasible, Solution
from valuepalette.study import Study

TEXT = """
[model]
id = "fake"
max_new_tokens = 12

[prompts]
path = "prompts.jsonl"
held_out = 0.4
columns = ["audience"]

[pilot]
candidates = 8
shard = 8

[values]
goats = "fake"
variety = "fake"
shortness = { reward = "fake", check = true }

[palettes.funny]
goats = "reach 50%"
variety = "keep"

[palettes.impossible]
goats = ">= 50"

[solve]
candidates = 4

[run]
seed = 5
"""
REWARDS: dict[str, Line] = {
    "goats": lambda: FakeReward("goats", goats),
    "variety": lambda: FakeReward("variety", variety),
    "shortness": lambda: FakeReward("shortness", lambda text: -len(text)),
    "length": lambda: FakeReward("length", lambda text: len(text.split())),
}
ROWS = [{"prompt": f"Say {i}.", "audience": ["children", "adults"][i % 2]} for i in range(50)]


def write(folder: Path, text: str = TEXT, rows: list[dict[str, Any]] | None = None) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    lines = (json.dumps(row) for row in (ROWS if rows is None else rows))
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return path


def study(
    path: Path, open_engine: Callable[[], Engine] = FakeEngine, rewards: Mapping[str, Line] | None = None
) -> Study:
    return Study(read_settings(path), open_engine=open_engine, rewards={**REWARDS, **(rewards or {})})


@pytest.fixture
def done(tmp_path: Path) -> Study:
    """Sampled and scored."""
    found = study(write(tmp_path))
    found.sample(quiet=True)
    found.score(quiet=True)
    return found


def test_read_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert Study.read(path).settings == read_settings(path)


def test_prompts_are_parted_once_and_for_all(tmp_path: Path) -> None:
    own, out = study(write(tmp_path)).prompts()
    assert out is not None
    assert (len(own), len(out)) == (30, 20)
    assert not set(map(str, own)) & set(map(str, out))
    assert own.columns["audience"] == [ROWS[int(str(text)[4:-1])]["audience"] for text in own]
    again = study(write(tmp_path)).prompts()
    assert again == (own, out)
    other, _ = study(write(tmp_path, TEXT.replace("seed = 5", "seed = 6"))).prompts()
    assert other != own


def test_from_the_file_to_an_evaluation(done: Study) -> None:
    pilot, out = done.pilot(), done.held_out()
    assert (pilot.prompts, pilot.candidates, out.prompts, out.candidates) == (30, 8, 20, 4)
    assert pilot.values == out.values == ("goats", "variety", "shortness", "length")
    solution = done.solve("funny")
    assert solution.status is Status.OPTIMAL
    assert solution.candidates == 4
    answers = done.decode("funny")
    assert answers.rows == 80
    assert np.asarray(answers.table["drawn"]).sum() == 20
    np.testing.assert_allclose(np.asarray(answers.table["probability"]).reshape(20, 4).sum(axis=1), 1)
    judged = done.evaluate("funny")
    assert judged["goats"].level > judged["goats"].base
    assert judged.own_prompts == 0
    assert [row.name for row in judged.rows if row.check] == ["shortness"]
    files = sorted(
        str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.name[0] != "."
    )
    assert [name for name in files if Path(name).suffix] == [
        "answers/decoding/funny.parquet",
        "evaluation/decoding/funny.json",
        "held_out/manifest.json",
        "held_out/part-00000.parquet",
        "held_out/part-00001.parquet",
        "held_out/part-00002.parquet",
        "manifest.json",
        "pilot/manifest.json",
        "pilot/part-00000.parquet",
        "pilot/part-00001.parquet",
        "pilot/part-00002.parquet",
        "pilot/part-00003.parquet",
        "solutions/funny.json",
    ]
    assert Solution.load(done.folder / "solutions" / "funny.json").weights == solution.weights
    assert Pilot.read(done.folder / "answers" / "decoding" / "funny.parquet").table == answers.table
    assert str(Evaluation.load(done.folder / "evaluation" / "decoding" / "funny.json")) == str(judged)


def test_run_again_it_opens_neither_model_nor_file_to_write(done: Study) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.folder.rglob("*.parquet")}

    def no_engine() -> Engine:
        raise AssertionError("opened")

    again = study(done.settings.path, no_engine)
    again.sample(quiet=True)
    again.score(quiet=True)
    assert {path: path.stat().st_mtime_ns for path in done.folder.rglob("*.parquet")} == before


def test_the_engine_is_closed(tmp_path: Path) -> None:
    engine = FakeEngine()
    study(write(tmp_path), lambda: engine).sample(quiet=True)
    assert engine.closed


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("seed = 5", "seed = 6", "run.seed: 5 -> 6"),
        ('id = "fake"', 'id = "other"', 'model.id: "fake" -> "other"'),
        ("max_new_tokens = 12", "top_k = 3", "model.top_k: 50 -> 3"),
        ("candidates = 8", "candidates = 6", "pilot.candidates: 8 -> 6"),
        ("candidates = 4", "candidates = 5", "pilot.held_out_candidates: 4 -> 5"),
        ("held_out = 0.4", "held_out = 0.5", "prompts.count: 30 -> 25"),
    ],
)
def test_another_study_in_the_same_folder_is_refused(done: Study, old: str, new: str, named: str) -> None:
    path = write(done.settings.path.parent, TEXT.replace(old, new))
    with pytest.raises(ValueError) as refused:
        study(path).sample(quiet=True)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    write(path.parent, TEXT.replace(old, new).replace("[run]", '[run]\nfolder = "new"'))
    study(path).sample(quiet=True)


def test_a_palette_may_be_added_to_what_is_sampled(done: Study) -> None:
    path = write(done.settings.path.parent, TEXT + '\n[palettes.plain]\nvariety = "reach 20%"\n')
    assert study(path).evaluate("plain")["variety"].gain > 0


def test_a_palette_that_cannot_be_had_is_written_down_and_not_decoded(done: Study) -> None:
    solution = done.solve("impossible")
    assert solution.status is Status.INFEASIBLE
    assert Solution.load(done.folder / "solutions" / "impossible.json").status is Status.INFEASIBLE
    with pytest.raises(Infeasible):
        done.decode("impossible")
    assert not (done.folder / "answers").exists()


def test_steps_that_come_too_early_say_which_comes_first(tmp_path: Path) -> None:
    early = study(write(tmp_path))
    with pytest.raises(ValueError, match="pilot is not sampled to its end: sample the study first"):
        early.score(quiet=True)
    with pytest.raises(ValueError, match="sample the study first"):
        early.solve("funny")
    early.sample(quiet=True)
    with pytest.raises(
        ValueError, match="not scored by goats, variety, shortness, length: score the study first"
    ):
        early.solve("funny")
    early.score(quiet=True)
    with pytest.raises(ValueError, match="palette must be one of funny, impossible, got 'sad'"):
        early.solve("sad")


def test_without_prompts_held_out_nothing_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("held_out = 0.4", ""))
    alone = study(path)
    alone.sample(quiet=True)
    alone.score(quiet=True)
    assert alone.pilot().prompts == 50
    with pytest.raises(ValueError, match="held_out"):
        alone.decode("funny")


def test_prompts_held_out_may_have_a_file_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("held_out = 0.4", 'held_out_path = "other.csv"'))
    (tmp_path / "other.csv").write_text("prompt,audience\nSing.,children\nDance.,adults\n")
    own, out = study(path).prompts()
    assert (len(own), out) == (50, ["Sing.", "Dance."])


def test_a_check_cannot_be_asked_for_by_one_of_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + '\n[palettes.sly]\nbrevity = "q60"\n')
    rewards = {"shortness": lambda: FakeReward("brevity", lambda text: -len(text))}
    with pytest.raises(ValueError, match=r"\[palettes\.sly\] brevity is a check"):
        study(path, rewards=rewards).sample(quiet=True)
    plain = study(write(tmp_path), rewards=rewards)
    plain.sample(quiet=True)
    plain.score(quiet=True)
    write(tmp_path, path.read_text() + '\n[palettes.sly]\nbrevity = "q60"\n')
    with pytest.raises(ValueError, match=r"\[palettes\.sly\] brevity is a check"):
        study(path, rewards=rewards).solve("sly")


def test_what_cannot_be_scored_is_known_before_anything_is_sampled(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + '\n[palettes.odd]\ngaots = "q60"\n')
    engine = FakeEngine()
    with pytest.raises(
        ValueError, match=r"\[palettes\.odd\] gaots is not measured; \[values\] measures goats, "
    ):
        study(path, lambda: engine).sample(quiet=True)

    def absent() -> FakeReward:
        raise ModuleNotFoundError("pip install it")

    with pytest.raises(ModuleNotFoundError, match="pip install it"):
        study(write(tmp_path), lambda: engine, {"variety": absent}).sample(quiet=True)
    assert engine.calls == []


def test_equal_prompts_count_once(tmp_path: Path) -> None:
    own, out = study(write(tmp_path, rows=[*ROWS, ROWS[3], ROWS[3]])).prompts()
    assert out is not None
    assert (len(own) + len(out), own.repeated) == (50, 2)
    path = write(tmp_path, rows=[*ROWS, {**ROWS[3], "audience": "children"}])
    with pytest.raises(ValueError, match=r"prompts\.jsonl: row 50 \(from 0\), column audience: differs"):
        study(path).prompts()


def test_too_few_prompts_to_part(tmp_path: Path) -> None:
    path = write(tmp_path, rows=ROWS[:1])
    with pytest.raises(
        ValueError, match=r"held_out must leave a prompt on both sides, got 0\.4 of 1 prompts"
    ):
        study(path).prompts()


@pytest.mark.models
def test_a_model_and_rewards_named_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from tiny import save_tiny

    save_tiny(tmp_path / "model")
    (tmp_path / "study_rewards.py").write_text(
        "def commas(prompts, responses):\n    return [response.count(',') for response in responses]\n"
    )
    monkeypatch.chdir(tmp_path)
    path = write(
        tmp_path,
        """
        model = { id = "model", max_new_tokens = 8, dtype = "float32" }
        prompts = { path = "prompts.jsonl", held_out = 0.5 }
        pilot = { candidates = 4, shard = 3 }
        run = { folder = "run" }
        [values]
        commas = { reward = "python", function = "study_rewards:commas" }
        perplexity = "perplexity"
        [palettes.likely]
        perplexity = "reach 30%"
        """,
        ROWS[:12],
    )
    monkeypatch.chdir(path.parent)
    real = Study.read(path.name)
    real.sample(quiet=True)
    real.score(quiet=True)
    assert real.pilot().values == ("commas", "perplexity", "length")
    assert real.pilot().metadata.model["dtype"] == "float32"
    judged = real.evaluate("likely")
    assert judged["perplexity"].gain > 0
    (tmp_path / "run" / "pilot" / "part-00001.parquet").rename(tmp_path / "kept.parquet")
    with pytest.raises(ValueError, match="not sampled to its end"):
        real.pilot()
    Study.read(path.name).sample(quiet=True)
    Study.read(path.name).score(quiet=True)
    assert (tmp_path / "run" / "pilot" / "part-00001.parquet").read_bytes() == (
        tmp_path / "kept.parquet"
    ).read_bytes()


def test_a_cohort_and_a_tail_from_the_file_to_an_evaluation(tmp_path: Path) -> None:
    more = """
[palettes.careful]
variety = "P(< 0.7) <= x0.8"
[palettes.careful.cohorts."audience=children"]
goats = "reach 50%"
"""
    run = study(write(tmp_path, TEXT + more))
    run.sample(quiet=True)
    run.score(quiet=True)
    solution = run.solve("careful")
    assert solution.features[:3] == ("variety", "P(variety < 0.7)", "goats @ audience=children")
    answers = run.decode("careful")
    chance = np.asarray(answers.table["probability"])
    judged = run.evaluate("careful")
    child = np.asarray(answers.table["audience"]) == "children"
    goat = np.asarray(answers.table["goats"])
    expected = (chance * goat)[child].sum() / chance[child].sum()
    assert judged["goats @ audience=children"].level == pytest.approx(expected)
    assert judged["goats @ audience=children"].verdict is not None
    assert Evaluation.load(run.folder / "evaluation" / "decoding" / "careful.json").rows == judged.rows
