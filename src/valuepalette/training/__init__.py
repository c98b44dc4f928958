"""Training: the palette goes into the model's weights instead of into its decoder.

`finetuning` learns p0·exp(λᵀf)/Z by reinforcement, with the rewards in memory; `distilling` learns the law of the
pilot's own decoder by weighted maximum likelihood, without them. Both return a `Tuned`, which any engine opens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from valuepalette.collecting import Line
from valuepalette.engines import Prompt, Sampling
from valuepalette.folders import digest

__all__ = ["HasTask", "Task", "Tuned", "task_of"]

MODEL, METRICS, RESULT = "model", "metrics.jsonl", "tuned.json"


@dataclass(frozen=True)
class Task:
    """What is trained, on what: p0 and how it is prompted, the prompts, and how answers are measured.

    model     an id as `open_engine` takes it; template, dtype and device likewise
    prompts   texts or conversations
    sampling  how p0 answers; what is trained answers so too
    rewards   by value: a line of a study's `[values]`, or a function that opens a reward
    columns   of the prompts, an entry each: those that cohorts are cut by
    seed      of everything random
    """

    model: str
    prompts: Sequence[Prompt]
    sampling: Sampling
    rewards: Mapping[str, Line] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    template: str = "own"
    dtype: str | None = None
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.prompts, str) or not len(self.prompts):
            raise ValueError("prompts must be a list of at least one text or conversation")
        for name, entries in self.columns.items():
            if len(entries) != len(self.prompts):
                raise ValueError(
                    f"columns[{name!r}] must have {len(self.prompts)} entries, got {len(entries)}"
                )

    def told(self) -> dict[str, Any]:
        """What of it decides what is trained, for a manifest."""
        return {
            "model": self.model,
            "template": self.template,
            "dtype": self.dtype,
            "sampling": {**asdict(self.sampling), "stop": list(self.sampling.stop)},
            "prompts": {
                "count": len(self.prompts),
                "sha256": digest([list(self.prompts), dict(self.columns)]),
            },
            "seed": self.seed,
        }


class HasTask(Protocol):
    """A study, or whatever knows its task."""

    def task(self) -> Task: ...


def task_of(study: HasTask | Task) -> Task:
    """The task itself, or a study's."""
    return study if isinstance(study, Task) else study.task()


@dataclass(frozen=True)
class Tuned:
    """A model that was trained, in its folder.

    folder   `model/` (an adapter or a whole model, with its tokenizer), `metrics.jsonl`, `manifest.json`
    method   "finetuning" or "distilling"
    weights  λ by feature that it was trained for
    steps    of the optimiser
    tokens   that were read and written while training
    seconds  that training took, over all its starts
    """

    folder: Path
    method: str
    weights: Mapping[str, float]
    steps: int
    tokens: int
    seconds: float

    @property
    def model(self) -> Path:
        """What `open_engine` opens; an adapter is put on its base model."""
        return self.folder / MODEL

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row for each step that was recorded: the level of each value, KL, loss."""
        lines = (self.folder / METRICS).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @classmethod
    def load(cls, folder: str | Path) -> Tuned:
        """What training left in `folder`. Raises ValueError where it has not come to its end."""
        path = Path(folder) / RESULT
        if not path.is_file():
            raise ValueError(f"folder must hold a model that was trained to its end, got {folder}")
        return cls(folder=Path(folder), **json.loads(path.read_text(encoding="utf-8")))
