"""A label of a Hugging Face sequence classifier as a value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Column
from valuepalette.rewards.exchange import Reads, read, reads_or_raise
from valuepalette.rewards.models import Checkpoint

__all__ = ["Classifier", "Output", "output_column"]

Output = Literal["log-probability", "probability", "logit"]


def output_column(name: str, definition: str, output: str, *, negate: bool = False) -> Column:
    """The column of a classifier's output: its scale and range. Raises ValueError for an unknown output."""
    if output not in get_args(Output):
        raise ValueError(f"output must be one of {', '.join(map(repr, get_args(Output)))}; got {output!r}")
    definition = f"{'minus the ' if negate else ''}{output} {definition}"
    infinity = float("inf")
    low, high = {"logit": (-infinity, infinity), "probability": (0.0, 1.0)}.get(output, (-infinity, 0.0))
    if negate:
        return Column(name, definition, range=(0.0 - high, 0.0 - low))
    scale = "real" if output == "logit" else "probability" if output == "probability" else "log-probability"
    return Column(name, definition, scale=scale, range=(low, high))


class Classifier:
    """The log-probability, probability or logit that a sequence classifier gives one label.

    `label` is the label's number or its name in the model's settings. `output` is "log-probability" (the
    default), "probability", or "logit", the raw number the model ends in. Probabilities are a softmax over the
    labels; a sigmoid where the model has one label or says it is multi-label. `negate` turns round a label that
    is bad to have, so that larger is better. `reads` says which text is classified: by default the answer alone.
    A text longer than the model takes loses its end.
    """

    def __init__(
        self,
        *,
        model: str,
        name: str = "classifier",
        label: int | str = 1,
        output: str = "log-probability",
        negate: bool = False,
        reads: str = "answer",
        thinking: bool = False,
        batch_size: int = 32,
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        pickle: bool = False,
        remote_code: bool = False,
    ) -> None:
        self.columns = (output_column(name, f"of label {label} by {model}", output, negate=negate),)
        self.checkpoint = Checkpoint(model, revision, dtype, device, pickle, remote_code)
        self.reads: Reads = reads_or_raise(reads)
        self.label, self.output, self.negate = label, output, negate
        self.thinking, self.batch_size = thinking, batch_size
        self.index = self._index()

    def _index(self) -> int:
        """The label's place among the model's outputs."""
        config = self.checkpoint.config
        names: dict[str, int] = getattr(config, "label2id", None) or {}
        index = names.get(self.label, -1) if isinstance(self.label, str) else self.label
        if isinstance(self.label, bool) or not 0 <= index < config.num_labels:
            known = ", ".join(f"{number} ({text})" for text, number in names.items())
            raise ValueError(f"label must be one of {known} of {self.checkpoint.id}; got {self.label!r}")
        return index

    @cached_property
    def _model(self) -> Any:
        return self.checkpoint.load("AutoModelForSequenceClassification")

    @property
    def version(self) -> str:
        rule = f"label {self.index} {self.output}{' negated' if self.negate else ''}"
        return f"classifier 1, {self.checkpoint.fingerprint}, {rule}, reads {self.reads}, thinking {self.thinking}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        if not responses:
            return np.empty((0, 1))
        texts = read(self.reads, prompts, responses, thinking=self.thinking)
        rows = self.checkpoint.rows(texts)
        numbers = self.checkpoint.run(self._model, rows, self._take, batch_size=self.batch_size)
        return -numbers if self.negate else numbers

    def _take(self, outputs: Any, _mask: Any) -> Any:
        import torch

        logits = outputs.logits.float()
        config = self.checkpoint.config
        if self.output != "logit":
            alone = config.num_labels == 1 or config.problem_type == "multi_label_classification"
            logits = torch.nn.functional.logsigmoid(logits) if alone else logits.log_softmax(dim=1)
        taken = logits[:, self.index : self.index + 1]
        return taken.exp() if self.output == "probability" else taken

    def close(self) -> None:
        """Frees the model."""
        self.__dict__.pop("_model", None)
