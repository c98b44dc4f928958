"""MAP-F by reinforcement: the model itself learns p0·exp(λᵀf)/Z, with TRL's RLOO trainer as it is.

RLOO subtracts β·log(π/p0) of the whole answer from its reward and compares an answer with the others to the same
prompt, itself left out. So with the reward β·λᵀf its optimum is the palette's own p_λ (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from valuepalette.collecting import open_line
from valuepalette.rewards import Reward
from valuepalette.solution import Solution
from valuepalette.training import HasTask, Task, Tuned, task_of
from valuepalette.training.checking import (
    check_model,
    check_rewards,
    check_sampling,
    check_settings,
    needed_values,
    whole_numbers,
)
from valuepalette.training.running import in_rounds, shared_settings, train
from valuepalette.training.scoring import Scorer
from valuepalette.training.trainee import Trainee, need, open_trainee, start_from

__all__ = ["finetune"]

METHOD = "finetuning"
_OWN = {
    "beta": "beta",
    "reward_weights": "the solution and beta",
    "num_generations": "answers",
    "generation_batch_size": "prompts and answers",
    "steps_per_generation": "prompts and answers",
    "max_completion_length": "the task's sampling",
    "shuffle_dataset": "the task's seed",
}


def finetune(
    study: HasTask | Task,
    solution: Solution,
    folder: str | Path,
    *,
    beta: float = 0.1,
    steps: int = 200,
    prompts: int = 8,
    answers: int = 8,
    batch: int = 8,
    learning_rate: float | None = None,
    lora: int | None = 16,
    start: Tuned | None = None,
    watch: Collection[str] | None = None,
    save_every: int = 25,
    report_to: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Tuned:
    """Trains the model of a study to have the levels of `solution`, in `folder`; killed and run again it goes on.

    maximises  E_π λᵀf − KL(π ‖ p0) over the model's weights, in units of β; the optimum is p0·exp(λᵀf)/Z(x)

    solution       of candidates="limit", on a pilot of the model itself: temperature 1, no top-k, no top-p
    beta           the KL coefficient, any; the optimum does not depend on it
    steps          of the optimiser, each on `prompts` prompts with `answers` answers each, `batch` in memory at a time
    learning_rate  at the start, from where it falls to nothing; else 1e-4 for an adapter and 1e-6 for a whole model
    lora           the rank of the adapter that is trained; None trains every weight
    start          an earlier training to go on from; the KL stays to the original model
    watch          values to measure beside those with a weight; None for all of the rewards
    save_every     steps between checkpoints: what a kill can cost
    report_to      "tensorboard", "wandb"; None for those that are installed and set up
    settings       others of TRL's RLOOConfig; those that would move the optimum are refused with the reason

    Writes `metrics.jsonl`, a row per step with the level of each feature and the KL of an answer, and `model/`. Raises
    ValueError in one line for a pilot of another p0, a solution for a decoder, and a setting with another optimum.
    """
    task = task_of(study)
    weights, extra = solution.reward_weights(beta), dict(settings or {})
    check_settings(extra, _OWN)
    check_sampling(solution, task.sampling, whole=True)
    whole_numbers(steps=steps, prompts=prompts, answers=answers, batch=batch, save_every=save_every)
    if answers < 2 or prompts * answers % batch:
        raise ValueError(
            f"answers must be 2 or more, and prompts × answers a multiple of batch, got {prompts} × {answers}, {batch}"
        )
    rate = learning_rate if learning_rate is not None else (1e-6 if lora is None else 1e-4)
    lam = {name: weight for name, weight in solution.weights.items() if weight}
    told = {
        "method": METHOD,
        "task": task.told(),
        "weights": lam,
        "start": None if start is None else dict(start.weights),
        "training": {
            "beta": beta, "steps": steps, "prompts": prompts, "answers": answers, "batch": batch,
            "learning_rate": rate, "lora": lora, "watch": None if watch is None else sorted(watch),
            "settings": extra,
        },
    }  # fmt: skip

    def make(held: ExitStack) -> Any:
        need()
        trainee = open_trainee(task, lora)
        check_model(solution, trainee.engine.fingerprint)
        scorer = Scorer(_opened(task, solution, watch, held), solution, task, trainee.engine)
        shared = shared_settings(
            folder,
            task.seed,
            batch=batch,
            rows=prompts * answers,
            steps=steps,
            learning_rate=rate,
            save_every=save_every,
            report_to=report_to,
        )
        options: dict[str, Any] = {
            **trainee.place,
            **shared,
            "beta": beta,
            "reward_weights": [weights.get(name, 0.0) for name in scorer.features],
            "num_generations": answers,
            "max_completion_length": task.sampling.max_new_tokens,
            **extra,
        }
        trainer = _trainer(trainee, scorer, task, options)
        if start is not None:
            start_from(trainer.model, start.model, adapter=lora is not None)
        return trainer

    return train(folder, told, make, weights=lam, quiet=quiet)


def _trainer(trainee: Trainee, scorer: Scorer, task: Task, options: Mapping[str, Any]) -> Any:
    from datasets import Dataset
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    config = RLOOConfig(
        **{
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "normalize_advantages": False,
            "reward_clip_range": None,
            "num_iterations": 1,
            "disable_dropout": True,
            "sync_ref_model": False,
            "mask_truncated_completions": False,
            "weight_decay": 0.0,
            "gradient_checkpointing": False,
            "remove_unused_columns": False,
            "shuffle_dataset": False,
            **options,
        }
    )
    shown = [trainee.engine.turns(prompt, task.sampling) for prompt in task.prompts]
    batch = options["per_device_train_batch_size"] * options["gradient_accumulation_steps"]
    order = in_rounds(len(shown), options["max_steps"] * batch // options["num_generations"], task.seed)
    return RLOOTrainer(
        model=trainee.model,
        reward_funcs=list[Any](scorer.functions()),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [shown[row] for row in order], "row": order}),
        processing_class=trainee.tokenizer,
        peft_config=trainee.adapter,
    )


def _opened(
    task: Task, solution: Solution, watch: Collection[str] | None, stack: ExitStack
) -> dict[str, Reward]:
    """The rewards that training needs, all in memory at once, closed in the end."""
    opened: dict[str, Reward] = {}
    wanted = {*needed_values(solution), *(watch or ())}
    for name, line in task.rewards.items():
        reward = open_line(name, line, task.model)
        stack.callback(reward.close)
        if watch is None or name in wanted or wanted & {column.name for column in reward.columns}:
            opened[name] = reward
    check_rewards(solution, opened)
    return opened
