"""Direct preference optimisation: the model learns from pairs, by TRL's DPO trainer as it is (Rafailov et al., 2023).

A baseline: pairs say which answer is better and not by how much, so no level can be asked for. Where the better of two
is drawn by its chance, as `export_pairs` draws it, the optimum is the palette's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from valuepalette.folders import digest
from valuepalette.training import HasTask, Task, Tuned, task_of
from valuepalette.training.checking import check_settings, whole_numbers
from valuepalette.training.running import in_rounds, shared_settings, train
from valuepalette.training.trainee import need, open_trainee

__all__ = ["prefer"]

METHOD = "preferring"


def prefer(
    study: HasTask | Task,
    pairs: Sequence[Mapping[str, Any]],
    folder: str | Path,
    *,
    beta: float = 0.1,
    steps: int = 100,
    rows: int = 16,
    batch: int = 8,
    learning_rate: float | None = None,
    lora: int | None = 16,
    save_every: int = 25,
    report_to: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Tuned:
    """Trains the model of a study on preference pairs, in `folder`; killed and run again it goes on.

    minimises  −log σ(β·log(π/p0)(chosen) − β·log(π/p0)(rejected)), averaged over pairs

    pairs  rows with `prompt`, `chosen` and `rejected`, as `export_pairs` makes them
    rows   pairs in a step of the optimiser, `batch` in memory at a time

    The rest is as for `finetune`.
    """
    task, extra = task_of(study), dict(settings or {})
    check_settings(extra, {"beta": "beta"})
    whole_numbers(steps=steps, rows=rows, batch=batch, save_every=save_every)
    if rows % batch:
        raise ValueError(f"rows must be a multiple of batch, got {rows} and {batch}")
    if not pairs or any({"prompt", "chosen", "rejected"} - row.keys() for row in pairs):
        raise ValueError("pairs must be rows with prompt, chosen and rejected, at least one")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be positive and finite, got {beta}")
    rate = learning_rate if learning_rate is not None else (1e-6 if lora is None else 1e-4)
    rows_told = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in pairs]
    told = {
        "method": METHOD,
        "task": task.told(),
        "pairs": {"count": len(rows_told), "sha256": digest(rows_told)},
        "training": {
            "beta": beta, "steps": steps, "rows": rows, "batch": batch, "learning_rate": rate, "lora": lora,
            "settings": extra,
        },
    }  # fmt: skip

    def make(_: ExitStack) -> Any:
        need()
        from datasets import Dataset
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        trainee = open_trainee(task, lora)
        order = in_rounds(len(rows_told), steps * rows, task.seed)
        shared = shared_settings(
            folder,
            task.seed,
            batch=batch,
            rows=rows,
            steps=steps,
            learning_rate=rate,
            save_every=save_every,
            report_to=report_to,
        )
        options: dict[str, Any] = {
            **trainee.place,
            **shared,
            "beta": beta,
            "train_sampling_strategy": "sequential",
            "gradient_checkpointing": False,
            "disable_dropout": True,
            "include_num_input_tokens_seen": "non_padding",
            **extra,
        }
        return DPOTrainer(
            model=trainee.model,
            args=DPOConfig(**options),
            train_dataset=Dataset.from_list([rows_told[row] for row in order]),
            processing_class=trainee.tokenizer,
            peft_config=trainee.adapter,
        )

    return train(folder, told, make, weights={}, quiet=quiet)
