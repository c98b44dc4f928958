"""A study's file: what it says, and what is refused with which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from valuepalette.engines import Sampling
from valuepalette.palette import Palette
from valuepalette.settings import read_settings

WHOLE = """
[model]
id = "embedded:smollm2-135m"
max_new_tokens = 40
temperature = 1
top_k = 0
system_prompt = "Be brief."
stop = ["User:"]

[prompts]
path = "prompts.jsonl"
held_out = 0.5
columns = ["audience"]

[pilot]
candidates = 8
shard = 4

[values]
humor = { reward = "classifier", model = "some/model", label = 1, output = "logit" }
diversity = "diversity"
tone = { reward = "python", function = "my_rewards:tone" }
toxicity = { reward = "embedded:toxicity", check = true }

[palettes.playful]
humor = "q60"
diversity = "keep"

[palettes.plain]
tone = 0.5

[solve]
candidates = 4
mode = "prompt"

[run]
folder = "out"
seed = 3
"""


def study(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_study(tmp_path: Path) -> None:
    settings = read_settings(study(tmp_path, WHOLE))
    assert settings.model == "embedded:smollm2-135m"
    assert settings.sampling == Sampling(40, 1.0, 0, 1.0, "Be brief.", ("User:",))
    assert settings.prompts_path == tmp_path / "prompts.jsonl"
    assert (settings.held_out, settings.held_out_path) == (0.5, None)
    assert settings.columns == ("audience",)
    assert (settings.candidates, settings.shard, settings.seed) == (8, 4, 3)
    assert list(settings.values) == ["humor", "diversity", "tone", "toxicity", "length"]
    assert settings.values["humor"] == {
        "reward": "classifier",
        "model": "some/model",
        "label": 1,
        "output": "logit",
    }
    assert settings.values["toxicity"] == "embedded:toxicity"
    assert settings.checks == ("toxicity",)
    assert settings.palettes["playful"].entries == {"humor": "q60", "diversity": "keep"}
    assert settings.palettes["plain"].entries == {"tone": "0.5"}
    assert settings.solve == {"candidates": 4, "mode": "prompt"}
    assert settings.folder == tmp_path / "out"


def test_what_is_left_out_is_as_in_the_paper(tmp_path: Path) -> None:
    settings = read_settings(study(tmp_path, '[model]\nid = "m"\n[prompts]\npath = "p.csv"\n'))
    assert settings.sampling == Sampling()
    assert (settings.candidates, settings.shard, settings.seed) == (16, 32, 0)
    assert settings.values == {"length": "length"}
    assert settings.folder == tmp_path / "run"
    assert settings.solve == {}


def test_the_study_of_the_page_reads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    settings = read_settings(study(tmp_path, text))
    assert list(settings.values) == ["humor", "harmlessness", "tone", "toxicity", "length"]
    assert settings.checks == ("toxicity",)
    assert settings.solve == {"candidates": 8}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[pilot]", "[pilots]", "a study has no table [pilots]; did you mean pilot?"),
        ("top_k", "topk", "[model] has no key topk; did you mean top_k?"),
        (
            "seed = 3",
            "colour = 3",
            "[run] has no key colour; it takes folder, seed",
        ),
        ('id = "embedded:smollm2-135m"', "", "[model] must have id, a text; it is missing"),
        ("top_k = 0", 'top_k = "0"', '[model] top_k must be a whole number, 0 or more, got "0"'),
        ("top_k = 0", "top_k = true", "[model] top_k must be a whole number, 0 or more, got true"),
        ("temperature = 1", "temperature = 0", "[model] temperature must be a positive number, got 0"),
        ("held_out = 0.5", "held_out = 1.0", "[prompts] held_out must be a number between 0 and 1, got 1.0"),
        (
            "held_out = 0.5",
            'held_out = 0.5\nheld_out_path = "x"',
            "[prompts] takes held_out or held_out_path, got both",
        ),
        ("candidates = 8", "candidates = 1", "[pilot] candidates must be a whole number, 2 or more, got 1"),
        (
            "candidates = 4",
            'candidates = "all"',
            '[solve] candidates must be a whole number, 2 or more, or "limit", got "all"',
        ),
        ('mode = "prompt"', 'mode = "pooled"', '[solve] mode must be one of prompt, joint, got "pooled"'),
        (
            'diversity = "diversity"',
            "diversity = 3",
            "[values] diversity must be a reward's name or { reward = … }, got 3",
        ),
        ("check = true", "check = 1", "[values] toxicity: check must be true or false, got 1"),
        (
            "tone = 0.5",
            'toxicity = "q60"',
            "[palettes.plain] toxicity is a check: measured, never optimised",
        ),
        ("[palettes.plain]", '[palettes."a/b"]', "[palettes.a/b] names files: letters, digits, _ - and . "),
        ("[run]", "[[run]]", "run must be a table, [run]; got "),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    text = WHOLE
    assert old in text
    path = study(tmp_path, text.replace(old, new))
    with pytest.raises(ValueError) as refused:
        read_settings(path)
    assert str(refused.value).startswith(f"{path}: {line}")
    assert "\n" not in str(refused.value)


def test_an_entry_that_cannot_be_read_names_its_palette(tmp_path: Path) -> None:
    path = study(tmp_path, WHOLE.replace('"q60"', '"as funny as can be"'))
    with pytest.raises(ValueError, match=r"study\.toml: \[palettes\.playful\] .*humor"):
        read_settings(path)


def test_no_toml_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"study\.toml is not TOML: .*line 1"):
        read_settings(study(tmp_path, "model = = 3"))
    with pytest.raises(FileNotFoundError, match="no such study"):
        read_settings(tmp_path / "other.toml")


COHORTS = WHOLE.replace(
    "[palettes.plain]",
    """[palettes.careful]
diversity = ["keep", "P(< 0.5) <= 0.1"]
[palettes.careful.cohorts."audience=children"]
tone = ["q90", "P(< -1) <= 0.02"]

[palettes.plain]""",
)


def test_a_palette_holds_lists_tails_and_cohorts(tmp_path: Path) -> None:
    palette = read_settings(study(tmp_path, COHORTS)).palettes["careful"]
    assert palette.entries == {"diversity": ["keep", "P(< 0.5) <= 0.1"]}
    assert palette.cohorts == {"audience=children": {"tone": ["q90", "P(< -1) <= 0.02"]}}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            '"audience=children"',
            '"reader=child"',
            "[palettes.careful.cohorts] reader must be among [prompts] columns",
        ),
        ('"audience=children"', "audience", "[palettes.careful] cohorts must name each as COLUMN=ENTRY"),
        ("tone = [", "toxicity = [", "[palettes.careful] toxicity is a check: measured, never optimised"),
        ('"q90"', '"much"', "[palettes.careful] palette.cohorts['audience=children']['tone']: an entry is"),
        (
            "P(< -1) <= 0.02",
            "P(< -1) = 0.02",
            "[palettes.careful] palette.cohorts['audience=children']['tone']: a tail",
        ),
    ],
)
def test_what_is_wrong_with_a_cohort_is_named(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in COHORTS
    with pytest.raises(ValueError) as refused:
        read_settings(study(tmp_path, COHORTS.replace(old, new)))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_palette_has_a_budget(tmp_path: Path) -> None:
    text = WHOLE.replace("[palettes.plain]", '[palettes.most]\ntone = "max"\nkl = 0.3\n\n[palettes.plain]')
    palette = read_settings(study(tmp_path, text)).palettes["most"]
    assert palette == Palette({"tone": "max"}, kl=0.3)
    for told, says in (
        ("kl = 0", r"\[palettes\.most\] kl must be a number of nats above 0, got 0$"),
        ('kl = "much"', r"\[palettes\.most\] kl must be a number of nats above 0, got 'much'$"),
    ):
        with pytest.raises(ValueError, match=says):
            read_settings(study(tmp_path, text.replace("kl = 0.3", told)))
    with pytest.raises(
        ValueError, match=r"\[palettes\.most\] kl is the budget of an entry \"max\", got 0\.3 and no such"
    ):
        read_settings(study(tmp_path, text.replace('tone = "max"', "tone = 0.5")))


def test_a_value_may_be_called_as_the_budget_is(tmp_path: Path) -> None:
    text = WHOLE.replace("[values]", '[values]\nkl = "length"').replace(
        "[palettes.plain]", "[palettes.plain]\nkl = 0.3"
    )
    palette = read_settings(study(tmp_path, text)).palettes["plain"]
    assert palette.entries["kl"] == "0.3"
    assert palette.kl is None


def test_what_a_gateway_keeps(tmp_path: Path) -> None:
    """Off unless asked for; what is left open is not told."""
    assert read_settings(study(tmp_path, WHOLE)).monitor == {}
    told = "\n[monitor]\nrecord = true\nsample = 0.1\nmegabytes = 20.5\nwindow = 500\n"
    found = read_settings(study(tmp_path, WHOLE + told)).monitor
    assert found == {"record": True, "sample": 0.1, "megabytes": 20.5, "window": 500}
    solutions = '\n[serve.solutions]\nplayful = "run/today.json"\n'
    assert read_settings(study(tmp_path, WHOLE + solutions)).serve["solutions"] == {
        "playful": "run/today.json"
    }


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("[monitor]\nrecord = 1", r"\[monitor\] record must be true or false, got 1"),
        ("[monitor]\nsample = 0", r"\[monitor\] sample must be a number in \(0, 1\], got 0"),
        ("[monitor]\nwindow = 10", r"\[monitor\] window must be a whole number, 100 or more, got 10"),
        ("[monitor]\nrecords = true", "did you mean record"),
        ("[serve.solutions]\nplayful = 3", r"\[serve\] solutions must be a table of palettes and files"),
    ],
)
def test_what_a_gateway_cannot_keep(tmp_path: Path, told: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_settings(study(tmp_path, f"{WHOLE}\n{told}\n"))


def test_preferences_are_files(tmp_path: Path) -> None:
    text = WHOLE + '\n[preferences]\nhumor = "pairs.jsonl"\n'
    assert dict(read_settings(study(tmp_path, text)).preferences) == {"humor": tmp_path / "pairs.jsonl"}
    for wrong in ("3", '""'):
        with pytest.raises(ValueError, match=r"\[preferences\] humor must be a file"):
            read_settings(study(tmp_path, text.replace('"pairs.jsonl"', wrong)))


def test_who_runs_it(tmp_path: Path) -> None:
    told = read_settings(study(tmp_path, WHOLE))
    assert (told.engine, told.actors) == ("local", None)
    told = read_settings(study(tmp_path, WHOLE + 'engine = "ray"\nactors = 4\n'))
    assert (told.engine, told.actors) == ("ray", 4)
    with pytest.raises(ValueError, match=r'\[run\] engine must be one of local, ray, got "spark"'):
        read_settings(study(tmp_path, WHOLE + 'engine = "spark"\n'))


def test_how_models_are_trained(tmp_path: Path) -> None:
    found = read_settings(study(tmp_path, WHOLE))
    assert (dict(found.finetune), dict(found.distill)) == ({}, {})
    told = "\n[finetune]\nsteps = 45\nlearning_rate = 5e-4\nlora = 4\n[distill]\nepochs = 2\nwhole = true\n"
    found = read_settings(study(tmp_path, WHOLE + told))
    assert dict(found.finetune) == {"steps": 45, "learning_rate": 5e-4, "lora": 4}
    assert dict(found.distill) == {"epochs": 2, "lora": None}
    assert dict(read_settings(study(tmp_path, WHOLE + "\n[distill]\nwhole = false\n")).distill) == {}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("[finetune]\nsteps = 0", r"\[finetune\] steps must be a whole number, 1 or more, got 0"),
        ("[finetune]\nanswers = 1", r"\[finetune\] answers must be a whole number, 2 or more, got 1"),
        ("[finetune]\nepochs = 1", r"\[finetune\] has no key epochs"),
        ("[distill]\nlearning_rate = -1", r"\[distill\] learning_rate must be a positive number, got -1"),
        ("[distill]\nlora = 4\nwhole = true", r"\[distill\] takes lora or whole, got both"),
    ],
)
def test_how_models_are_not_trained(tmp_path: Path, told: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_settings(study(tmp_path, f"{WHOLE}\n{told}\n"))


def test_the_recipes_read() -> None:
    found = sorted((Path(__file__).parents[1] / "recipes").glob("*/study.toml"))
    assert found
    for path in found:
        told = read_settings(path)
        assert told.palettes
        assert told.prompts_path.is_file()
