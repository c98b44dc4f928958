"""MAP-F by distillation: weighted maximum likelihood on the pilot, so that the model answers as its decoder would.

The weights are the decoder's own probabilities. Their maximum likelihood minimises KL(q_K ‖ π), q_K the law of the
decoder that chooses among K candidates, whose levels are those asked where λ is calibrated for that K. No reward is in
memory: the pilot has been scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.engines.transformers import TransformersEngine
from valuepalette.folders import digest
from valuepalette.grouping import Array
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.training import HasTask, Task, Tuned, task_of
from valuepalette.training.checking import check_settings, whole_numbers
from valuepalette.training.running import in_rounds, shared_settings, train
from valuepalette.training.trainee import Trainee, need, open_trainee

__all__ = ["candidate_weights", "distill"]

METHOD = "distilling"
_LEAST = 1e-6  # a candidate that the decoder takes less often is not worth a pass


def distill(
    study: HasTask | Task,
    solution: Solution,
    pilot: Pilot,
    folder: str | Path,
    *,
    epochs: int = 3,
    rows: int = 32,
    batch: int = 8,
    learning_rate: float | None = None,
    lora: int | None = 16,
    save_every: int = 25,
    report_to: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Tuned:
    """Trains the model of a study on the pilot's candidates, each weighted as the decoder of `solution` takes it.

    minimises  −Σ_g a_g Σ_j w_gj log π(y_gj given x_g),  w_gj the decoder's probability of candidate j

    solution       calibrated for the pilot's K, the default of `solve`: then the level asked is the level learned
    pilot          scored, with its responses; an answer without `finish_reason` counts as ended by the model
    epochs         passes over the candidates that the decoder takes; more fit the pilot's prompts, and at some point
                   nothing else
    rows           candidates in a step of the optimiser, `batch` in memory at a time
    learning_rate  at the start, from where it falls to nothing; else 2e-4 for an adapter and 1e-5 for a whole model

    The rest is as for `finetune`; killed and run again it goes on. What is learned are answers at temperature 1 without
    truncation, however the pilot was drawn: sample the tuned model so.
    """
    task, extra = task_of(study), dict(settings or {})
    check_settings(extra, {})
    whole_numbers(epochs=epochs, rows=rows, batch=batch, save_every=save_every)
    if rows % batch:
        raise ValueError(f"rows must be a multiple of batch, got {rows} and {batch}")
    weights = candidate_weights(pilot, solution)
    if task.sampling.stop:
        raise ValueError(
            f"stop must be empty, since a trained model ends its answer itself, got {list(task.sampling.stop)}"
        )
    kept = np.flatnonzero(weights >= _LEAST)
    steps = -(-epochs * len(kept) // rows)
    rate = learning_rate if learning_rate is not None else (1e-5 if lora is None else 2e-4)
    lam = {name: weight for name, weight in solution.weights.items() if weight}
    told = {
        "method": METHOD,
        "task": task.told(),
        "weights": lam,
        "pilot": {"rows": pilot.rows, "sha256": digest([pilot.texts(), pilot.responses, weights])},
        "training": {
            "epochs": epochs, "rows": rows, "batch": batch, "learning_rate": rate, "lora": lora, "settings": extra,
        },
    }  # fmt: skip

    def make(_: ExitStack) -> Any:
        need(("peft", "accelerate"))
        trainee = open_trainee(task, lora)
        examples = _examples(trainee.engine, task, pilot, weights, kept)
        order = in_rounds(len(examples), steps * rows, task.seed)
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
        # The sum over a step stands for the mean over prompts of what one prompt's candidates add up to.
        share = len(kept) / pilot.prompts / rows
        return _trainer(
            trainee, [examples[row] for row in order], share, {**trainee.place, **shared, **extra}
        )

    return train(folder, told, make, weights=lam, quiet=quiet)


def candidate_weights(pilot: Pilot, solution: Solution) -> Array:
    """How much each row counts, (n,): N times the prompt's weight, times the chance that the decoder takes it.

    Raises ValueError where the solution is not calibrated for the pilot's K, and where the pilot has no responses.
    """
    solution.check_learnable(pilot)
    if pilot.responses is None:
        raise ValueError("pilot must hold responses to learn from, got none")
    features, measured = solution.features_of(pilot)
    if (solution.weights.array * ~measured).any():
        raise ValueError("pilot must be scored by every value that has a weight")
    prompts = pilot.groups(solution.weighting).weights * pilot.prompts
    weights = np.zeros(pilot.rows)
    for g, weight in enumerate(prompts):
        rows = pilot.order[pilot.starts[g] : pilot.starts[g + 1]]
        weights[rows] = weight * solution.probabilities(features[rows])
    return weights


def _examples(
    engine: TransformersEngine, task: Task, pilot: Pilot, weights: Array, kept: NDArray[np.intp]
) -> list[dict[str, Any]]:
    """The candidates in tokens: what is read, what is answered with the token that ends it, and the weight."""
    prompts, responses = pilot.texts(), pilot.responses or []
    there = "finish_reason" in pilot.table.column_names
    reasons = pilot.table["finish_reason"].to_pylist() if there else [None] * pilot.rows
    read: dict[int, list[int]] = {}
    examples: list[dict[str, Any]] = []
    for row in kept:
        prompt: Prompt = prompts[row]  # type: ignore[assignment]
        g = int(pilot.prompt_index[row])
        if g not in read:
            read[g] = engine.encode(prompt, task.sampling)
        answer = engine.encode_answer(prompt, responses[row], task.sampling)
        if reasons[row] != "length":
            answer = [*answer, engine.ends[0]]
        if answer:
            examples.append({"read": read[g], "answer": answer, "weight": float(weights[row])})
    return examples


def _trainer(
    trainee: Trainee, examples: Sequence[dict[str, Any]], share: float, options: Mapping[str, Any]
) -> Any:
    import torch
    from transformers import Trainer, TrainingArguments

    model = trainee.model
    if trainee.adapter is not None:
        from peft import get_peft_model

        torch.manual_seed(options["seed"])
        model = get_peft_model(model, trainee.adapter)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    arguments = TrainingArguments(
        **{
            "remove_unused_columns": False,
            "train_sampling_strategy": "sequential",
            "include_num_input_tokens_seen": "non_padding",
            "weight_decay": 0.0,
            **options,
        }
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=examples,  # type: ignore[arg-type]
        data_collator=_collator(trainee.tokenizer.pad_token_id),
        processing_class=trainee.tokenizer,
        compute_loss_func=_loss(share),
    )


def _collator(pad: int) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """Rows of one width. `labels` holds the token and its weight for each place: (rows, width, 2)."""
    import torch

    def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        width = max(len(each["read"]) + len(each["answer"]) for each in examples)
        ids = torch.full((len(examples), width), pad)
        mask, weights = torch.zeros_like(ids), torch.zeros(len(examples), width)
        for row, each in enumerate(examples):
            start, end = len(each["read"]), len(each["read"]) + len(each["answer"])
            ids[row, :end] = torch.tensor([*each["read"], *each["answer"]])
            mask[row, :end] = 1
            weights[row, start:end] = each["weight"]
        labels = torch.stack([ids.float(), weights], dim=-1)  # exact for any vocabulary below 2²⁴
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return collate


def _loss(share: float) -> Callable[..., Any]:
    """The weighted negative log-likelihood of whole answers, summed, times `share`."""

    def loss(outputs: Any, labels: Any, **_: Any) -> Any:
        logits = outputs.logits[:, :-1].float()
        tokens, weights = labels[:, 1:, 0].long(), labels[:, 1:, 1]
        logs = logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)
        return -share * (weights * logs).sum()

    return loss
