"""The demo from its first line to its last, on an engine and rewards that cost nothing; once on the real ones."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEngine, FakeReward
from valuepalette import cli, demo
from valuepalette.attainment import Evaluation
from valuepalette.collecting import Line
from valuepalette.engines import Candidate, Engine, Prompt, Sampling
from valuepalette.example import example_pilot
from valuepalette.pilot import Pilot
from valuepalette.rewards.opening import open_reward
from valuepalette.settings import read_settings
from valuepalette.solution import Infeasible, Solution
from valuepalette.tabulating import WIDTH

ASKED = ("humor", "positiveness", "harmlessness", "diversity")
SETTINGS = read_settings(demo.SHIPPED / "demo.toml")


def share(word: str) -> Callable[[str], float]:
    return lambda text: text.split().count(word) / (len(text.split()) + 1)


RULES: dict[str, Callable[[str], float]] = {
    "humor": lambda text: float(text.split().count("goat")),
    "positiveness": lambda text: text.split().count("sun") / 3,
    "harmlessness": lambda text: -share("nobody")(text),
    "diversity": lambda text: len(set(text.split())) / (len(text.split()) + 1),
    "coherence": share("hill"),
    "sentiment": share("rose"),
    "toxicity": lambda text: -share("nobody")(text) / 2,
    "length": lambda text: float(len(text.split())),
}


def opener(name: str, rule: Callable[[str], float]) -> Line:
    return lambda: FakeReward(name, rule)


REWARDS = {name: opener(name, rule) for name, rule in RULES.items()}


def run(folder: Path, open_engine: Callable[[], Engine] = FakeEngine, **other: Line) -> None:
    demo.run(folder, open_engine=open_engine, rewards={**REWARDS, **other})


def no_engine() -> Engine:
    raise AssertionError("the model is opened")


def section(text: str, number: int) -> str:
    """What is printed under a title."""
    found = re.search(rf"(?ms)^{number}\. .*?(?=^{number + 1}\. |\Z)", text)
    assert found is not None, f"no section {number}"
    return found.group(0)


def cells(text: str, start: str) -> list[float]:
    """The numbers of a table's line."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d+", line)]


def timeless(text: str) -> str:
    """Without what depends on the clock, or on what was there before."""
    text = re.sub(r"Solved in \d+ ms", "Solved", text)
    return text.replace(section(text, 4), "")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo-run"
    run(folder)
    return folder


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written by `done`, which comes first; every other run of the demo names it and draws nothing."""
    monkeypatch.setattr(demo, "_reported", lambda study: str(study.folder / "report.html"))


@pytest.fixture
def printed(done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """All of it, as it is printed the second time, in the folder that it takes by itself."""
    monkeypatch.chdir(done.parent)
    demo.run(open_engine=no_engine, rewards=REWARDS)
    return capsys.readouterr().out


def test_it_is_in_order_and_fits_the_page(printed: str) -> None:
    titles = re.findall(r"(?m)^(\d)\. .*\n-+$", printed)
    assert titles == list("12345678")
    assert max(len(line) for line in printed.splitlines()) <= WIDTH
    assert "nan" not in printed
    assert "\x1b" not in printed


def test_it_starts_on_the_pilot_that_ships(printed: str) -> None:
    pilot = example_pilot()
    first = section(printed, 1)
    for name in ("humor", "positiveness", "harmlessness", "diversity", "coherence", "length"):
        base, low, high = cells(first, name)[:3]
        values = np.sort(pilot.array[:, pilot.values.index(name)].reshape(60, 16), axis=1)
        assert base == pytest.approx(values.mean(), rel=0.02, abs=1e-3)
        assert values.min() < low < base < high < values.max()
    assert "toxicity" not in first
    assert "OPTIMAL" in section(printed, 2)
    assert re.search(r"Solved in \d+ ms, and proved", section(printed, 2))
    assert "cannot average above" in section(printed, 3)
    assert "Each value alone is within reach; together they conflict." in " ".join(
        section(printed, 3).split()
    )


def test_the_table_is_what_the_evaluation_found(done: Path, printed: str) -> None:
    judged = Evaluation.load(done / "evaluation" / "decoding" / "playful.json")
    solution = Solution.load(done / "solutions" / "playful.json")
    table = section(printed, 5)
    for name in ASKED:
        row = judged[name]
        assert cells(table, name)[:3] == pytest.approx([row.to_gain, row.gain, row.gain_se], abs=6e-4)
        assert row.verdict is not None
        assert re.search(rf"(?m)^{name} .* {row.verdict.name.lower()} ", table)
    for name in ("sentiment", "toxicity"):
        assert cells(table, f"{name}*")[:2] == pytest.approx(
            [judged[name].gain, judged[name].gain_se], abs=6e-4
        )
    assert cells(table, "KL")[:2] == pytest.approx([judged.kl, judged.kl_se], abs=6e-3)
    off = [judged[name].gain - judged[name].to_gain for name in ASKED]
    off = [min(x, 0) if solution.weights[name] == 0 else x for x, name in zip(off, ASKED, strict=True)]
    spread = [solution.spread[solution.features.index(name)] for name in ASKED]
    assert cells(table, "off by ")[0] == pytest.approx(np.mean(np.abs(off) / spread), abs=6e-3)
    assert cells(table, "off by on the pilot")[0] == 0


def test_what_one_would_do_today_is_worked_out_on_the_same_candidates(done: Path, printed: str) -> None:
    pilot, out = Pilot.read(done / "pilot"), Pilot.read(done / "held_out")
    at = [out.values.index(name) for name in ASKED]
    score = (out.array[:, at] / pilot.array[:, at].std(axis=0)).sum(axis=1).reshape(60, 8)
    values = out.array[:, at].reshape(60, 8, 4)
    soft = np.exp(score - score.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    best = score >= score.max(axis=1, keepdims=True) - 1e-9
    best = best / best.sum(axis=1, keepdims=True)
    table = section(printed, 5)
    for column, chance in ((3, soft), (4, best)):
        gains = np.einsum("gj,gjm->gm", chance - 1 / 8, values).mean(axis=0)
        assert [cells(table, name)[column] for name in ASKED] == pytest.approx(gains, abs=6e-4)
    assert "On the pilot they give humor +" in " ".join(table.split())
    ours, equal, best_of, joint = cells(table, "off by on the pilot")
    assert ours < min(equal, best_of, joint)


def test_one_value_alone_costs_what_fell_by_more_than_two_errors(done: Path, printed: str) -> None:
    alone = Evaluation.load(done / "evaluation" / "decoding" / "humor-alone.json")
    text = " ".join(section(printed, 6).split())
    costs = [row.name for row in alone.rows if row.gain < -2 * row.gain_se]
    assert costs
    told = re.search(r"humor alone costs: (.*)\.$", text)
    assert told is not None
    assert [part.split()[0] for part in told.group(1).split(", ")] == costs


def test_answers_are_those_drawn_and_one_is_worse(done: Path, printed: str) -> None:
    answers = Pilot.read(done / "answers" / "decoding" / "playful.parquet")
    said = dict(zip(answers.texts(), answers.responses or [], strict=False))
    text = section(printed, 7)
    shown = re.findall(r"(?m)^(\S.*)\n  before  (.*(?:\n {10}.*)*)\n  after   (.*(?:\n {10}.*)*)\n", text)
    assert len(shown) == 5
    assert re.search(r"(?m)^  worse ", text)
    table = answers.table
    for prompt, before, after in shown:
        rows = [row for row, at in enumerate(answers.texts()) if at == prompt]
        assert prompt in said
        first = next(row for row in rows if table["candidate"][row].as_py() == 0)
        drawn = next(row for row in rows if table["drawn"][row].as_py())
        for row, quoted in ((first, before), (drawn, after)):
            whole = (answers.responses or [])[row]
            assert whole.startswith(" ".join(quoted.split()).removesuffix("…").strip())


def test_one_that_got_worse_is_put_in_where_none_is_among_the_first(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[list[str]] = []
    for count in (1, 5):
        monkeypatch.setattr(demo, "ANSWERS", count)
        run(done, no_engine)
        labels.append(re.findall(r"(?m)^  (worse|better) ", section(capsys.readouterr().out, 7)))
    assert labels[1][0] == "better"  # so that the first alone would show none
    assert labels[0] == ["worse"]
    assert "worse" in labels[1]
    assert len(labels[1]) == 5


def test_the_second_time_nothing_is_sampled_and_the_same_is_printed(
    done: Path, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("part-*.parquet")}
    start = time.process_time()
    demo.run("demo-run", open_engine=no_engine, rewards=REWARDS)
    assert time.process_time() - start < 10
    captured = capsys.readouterr()
    assert timeless(captured.out) == timeless(printed)
    assert captured.err == ""
    assert {path: path.stat().st_mtime_ns for path in done.rglob("part-*.parquet")} == before


class Tired(FakeEngine):
    """Answers a few times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def sample(
        self, prompts: list[Prompt], k: int, *, sampling: Sampling, seed: int, logprobs: bool = False
    ) -> list[list[Candidate]]:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return super().sample(prompts, k, sampling=sampling, seed=seed, logprobs=logprobs)


@pytest.mark.parametrize("times", [1, 6])
def test_stopped_it_goes_on_and_ends_the_same(
    tmp_path: Path, printed: str, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "new", lambda: Tired(times))
    engine = FakeEngine()
    run(tmp_path / "new", lambda: engine)
    assert len(engine.calls) == 8 - times
    capsys.readouterr()
    run(tmp_path / "new", no_engine)
    again = capsys.readouterr().out
    assert section(again, 5) == section(printed, 5)
    assert section(again, 7) == section(printed, 7)


def test_a_reward_that_fails_loses_nothing_and_is_named(tmp_path: Path) -> None:
    def fails(text: str) -> float:
        raise RuntimeError("out of jokes")

    with pytest.raises(ValueError, match=r"humor.*out of jokes") as failed:
        run(tmp_path, humor=opener("humor", fails))
    assert "\n" not in str(failed.value)
    run(tmp_path, no_engine)


def test_a_number_that_is_none_stops_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="humor"):
        run(tmp_path, humor=opener("humor", lambda text: float("nan")))


class ByPrompt(FakeReward):
    """The same for all answers to a prompt, so that no decoder moves it."""

    def score(self, prompts: list[Prompt], responses: list[str]) -> np.ndarray:
        return np.array([[float(len(str(prompt)))] for prompt in prompts])


def test_what_cannot_be_had_live_is_said_in_the_proofs_sentence(tmp_path: Path) -> None:
    with pytest.raises(Infeasible, match="positiveness cannot average above"):
        run(tmp_path, positiveness=lambda: ByPrompt("positiveness"))


def test_a_changed_study_is_kept_and_a_folder_of_another_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(
        study.read_text(encoding="utf-8") + '\n[palettes.mine]\nhumor = "q55"\n', encoding="utf-8"
    )
    run(tmp_path, no_engine)
    assert "mine" in study.read_text(encoding="utf-8")
    assert cli.main(["evaluate", str(study), "--palette", "mine"]) == 0
    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"run\.seed: 1 -> 0"):
        run(tmp_path, no_engine)


def test_a_file_in_the_folders_place_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "demo-run").write_text("mine")
    with pytest.raises(OSError, match="demo-run"):
        run(tmp_path / "demo-run")
    assert (tmp_path / "demo-run").read_text() == "mine"


def test_the_files_it_names_are_there_and_the_next_commands_work(
    done: Path, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    last = section(printed, 8)
    assert "In demo-run/" in last
    names = re.findall(r"(?m)^(\S.*?)  +\S", last)
    assert len(names) == 6
    for name in ", ".join(names).split(", "):
        assert (done / name).exists()
    page = re.search(r"(?m)^All of it on one page, for a browser: (\S+)$", last)
    assert page is not None
    assert (done.parent / page[1]).read_text(encoding="utf-8").startswith("<!doctype html>")
    commands = re.findall(r"(?m)^  (valuepalette .*)$", last)
    assert len(commands) == 3
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0, command
        assert capsys.readouterr().out


def test_without_the_extra_it_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_reported", lambda study: "")
    monkeypatch.chdir(tmp_path)
    run(Path("demo-run"))
    last = section(capsys.readouterr().out, 8)
    assert '  pip install "valuepalette[report]"\n  valuepalette report demo-run/study.toml\n' in last


def test_prompts_of_pilot_and_trial_differ_and_are_short() -> None:
    own, out = (
        (demo.SHIPPED / name).read_text(encoding="utf-8").splitlines() for name in ("pilot.txt", "unseen.txt")
    )
    assert len(own) == len(out) == 60
    assert len({*own, *out}) == 120
    assert max(map(len, own + out)) < 80


def test_the_pilot_that_ships_is_drawn_as_the_demo_draws() -> None:
    pilot = example_pilot()
    assert (pilot.prompts, pilot.candidates) == (60, 16)
    own = (demo.SHIPPED / "pilot.txt").read_text(encoding="utf-8").splitlines()
    assert list(dict.fromkeys(map(str, pilot.texts()))) == own
    assert set(pilot.values) == set(SETTINGS.values)
    recorded = pilot.metadata
    sampling = Sampling(**{**recorded.sampling, "system_prompt": recorded.system_prompt})
    assert sampling == SETTINGS.sampling
    assert (recorded.model["model"], recorded.model["dtype"]) == (SETTINGS.model, "float32")
    assert recorded.seed == SETTINGS.seed
    example = read_settings(demo.SHIPPED / "example.toml")
    assert example.values == SETTINGS.values
    assert replace(example.sampling) == SETTINGS.sampling
    assert (demo.SHIPPED / "example.parquet").stat().st_size < 400_000


@pytest.mark.models
def test_the_pilot_that_ships_is_scored_as_its_values_score_now() -> None:
    pilot = example_pilot()
    some = pilot.select(np.arange(0, pilot.rows, 48))
    for name, line in SETTINGS.values.items():
        reward = open_reward(name, line, model=SETTINGS.model)
        about = pilot.metadata.rewards[name]
        assert (about["definition"], about["version"]) == (reward.columns[0].definition, reward.version)
        scores = reward.score(some.texts(), some.responses or [])[:, 0]
        np.testing.assert_allclose(scores, some.array[:, pilot.values.index(name)], rtol=1e-3, atol=1e-4)
        reward.close()


@pytest.mark.models
@pytest.mark.slow
def test_all_of_it_on_the_real_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.run(tmp_path)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= WIDTH
    judged = Evaluation.load(tmp_path / "evaluation" / "decoding" / "playful.json")
    assert judged["humor"].gain == pytest.approx(judged["humor"].to_gain, abs=4 * judged["humor"].gain_se)
    ours, _, equal, best, _ = cells(section(printed, 5), "off by ")
    assert ours < min(equal, best)
    # In float32 the pilot that ships and this one are the same draws: at most rounding elsewhere parts them.
    shipped, live = example_pilot(), Pilot.read(tmp_path / "pilot")
    both = {
        (prompt, place): said
        for prompt, place, said in zip(
            shipped.texts(), shipped.table["candidate"].to_pylist(), shipped.responses or [], strict=True
        )
    }
    same = [
        both[prompt, place] == said
        for prompt, place, said in zip(
            live.texts(), live.table["candidate"].to_pylist(), live.responses or [], strict=True
        )
    ]
    assert np.mean(same) > 0.9


def test_the_recording_of_the_readme_is_what_the_demo_prints(printed: str) -> None:
    recorded = (Path(__file__).parents[1] / "docs" / "images" / "demo.txt").read_text(encoding="utf-8")
    for number in (1, 2, 3):  # these need no model, so they are the same
        says, said = (
            re.sub(r"Solved in \d+ ms", "Solved", section(text, number)) for text in (printed, recorded)
        )
        assert says == said, "run `valuepalette demo > docs/images/demo.txt` and `make docs`"
