"""The model that is trained: p0 opened once, with an adapter to be trained or whole, on the device it is given."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valuepalette.engines.loading import load_causal_lm
from valuepalette.engines.transformers import TransformersEngine
from valuepalette.training import Task

__all__ = ["Trainee", "need", "open_trainee", "reporters", "start_from"]

_PACKAGES = ("trl", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class Trainee:
    """p0, ready to be trained.

    engine   answers as p0 and knows its template
    adapter  the settings of a LoRA adapter; None where the whole model is trained
    place    the trainer's settings of device and precision
    """

    engine: TransformersEngine
    adapter: Any
    place: dict[str, Any]

    @property
    def model(self) -> Any:
        return self.engine.loaded.model

    @property
    def tokenizer(self) -> Any:
        return self.engine.loaded.tokenizer


def need(packages: Sequence[str] = _PACKAGES) -> None:
    """Raises ModuleNotFoundError with the command that installs what training needs."""
    for module in ("torch", "transformers", *packages):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f'training a model needs {module}: pip install "valuepalette[train]"', name=module
            )


def open_trainee(task: Task, lora: int | None) -> Trainee:
    """Opens p0 to train it: an adapter of rank `lora`, or with None every weight.

    Weights that are trained are float32; on a GPU the arithmetic is bfloat16 where it has that. An adapter's base keeps
    the precision of the task, or what the device does fastest.
    """
    if lora is not None and (isinstance(lora, bool) or not isinstance(lora, int) or lora < 1):
        raise ValueError(f"lora must be a rank, 1 or more, or None to train the whole model, got {lora!r}")
    if lora is None and task.model.endswith(".gguf"):
        raise ValueError(
            f"lora must be a rank for a *.gguf file, from which the KL's reference is not loaded, got {task.model}"
        )
    import torch
    from transformers import GenerationConfig

    gpu = (task.device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda")
    dtype = "float32" if lora is None else task.dtype or (None if gpu else "float32")
    loaded = load_causal_lm(task.model, dtype=dtype, device=task.device)
    engine = TransformersEngine(loaded, template=task.template)
    model, tokenizer = loaded.model, loaded.tokenizer
    if engine.template is not None:
        tokenizer.chat_template = engine.template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(engine.ends[0])
    # The model's own habits of sampling, which an engine does not follow either.
    model.generation_config = GenerationConfig(
        eos_token_id=list(engine.ends),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    place: dict[str, Any] = {"use_cpu": model.device.type == "cpu", "bf16": False, "fp16": False}
    if model.device.type == "cuda" and task.dtype != "float32":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        place["bf16" if able else "fp16"] = True
    adapter = None
    if lora is None:
        model.requires_grad_(True)
    else:
        from peft import LoraConfig

        adapter = LoraConfig(
            r=lora, lora_alpha=2 * lora, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    return Trainee(engine, adapter, place)


def start_from(model: Any, folder: Path, *, adapter: bool) -> None:
    """Gives the model the weights of an earlier training; the original, for the KL, stays what it was."""
    if adapter:
        from peft import load_peft_weights, set_peft_model_state_dict

        if not (folder / "adapter_config.json").is_file():
            raise ValueError(f"start must be a model with an adapter, as lora says, got {folder}")
        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    from transformers import AutoModelForCausalLM

    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"start must be a whole model, as lora=None says, got the adapter in {folder}")
    earlier: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=model.dtype, local_files_only=True)
    model.load_state_dict(earlier.state_dict())


def reporters(asked: Sequence[str] | None) -> list[str]:
    """Where the trainer reports beside the run folder: what was asked for, else what is set up already."""
    if asked is not None:
        return list(asked)
    found = [name for name in ("tensorboard",) if importlib.util.find_spec(name)]
    known = any(name in os.environ for name in ("WANDB_API_KEY", "WANDB_MODE"))
    return [*found, *(["wandb"] if known and importlib.util.find_spec("wandb") else [])]
