"""A study that trains: from its file to a model, its answers to unseen prompts, and what of the palette they have."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import enumerable as listed
from valuepalette.attainment import Evaluation
from valuepalette.cli import main
from valuepalette.pilot import Pilot
from valuepalette.settings import read_settings
from valuepalette.solution import Solution
from valuepalette.study import Study, _training
from valuepalette.training import Tuned

pytest.importorskip("trl")
pytestmark = [pytest.mark.models, pytest.mark.extra("trl", "peft")]

TEXT = """
[model]
id = "MODEL"
dtype = "float32"
device = "cpu"
max_new_tokens = 2
top_k = 0

[prompts]
path = "prompts.txt"
held_out_path = "unseen.txt"

[pilot]
candidates = 32

[values]
as = "letters"
variety = { reward = "letters", check = true }

[palettes.more]
as = "reach 40%"

[palettes.impossible]
as = 9

[solve]
candidates = 8

[finetune]
steps = 7
learning_rate = 3e-3
batch = 32
lora = 8

[distill]
rows = 64
batch = 64
learning_rate = 5e-3
lora = 8
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Sampled and scored."""
    folder = tmp_path_factory.mktemp("study")
    model = listed.save(folder / "model")
    (folder / "prompts.txt").write_text("\n".join(listed.PROMPTS), encoding="utf-8")
    (folder / "unseen.txt").write_text("ca\nac\ndb\nba\nad\n", encoding="utf-8")
    path = folder / "study.toml"
    path.write_text(TEXT.replace("MODEL", str(model)), encoding="utf-8")
    length = {"length": lambda: listed.Letters("length", "b")}
    found = Study(read_settings(path), rewards={**listed.REWARDS, **length})
    found.sample(quiet=True)
    found.score(quiet=True)
    return found


@pytest.fixture
def read(study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its file, for the commands."""
    monkeypatch.setattr(Study, "read", classmethod(lambda *_: study))
    return study.settings.path


def test_fine_tuning_and_its_correction(study: Study, read: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the command does not say is as the study says, and what neither says as the function does."""
    options = ["--palette", "more", "--steps", "60", "--prompts", "4", "--json"]
    assert main(["finetune", str(read), *options]) == 0
    (first,) = json.loads(capsys.readouterr().out)["models"]
    folder = study.folder / "models" / "finetuning" / "more"
    assert first["model"] == str(folder / "model")
    assert Solution.load(folder / "solution.json").candidates == "limit"
    told = json.loads((folder / "manifest.json").read_text())["training"]
    named = ("steps", "prompts", "answers", "batch", "learning_rate", "lora", "beta")
    assert [told[name] for name in named] == [60, 4, 8, 32, 3e-3, 8, 0.1]
    judged = Evaluation.load(study.folder / "evaluation" / "finetuning" / "more.json")
    assert judged.prompts == 5
    assert judged["as"].gain > 0
    assert judged["variety"].check
    assert first["attained"] == {"as": judged["as"].gain / judged["as"].to_gain}
    answers = Pilot.read(study.folder / "answers" / "finetuning" / "more.parquet")
    assert (answers.prompts, answers.candidates) == (5, 8)
    # Once more, with a correction: the first training stands, and the second goes on from it.
    before = (folder / "tuned.json").stat().st_mtime_ns
    assert main(["finetune", str(read), *options, "--correct"]) == 0
    (second,) = json.loads(capsys.readouterr().out)["models"]
    assert second["model"] == str(folder / "corrected" / "model")
    assert (folder / "tuned.json").stat().st_mtime_ns == before
    assert study.tuned("finetuning", "more").weights != Tuned.load(folder).weights


def test_distilling(study: Study, read: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", str(read), "--palette", "more", "--epochs", "30"]) == 0
    assert "attained of what was asked: as" in capsys.readouterr().out
    folder = study.folder / "models" / "distilling" / "more"
    assert Solution.load(folder / "solution.json").candidates == 32
    assert study.evaluate("more", "distilling")["as"].gain > 0
    assert main(["evaluate", str(read), "--palette", "more", "--method", "distilling"]) == 0


def test_a_rate_of_an_adapter_is_not_one_of_a_whole_model() -> None:
    table = {"learning_rate": 5e-4, "steps": 45}
    assert _training(table, {"steps": 3}) == {"learning_rate": 5e-4, "steps": 3}
    assert _training(table, {"lora": 4}) == {**table, "lora": 4}
    assert _training(table, {"lora": None}) == {"steps": 45, "lora": None}
    assert _training(table, {"lora": None, "learning_rate": 1e-6})["learning_rate"] == 1e-6
    assert _training({**table, "lora": None}, {"lora": 8}) == {"steps": 45, "lora": 8}


def test_what_cannot_be_had_is_left_out(read: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", str(read), "--palette", "impossible"]) == 1
    assert "cannot be had: impossible" in capsys.readouterr().err


def test_a_method_that_has_not_run_is_refused(study: Study) -> None:
    with pytest.raises(ValueError, match="method must be one of decoding, finetuning, distilling"):
        study.evaluate("more", "ppo")
    with pytest.raises(ValueError, match="palette must be one of more, impossible"):
        study.tuned("distilling", "other")


def test_export(study: Study, read: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(read), "--palette", "more", "--beta", "1", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["exports"]
    assert told["path"] == str(study.folder / "exports" / "more-pairs.jsonl")
    rows = [json.loads(line) for line in Path(told["path"]).read_text(encoding="utf-8").splitlines()]
    assert {"prompt", "chosen", "rejected", "scores"} == set(rows[0])
    assert main(["export", str(read), "--palette", "more", "--kind", "sft", "--count", "3"]) == 0
    assert len((study.folder / "exports" / "more-sft.jsonl").read_text(encoding="utf-8").splitlines()) == 12
    pilot, own, out = str(study.folder / "pilot"), tmp_path / "own.json", tmp_path / "sft.parquet"
    Solution.from_weights(study.pilot(), {"as": 1.0}).save(own)
    files = [pilot, "--solution", str(own), "--out", str(out)]
    assert main(["export", *files, "--kind", "sft", "--layout", "distilabel"]) == 0
    assert pq.read_table(out).column_names == ["prompt_id", "instruction", "generation"]
    capsys.readouterr()
    assert main(["export", *files]) == 1
    assert 'need candidates="limit"' in capsys.readouterr().err
    assert main(["export", pilot]) == 1
    assert "must come with --solution and --out" in capsys.readouterr().err
    assert main(["export", str(read), "--palette", "impossible"]) == 1
    assert "cannot be had: impossible" in capsys.readouterr().err
