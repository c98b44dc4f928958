"""Coherence: how close an answer lies to its prompt in a space of sentence embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Column
from valuepalette.rewards.exchange import Reads, answer_of, last_turn
from valuepalette.rewards.models import Checkpoint

__all__ = ["Coherence", "Encoder"]


class Encoder:
    """A model that turns texts into unit vectors.

    `pooling` is how a text's vector is made: "mean" of its tokens, "cls" (the first token), or "pooler" (the
    model's own pooled output, as SimCSE's supervised models use). Texts are cut to `max_tokens`. `packaged` names
    and pins a model that comes in a package.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        pooling: str = "mean",
        max_tokens: int | None = None,
        batch_size: int = 64,
        packaged: str | None = None,
    ) -> None:
        if pooling not in _POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(map(repr, _POOLINGS))}; got {pooling!r}")
        self.checkpoint, self.pooling, self.batch_size = checkpoint, pooling, batch_size
        self.max_tokens, self.packaged = max_tokens, packaged

    @property
    def name(self) -> str:
        return self.packaged or self.checkpoint.id

    @property
    def fingerprint(self) -> str:
        return f"{self.packaged or self.checkpoint.fingerprint}, {self.pooling} pooling"

    @cached_property
    def _model(self) -> Any:
        return self.checkpoint.load("AutoModel")

    def encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The vectors of the texts, shape (texts, dimension); a text that occurs twice is encoded once."""
        distinct = list(dict.fromkeys(texts))
        cut: dict[str, Any] = {} if self.max_tokens is None else {"max_length": self.max_tokens}
        rows = self.checkpoint.rows(distinct, **cut)
        vectors = self.checkpoint.run(self._model, rows, _POOLINGS[self.pooling], batch_size=self.batch_size)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def close(self) -> None:
        """Frees the model; a packaged one stays, since it serves the whole process."""
        if not self.packaged:
            self.__dict__.pop("_model", None)


def _mean(outputs: Any, mask: Any) -> Any:
    weights = mask[..., None].to(outputs.last_hidden_state.dtype)
    return (outputs.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1)


_POOLINGS: dict[str, Callable[[Any, Any], Any]] = {
    "mean": _mean,
    "cls": lambda outputs, _: outputs.last_hidden_state[:, 0],
    "pooler": lambda outputs, _: outputs.pooler_output,
}


class Coherence:
    """The cosine between the embeddings of a prompt (its last turn) and of the answer, stripped; in [-1, 1]."""

    reads: Reads = "last turn and answer"

    def __init__(self, encoder: Encoder, *, name: str = "coherence", thinking: bool = False) -> None:
        self.encoder, self.thinking = encoder, thinking
        definition = f"cosine of the embeddings of prompt and answer by {encoder.name}"
        self.columns = (Column(name, definition, range=(-1.0, 1.0)),)

    @classmethod
    def by(
        cls,
        *,
        model: str,
        name: str = "coherence",
        pooling: str = "mean",
        thinking: bool = False,
        batch_size: int = 64,
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        pickle: bool = False,
        remote_code: bool = False,
    ) -> Coherence:
        """Coherence: the cosine of prompt and answer in the embedding of a model of one's choice."""
        checkpoint = Checkpoint(model, revision, dtype, device, pickle, remote_code)
        return cls(Encoder(checkpoint, pooling=pooling, batch_size=batch_size), name=name, thinking=thinking)

    @property
    def version(self) -> str:
        return f"coherence 1, {self.encoder.fingerprint}, thinking {self.thinking}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        if not responses:
            return np.empty((0, 1))
        asked = [last_turn(prompt).strip() for prompt in prompts]
        answers = [answer_of(response, thinking=self.thinking).strip() for response in responses]
        vectors = self.encoder.encode([*asked, *answers])
        cosines = np.einsum("ij,ij->i", vectors[: len(asked)], vectors[len(asked) :])
        return np.clip(cosines, -1.0, 1.0)[:, None]

    def close(self) -> None:
        """Frees the model."""
        self.encoder.close()
