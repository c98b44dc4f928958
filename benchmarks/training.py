"""What trainers learn, against the law that the palette asks for.

A language model of four letters and answers of two, so that every answer can be listed. The target is p0·exp(λᵀf)/Z
with λ of a palette that raises one value and lowers another; the distance is KL(policy ‖ target), the mean over four
prompts. All runs see the same prompts, rewards and number of answers: 400 steps of 64, full fine-tuning unless it says
LoRA. What starts at RLOO's result starts next to the target: a trainer with the right optimum would stay there.
Distillation learns another law, that of the decoder that chooses among the pilot's 64 candidates, and is judged by it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

STEPS = 400
PALETTE = {"as": "reach 40%", "variety": "<= base-0.2"}


def grpo(folder: Path, model: Path, start: Path, solution: Any, **settings: Any) -> Path:
    """GRPO with the same rewards, weights and answers."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    import enumerable as listed
    from valuepalette.engines.opening import open_engine
    from valuepalette.training.running import calm, in_rounds
    from valuepalette.training.scoring import Scorer

    task, weights = listed.task(model), solution.reward_weights(1.0)
    engine: Any = open_engine(str(model), dtype="float32", device="cpu")
    scorer = Scorer({name: line() for name, line in listed.REWARDS.items()}, solution, task, engine)  # type: ignore[operator]
    order = in_rounds(len(task.prompts), STEPS * 4, 0)
    policy: Any = AutoModelForCausalLM.from_pretrained(start)
    policy.config._name_or_path = str(model)  # the KL is to the original model
    with calm():
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=list[Any](scorer.functions()),
            args=GRPOConfig(
                str(folder / "out"),
                reward_weights=[weights.get(name, 0.0) for name in scorer.features],
                num_generations=16,
                per_device_train_batch_size=64,
                max_completion_length=2,
                max_steps=STEPS,
                learning_rate=3e-3,
                use_cpu=True,
                bf16=False,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                gradient_checkpointing=False,
                logging_steps=10**6,
                **settings,
            ),
            train_dataset=Dataset.from_dict({"prompt": [task.prompts[row] for row in order], "row": order}),
            processing_class=AutoTokenizer.from_pretrained(model),
        )
        trainer.train()
        trainer.save_model(str(folder / "model"))
    return folder / "model"


def rows(folder: Path) -> Iterator[tuple[str, str, float, float, float]]:
    """Trainer, start, KL to the target, level of the first value less the target's, seconds."""
    import numpy as np

    import enumerable as listed
    import valuepalette as vp
    from valuepalette.training.distilling import candidate_weights

    model = listed.save(folder / "base")
    pilot = listed.pilot(model, folder / "pilot", 64)
    solution, task = vp.solve(pilot, PALETTE, "limit"), listed.task(model)
    before = listed.Law(model)
    target = before.tilted(solution.weights)
    wanted = float((np.exp(target) @ before.features("as")).mean())
    yield "none", "p0", before.kl(target), before.level("as") - wanted, 0.0

    def judged(name: str, start: str, found: Path, since: float) -> tuple[str, str, float, float, float]:
        law = listed.Law(found)
        return name, start, law.kl(target), law.level("as") - wanted, time.perf_counter() - since

    options: dict[str, Any] = {
        "steps": STEPS, "prompts": 4, "answers": 16, "batch": 64, "learning_rate": 3e-3, "report_to": [],
        "quiet": True,
    }  # fmt: skip
    there: Path | None = None
    for name, more in {
        "RLOO, β = 1": {"beta": 1.0, "lora": None},
        "RLOO, β = 0.05": {"beta": 0.05, "lora": None},
        "RLOO, LoRA, β = 0.1": {"beta": 0.1, "lora": 8},
    }.items():
        since = time.perf_counter()
        tuned = vp.finetune(task, solution, folder / name, **options, **more)
        there = there or tuned.model
        yield judged(name, "p0", tuned.model, since)
    assert there is not None
    fair = {"beta": 1.0, "scale_rewards": "none", "loss_type": "dr_grpo"}
    for name, start, settings in (
        ("GRPO, its defaults", model, {}),
        ("GRPO, defaults but β = 1", model, {"beta": 1.0}),
        ("GRPO, β = 1, no scaling, dr_grpo", model, fair),
        ("GRPO, defaults but β = 1", there, {"beta": 1.0}),
        ("GRPO, β = 1, no scaling, dr_grpo", there, fair),
    ):
        since, at = time.perf_counter(), "p0" if start == model else "RLOO's"
        place = folder / f"{name} {at}"
        yield judged(name, at, grpo(place, model, start, solution, **settings), since)
    own = vp.solve(pilot, PALETTE)
    since = time.perf_counter()
    tuned = vp.distill(
        task, own, pilot, folder / "distilled", epochs=STEPS, rows=256, batch=256, learning_rate=1e-2, lora=None,
        report_to=[], quiet=True,
    )  # fmt: skip
    law = listed.Law(tuned.model)
    weights = candidate_weights(pilot, own)
    texts = np.array(pilot.responses)
    share = {text: (weights * (texts == text)).reshape(4, -1).sum(axis=1) for text in set(texts)}
    chance = {text: law.chances[:, [one == text for one in law.texts]].sum(axis=1) for text in share}
    kl = sum((share[t] * np.log(np.maximum(share[t], 1e-300) / chance[t])).mean() for t in share)
    gap = law.level("as") - own.levels["as"]
    yield "distillation", "p0", float(kl), gap, time.perf_counter() - since


def run() -> str:
    """The table."""
    try:
        import trl  # noqa: F401
    except ModuleNotFoundError as missing:
        return f"Not run: {missing}"
    lines = ["| trainer | start | KL | level − asked | seconds |", "|---|---|--:|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, start, kl, gap, seconds in rows(Path(folder)):
            lines.append(f"| {name} | {start} | {kl:.4f} | {gap:+.3f} | {seconds:.0f} |")
    lines += [
        "",
        "Distillation: KL(decoder ‖ policy) over the pilot's answers, and the level asked of that decoder.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(run())
