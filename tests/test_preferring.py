"""DPO on a listed model, and the methods of a comparison that train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import enumerable as listed
from valuepalette.comparing import compare
from valuepalette.exporting import export_pairs
from valuepalette.settings import read_settings
from valuepalette.solving import solve
from valuepalette.study import Study
from valuepalette.training.preferring import prefer


def test_preferences_move_the_model_and_a_second_call_finds_it(tmp_path: Path) -> None:
    model = listed.save(tmp_path / "model")
    pilot = listed.pilot(model, tmp_path / "pilot", 64)
    pairs = export_pairs(
        pilot, solve(pilot, {"as": "reach 40%"}, "limit"), beta=0.5, pairs=16, labels="score"
    )
    task = listed.task(model)
    options: dict[str, Any] = {"steps": 12, "rows": 32, "batch": 32, "learning_rate": 3e-3, "lora": None}
    tuned = prefer(task, pairs, tmp_path / "dpo", beta=0.5, quiet=True, **options)
    assert (tuned.method, tuned.steps) == ("preferring", 12)
    assert listed.Law(tuned.model).level("as") > listed.Law(model).level("as") + 0.1
    assert [row["step"] for row in tuned.metrics] == list(range(1, 13))
    assert prefer(task, pairs, tmp_path / "dpo", beta=0.5, quiet=True, **options) == tuned
    with pytest.raises(ValueError, match="begun with other settings"):
        prefer(task, pairs[1:], tmp_path / "dpo", beta=0.5, quiet=True, **options)


@pytest.mark.parametrize(
    ("pairs", "options", "said"),
    [
        ([], {}, "pairs must be rows with prompt, chosen and rejected"),
        ([{"prompt": "ab", "chosen": "a"}], {}, "pairs must be rows with prompt, chosen and rejected"),
        ([{"prompt": "ab", "chosen": "a", "rejected": "b"}], {"beta": 0.0}, "beta must be positive"),
        (
            [{"prompt": "ab", "chosen": "a", "rejected": "b"}],
            {"rows": 3, "batch": 2},
            "rows must be a multiple",
        ),
    ],
)
def test_what_cannot_be_learned_from(tmp_path: Path, pairs: Any, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prefer(listed.task(tmp_path / "none"), pairs, tmp_path / "out", **options)


def test_methods_that_train(tmp_path: Path) -> None:
    """Every one of them, for a few steps: that they run, are judged alike, and share what they can."""
    model = listed.save(tmp_path / "model")
    letters = listed.LETTERS
    lines = [
        json.dumps({"prompt": first + second}) for first in letters for second in letters if first != second
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    (tmp_path / "study.toml").write_text(
        f"""
        model = {{ id = "{model}", max_new_tokens = 2, top_k = 0, dtype = "float32" }}
        prompts = {{ path = "prompts.jsonl", held_out = 0.5 }}
        pilot = {{ candidates = 16 }}
        [values]
        as = "x"
        variety = "x"
        [palettes.both]
        as = "reach 40%"
        variety = "reach 20%"
        [finetune]
        answers = 4
        [distill]
        epochs = 1
        """
    )
    made = Study(read_settings(tmp_path / "study.toml"), rewards=listed.REWARDS)
    made.sample(quiet=True)
    made.score(quiet=True)
    methods = ["map-d", "map-f", "distill", "morl-f", "soup", "dpo", "dpo-soup"]
    found = compare(made, "both", methods, steps=2, models=2, answers=4, quiet=True)
    assert found.left_out == {}
    assert [len(found.of(method)) for method in methods] == [1, 1, 1, 2, 2, 2, 2]
    assert [run.setting for run in found.of("soup")] == ["100% as, 0% variety", "0% as, 100% variety"]
    for run in found.runs:
        assert run.evaluation["as"].asked == "reach 40%"
        assert run.evaluation.prompts == 6
        assert (run.cost.trained > 0) == (run.method != "map-d")
    # All are trained as the study says, but for what the comparison says itself.
    for folder in ("models/finetuning/both", "compare/both/morl-f/1", "compare/both/soup/as"):
        told = json.loads((made.folder / folder / "manifest.json").read_text())["training"]
        assert (told["steps"], told["answers"]) == (2, 4)
    told = json.loads((made.folder / "models/distilling/both/manifest.json").read_text())["training"]
    assert told["epochs"] == 1
    # What a soup is made of is shared by its mixtures, and an end of the mixture is the model itself.
    mixed = made.folder / "compare/both/soup"
    alone = json.loads((mixed / "as/tuned.json").read_text())["tokens"]
    other = json.loads((mixed / "variety/tuned.json").read_text())["tokens"]
    assert sum(run.cost.trained for run in found.of("soup")) == alone + other
    end = listed.Law(mixed / "mixed-1/model").level("as")
    assert end == pytest.approx(listed.Law(mixed / "as-whole").level("as"), abs=1e-6)


def test_preferences_of_others(tmp_path: Path) -> None:
    """A value with a file under `[preferences]` is learned from it, less what is held out; the other by labels."""
    model = listed.save(tmp_path / "model")
    letters = listed.LETTERS
    prompts = [first + second for first in letters for second in letters if first != second]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    pairs = [{"prompt": prompt, "chosen": "bb", "rejected": "aa"} for prompt in [*prompts, "zz"]]
    (tmp_path / "others.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    text = f"""
        model = {{ id = "{model}", max_new_tokens = 2, top_k = 0, dtype = "float32" }}
        prompts = {{ path = "prompts.jsonl", held_out = 0.5 }}
        pilot = {{ candidates = 16 }}
        [values]
        as = "x"
        variety = "x"
        [palettes.both]
        as = "reach 40%"
        variety = "reach 20%"
        [preferences]
        NAME = "others.jsonl"
        """

    def opened(name: str) -> Study:
        (tmp_path / "study.toml").write_text(text.replace("NAME", name))
        return Study(read_settings(tmp_path / "study.toml"), rewards=listed.REWARDS)

    made = opened("as")
    made.sample(quiet=True)
    made.score(quiet=True)
    own, out = made.prompts()
    assert out is not None
    found = compare(made, "both", ["dpo", "dpo-soup"], steps=1, models=2, answers=2, quiet=True)
    assert found.left_out == {}
    expected = [pair for pair in pairs if pair["prompt"] not in list(out)]
    assert len(expected) == len(own) + 1
    taught = json.loads((made.folder / "compare/both/dpo-soup/as/manifest.json").read_text())["pairs"]
    given = made.preferences("as")
    assert sorted(map(json.dumps, given)) == sorted(map(json.dumps, expected))
    labelled = json.loads((made.folder / "compare/both/dpo-soup/variety/manifest.json").read_text())["pairs"]
    size = min(taught["count"], labelled["count"])
    assert taught["count"] == len(expected)
    assert labelled["count"] != taught["count"]
    ends = [
        json.loads((made.folder / f"compare/both/dpo/{number}/manifest.json").read_text())["pairs"]["count"]
        for number in (1, 2)
    ]
    assert ends == [size, size]
    # What was found is kept, unless the file says otherwise now.
    before = (made.folder / "compare/both/dpo.json").read_text()
    assert compare(made, "both", ["dpo"], steps=1, models=2, answers=2, quiet=True).runs
    assert (made.folder / "compare/both/dpo.json").read_text() == before
    (tmp_path / "others.jsonl").write_text("\n".join(map(json.dumps, pairs[:-1])))
    with pytest.raises(ValueError, match=r"begun with other settings \(pairs"):
        compare(opened("as"), "both", ["dpo"], steps=1, models=2, answers=2, quiet=True)
    with pytest.raises(ValueError, match=r"\[preferences\] care must be a value of the pilot, as, variety"):
        compare(opened("care"), "both", ["dpo"], quiet=True)
