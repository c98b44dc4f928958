"""Fine-tuning by reinforcement: on a task whose answers can be listed, the optimum is the palette's own law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import enumerable as listed
from helpers import killed_while_training
from valuepalette.engines import Sampling
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.training import Task, Tuned
from valuepalette.training.checking import check_settings
from valuepalette.training.correcting import corrected
from valuepalette.training.finetuning import finetune

pytest.importorskip("trl")
pytestmark = [pytest.mark.models, pytest.mark.extra("trl", "peft")]

PALETTE = {"as": "reach 40%", "variety": "<= base-0.2"}
SHORT: dict[str, Any] = {
    "beta": 1.0,
    "steps": 200,
    "prompts": 4,
    "answers": 16,
    "batch": 64,
    "learning_rate": 3e-3,
    "lora": None,
    "report_to": [],
    "quiet": True,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return listed.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pilot(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Pilot:
    return listed.pilot(model, tmp_path_factory.mktemp("pilot"), 64)


@pytest.fixture(scope="module")
def solution(pilot: Pilot) -> Solution:
    return solve(pilot, PALETTE, "limit")


@pytest.fixture(scope="module")
def tuned(model: Path, solution: Solution, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return finetune(listed.task(model), solution, tmp_path_factory.mktemp("tuned"), **SHORT)


def test_the_policy_is_the_tilted_law(model: Path, solution: Solution, tuned: Tuned) -> None:
    before, after = listed.Law(model), listed.Law(tuned.model)
    target = before.tilted(solution.weights)
    assert before.kl(target) > 0.3
    assert after.kl(target) < 0.005
    for name in PALETTE:
        exact = float((np.exp(target) @ before.features(name)).mean())
        assert after.level(name) == pytest.approx(exact, abs=0.05)


def test_an_adapter_learns_it_too_at_any_beta(model: Path, solution: Solution, tmp_path: Path) -> None:
    found = finetune(
        listed.task(model), solution, tmp_path, **{**SHORT, "steps": 120, "lora": 8, "beta": 0.05}
    )
    assert (found.model / "adapter_config.json").is_file()
    assert listed.Law(found.model).kl(listed.Law(model).tilted(solution.weights)) < 0.005


def test_grpo_with_its_defaults_is_elsewhere(model: Path, solution: Solution, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from valuepalette.engines.opening import open_engine
    from valuepalette.training.running import calm
    from valuepalette.training.scoring import Scorer

    task, weights = listed.task(model), solution.reward_weights(1.0)
    engine: Any = open_engine(str(model), dtype="float32", device="cpu")
    rewards = {name: line() for name, line in listed.REWARDS.items() if callable(line)}
    scorer = Scorer(rewards, solution, task, engine)
    with calm():
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model),
            reward_funcs=list[Any](scorer.functions()),
            args=GRPOConfig(
                str(tmp_path),
                reward_weights=[weights[name] for name in scorer.features],
                num_generations=16,
                per_device_train_batch_size=64,
                max_completion_length=2,
                max_steps=60,
                learning_rate=3e-3,
                use_cpu=True,
                bf16=False,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                gradient_checkpointing=False,
                logging_steps=1000,
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": prompt, "row": i} for i, prompt in enumerate(task.prompts)]
            ),
            processing_class=AutoTokenizer.from_pretrained(model),
        )
        trainer.train()
        trainer.save_model(str(tmp_path / "model"))
    assert listed.Law(tmp_path / "model").kl(listed.Law(model).tilted(solution.weights)) > 0.3


def test_a_run_tells_each_value_at_each_step(model: Path, solution: Solution, tuned: Tuned) -> None:
    rows = tuned.metrics
    assert [row["step"] for row in rows] == list(range(1, 201))
    assert list(rows[0]["levels"]) == list(solution.features)
    first = np.mean([row["levels"]["as"] for row in rows[:2]])
    last = np.mean([row["levels"]["as"] for row in rows[-30:]])
    law = listed.Law(tuned.model)
    assert first < last == pytest.approx(law.level("as"), abs=0.1)
    gone = law.kl(listed.Law(model).logs)
    assert np.mean([row["kl"] for row in rows[-30:]]) == pytest.approx(gone, abs=0.15)
    assert tuned.tokens > 64 * 200
    assert tuned.seconds >= rows[-1]["seconds"] > 0


def test_a_finished_run_is_not_done_again(model: Path, solution: Solution, tuned: Tuned) -> None:
    before = tuned.model.stat().st_mtime_ns
    assert finetune(listed.task(model), solution, tuned.folder, **SHORT) == tuned
    assert tuned.model.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"begun with other settings \(training.beta: 1.0 -> 0.5\)"):
        finetune(listed.task(model), solution, tuned.folder, **{**SHORT, "beta": 0.5})


SCRIPT = """
import sys, time
from pathlib import Path
import enumerable as listed
from valuepalette.solution import Solution
from valuepalette.training.finetuning import finetune
from test_finetuning import SHORT

class Slow(listed.Letters):
    def score(self, prompts, responses):
        time.sleep(0.05)
        return super().score(prompts, responses)

model, solution, folder = sys.argv[1:]
task = listed.task(Path(model), rewards={**listed.REWARDS, "variety": lambda: Slow("variety")})
finetune(task, Solution.load(solution), folder, **{**SHORT, "steps": 30, "save_every": 5})
"""


def test_a_killed_run_goes_on_as_if_nothing_had_been(model: Path, solution: Solution, tmp_path: Path) -> None:
    solution.save(tmp_path / "solution.json")
    options = {**SHORT, "steps": 30, "save_every": 5}
    whole = finetune(listed.task(model), solution, tmp_path / "whole", **options)
    folder = tmp_path / "killed"
    killed_while_training(SCRIPT, model, tmp_path / "solution.json", folder, folder=folder)
    assert not (folder / "tuned.json").exists()
    # What a kill may leave: a checkpoint that is not whole, a row that was cut.
    (folder / "checkpoints" / "checkpoint-29").mkdir()
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 29, "sec')
    again = finetune(listed.task(model), solution, folder, **options)
    assert [row["step"] for row in again.metrics] == list(range(1, 31))
    assert [row["levels"] for row in again.metrics] == [row["levels"] for row in whole.metrics]
    np.testing.assert_allclose(listed.Law(again.model).logs, listed.Law(whole.model).logs, atol=1e-6)
    assert not (folder / "checkpoints").exists()


def test_a_correction_round_makes_up_for_what_is_missing(
    model: Path, pilot: Pilot, solution: Solution, tmp_path: Path
) -> None:
    # A model that was trained with two thirds of the weights falls short; its own answers say by how much.
    timid = Solution.from_weights(
        pilot, {name: 2 / 3 * weight for name, weight in solution.weights.items()}, "limit"
    )
    options = {**SHORT, "steps": 80, "lora": 8}
    first = finetune(listed.task(model), timid, tmp_path / "first", **options)
    asked = Solution.from_dict({**solution.to_dict(), "weights": timid.weights.array.tolist()})
    answers = listed.pilot(first.model, tmp_path / "answers", 64, seed=1)
    better = corrected(asked, answers)
    np.testing.assert_allclose(better.weights.array, solution.weights.array, atol=0.25)
    second = finetune(listed.task(model), better, tmp_path / "second", start=first, **options)
    short, made = listed.Law(first.model).level("as"), listed.Law(second.model).level("as")
    assert made > short + 0.1
    assert abs(made - solution.levels["as"]) < abs(short - solution.levels["as"])
    # The KL is still to the original model.
    assert listed.Law(second.model).kl(listed.Law(model).tilted(better.weights)) < 0.01


def refused(what: str, *, task: Task, solution: Solution, folder: Path, **changes: Any) -> None:
    with pytest.raises(ValueError, match=what) as error:
        finetune(task, solution, folder, **{**SHORT, **changes})
    assert "\n" not in str(error.value)
    assert not (folder / "tuned.json").exists()


def test_another_p0_is_refused(model: Path, pilot: Pilot, solution: Solution, tmp_path: Path) -> None:
    task = listed.task(model)
    truncated = Sampling(max_new_tokens=2, top_k=3)
    other = solve(listed.pilot(model, tmp_path / "top", 16, sampling=truncated), {"as": "reach 20%"}, "limit")
    refused(
        "temperature 1 without top-k and top-p.*top_k 3", task=task, solution=other, folder=tmp_path / "a"
    )
    longer = listed.task(model, sampling=Sampling(max_new_tokens=3, top_k=0))
    refused("drawn otherwise.*max_new_tokens: 2 -> 3", task=longer, solution=solution, folder=tmp_path / "b")
    silent = Pilot.from_arrays(
        {name: pilot.array[:, i] for i, name in enumerate(pilot.values)}, prompt_id=pilot.prompt_index
    )
    unknown = solve(silent, PALETTE, "limit")
    refused("must record how it was sampled", task=task, solution=unknown, folder=tmp_path / "c")
    import torch

    engine_folder = tmp_path / "elsewhere"
    listed.save(engine_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(engine_folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + torch.tensor(0.1)
    save_file(weights, engine_folder / "model.safetensors", {"format": "pt"})
    refused(
        "must be of the model that is trained.*revision",
        task=listed.task(engine_folder),
        solution=solution,
        folder=tmp_path / "d",
    )


def test_solutions_for_a_decoder_are_refused(model: Path, pilot: Pilot, tmp_path: Path) -> None:
    task = listed.task(model)
    refused("k = 64 candidates", task=task, solution=solve(pilot, PALETTE), folder=tmp_path)
    joint = solve(pilot, {"as": "+0.1"}, mode="joint")
    refused("joint mode", task=task, solution=joint, folder=tmp_path)
    hopeless = solve(pilot, {"as": 5}, on_infeasible="return")
    refused("INFEASIBLE", task=task, solution=hopeless, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "entry", "reason"),
    [
        ("normalize_advantages", True, "rescales the reward"),
        ("reward_clip_range", [-1.0, 1.0], "clipped rewards"),
        ("num_iterations", 2, "clipped"),
        ("temperature", 0.7, "temperature 1"),
        ("top_k", 50, "truncated"),
        ("top_p", 0.9, "truncated"),
        ("sync_ref_model", True, "original model"),
        ("mask_truncated_completions", True, "belong to p0"),
        ("disable_dropout", False, "dropout"),
        ("weight_decay", 0.1, "away from the optimum"),
        ("beta", 0.1, "is said by beta here"),
        ("reward_weights", [1.0], "is said by the solution"),
    ],
)
def test_settings_with_another_optimum_are_refused(
    model: Path, solution: Solution, tmp_path: Path, name: str, entry: object, reason: str
) -> None:
    refused(
        f"{name}.*{reason}",
        task=listed.task(model),
        solution=solution,
        folder=tmp_path,
        settings={name: entry},
    )


def test_settings_that_move_nothing_pass() -> None:
    check_settings({"temperature": 1, "top_k": 0, "warmup_steps": 5, "reward_clip_range": None}, {})


def test_rewards_must_be_the_pilots(model: Path, solution: Solution, tmp_path: Path) -> None:
    class Newer(listed.Letters):
        version = "2"

    fewer = listed.task(model, rewards={"variety": listed.REWARDS["variety"]})
    refused("as is not among variety", task=fewer, solution=solution, folder=tmp_path / "a")
    newer = listed.task(model, rewards={**listed.REWARDS, "as": lambda: Newer("as", "a")})
    refused('as.version: "1" -> "2"', task=newer, solution=solution, folder=tmp_path / "b")


def test_the_manifest_tells_what_was_trained(solution: Solution, tuned: Tuned) -> None:
    told = json.loads((tuned.folder / "manifest.json").read_text(encoding="utf-8"))
    assert told["weights"] == dict(solution.weights) == tuned.weights
    assert told["training"]["beta"] == 1.0
    assert Tuned.load(tuned.folder) == tuned
    with pytest.raises(ValueError, match="trained to its end"):
        Tuned.load(tuned.folder / "model")


@pytest.mark.parametrize("chat", [True, False])
def test_a_trainer_reads_what_the_engine_reads(tmp_path: Path, chat: bool) -> None:
    from tiny import save_tiny
    from valuepalette.engines.opening import open_engine

    model = save_tiny(tmp_path, chat=chat)
    engine: Any = open_engine(str(model), device="cpu")
    sampling = Sampling(max_new_tokens=4, top_k=0, system_prompt="Be brief." if chat else None)
    turns, tokenizer = engine.turns("Hi there.", sampling), engine.loaded.tokenizer
    if chat:
        read = tokenizer.apply_chat_template(
            [turns], add_generation_prompt=True, tokenize=True, return_dict=True
        ).input_ids[0]
    else:
        read = tokenizer(text=[turns]).input_ids[0]
    assert read == engine.encode("Hi there.", sampling)
    answer = engine.encode_answer("Hi there.", "So be it", sampling)
    assert engine.decode(read, answer) == engine.decode(read, [*answer, engine.ends[0]]) == "So be it"


def test_chats_cohorts_and_tails_are_trained_as_they_were_solved(tmp_path: Path) -> None:
    from fakes import FakeReward
    from tiny import save_tiny
    from valuepalette.collecting import sample, score
    from valuepalette.engines.opening import open_engine
    from valuepalette.palette import Palette

    seen: list[str] = []

    class Seen(FakeReward):
        def score(self, prompts: Any, responses: Any) -> Any:
            seen.extend(map(str, prompts))
            return super().score(prompts, responses)

    def measure(response: str) -> float:
        assert "<s>" not in response
        return response.count("e") + 0.01 * len(response)

    model = save_tiny(tmp_path / "model", chat=True)
    prompts = [f"Say {number}." for number in range(6)]
    columns = {"audience": ["children", "adults"] * 3}
    sampling = Sampling(max_new_tokens=6, top_k=0, system_prompt="Be brief.")
    engine = open_engine(str(model), dtype="float32", device="cpu")
    sample(engine, prompts, tmp_path / "pilot", k=16, sampling=sampling, columns=columns, seed=0, quiet=True)
    pilot = score(tmp_path / "pilot", {"es": lambda: FakeReward("es", measure)}, quiet=True)
    palette = Palette({"es": "P(< 0.05) <= 0.3"}, cohorts={"audience=children": {"es": "+0.02"}})
    solution = solve(pilot, palette, "limit")
    task = Task(
        str(model),
        prompts,
        sampling,
        {"es": lambda: Seen("es", measure)},
        columns,
        dtype="float32",
        device="cpu",
    )
    options = {**SHORT, "steps": 2, "prompts": 3, "answers": 4, "batch": 6, "lora": 4}
    tuned = finetune(task, solution, tmp_path / "run", **options)
    assert list(tuned.metrics[0]["levels"]) == list(solution.features)
    assert any("audience=children" in name for name in solution.features)
    assert set(seen) <= set(prompts)
    assert len(seen) == 2 * 3 * 4
