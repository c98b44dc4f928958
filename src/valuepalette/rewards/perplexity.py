"""Values read from a causal language model: how likely a text is, and how much an answer says of its question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.engines.embedded import EMBEDDED
from valuepalette.engines.loading import LoadedModel, load_causal_lm
from valuepalette.rewards import Column
from valuepalette.rewards.batching import by_length
from valuepalette.rewards.exchange import Reads, answer_of, last_turn, read, reads_or_raise

__all__ = ["Perplexity", "Relevance", "fingerprint_of", "log_likelihoods"]


def log_likelihoods(
    loaded: LoadedModel,
    contexts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
) -> NDArray[np.float64]:
    """log p(target | context) of each pair of token sequences, in nats, shape (pairs,).

    A context must hold at least one token. Where the two together exceed what the model takes, the context loses
    its beginning.
    """
    import torch

    model = loaded.model
    limit: int = getattr(model.config, "max_position_embeddings", None) or 1_000_000
    rows = [[*context, *target][-limit:] for context, target in zip(contexts, targets, strict=True)]
    totals = np.zeros(len(rows))
    with torch.inference_mode():
        for batch in by_length([len(row) for row in rows], batch_size):
            wide = max(len(rows[i]) for i in batch)
            ids = torch.tensor([rows[i] + [0] * (wide - len(rows[i])) for i in batch], device=model.device)
            mask = torch.tensor(
                [[1] * len(rows[i]) + [0] * (wide - len(rows[i])) for i in batch], device=model.device
            )
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for place, i in enumerate(batch):
                end = len(rows[i])
                start = max(end - len(targets[i]), 1)
                if start < end:
                    chances = logits[place, start - 1 : end - 1].float().log_softmax(dim=1)
                    taken = chances.gather(1, ids[place, start:end, None])
                    totals[i] = taken.double().sum().item()
    return totals


def fingerprint_of(model: str, dtype: str | None, loaded: Callable[[], LoadedModel]) -> str:
    """The model's id, what pins it, and the precision; a model that is known without loading it is not loaded."""
    scheme, _, rest = model.partition(":")
    if scheme == "embedded" and rest in EMBEDDED:
        revision, dtype = f"sha256:{EMBEDDED[rest].sha256}", dtype or "float32"
    else:
        revision, dtype = (loaded().fingerprint[key] for key in ("revision", "dtype"))
    return f"{model}@{revision[:19]} {dtype}"


class _Measured:
    """What both values share: a language model that is loaded when first needed."""

    rule: str

    def __init__(
        self, model: str, dtype: str | None, device: str | None, batch_size: int, thinking: bool
    ) -> None:
        self.model, self.dtype, self.device = model, dtype, device
        self.batch_size, self.thinking = batch_size, thinking

    @cached_property
    def _loaded(self) -> LoadedModel:
        return load_causal_lm(self.model, dtype=self.dtype, device=self.device)

    @property
    def version(self) -> str:
        pinned = fingerprint_of(self.model, self.dtype, lambda: self._loaded)
        return f"{self.rule}, {pinned}, thinking {self.thinking}"

    def close(self) -> None:
        """Frees the model."""
        self.__dict__.pop("_loaded", None)


class Perplexity(_Measured):
    """Minus log perplexity: how likely a text is under a language model.

    The number is minus the mean token cross-entropy, in nats. The text is prompt and answer together, as the paper
    has it, with the tokens the model's tokenizer puts around a text; the first token is given. `model` is any id
    that an engine takes. A tuned model is measured by the model it was tuned from: name that one. Raises ValueError,
    naming the text, for one of fewer than two tokens.
    """

    def __init__(
        self,
        *,
        model: str,
        name: str = "perplexity",
        reads: str = "last turn and answer",
        thinking: bool = False,
        batch_size: int = 16,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(model, dtype, device, batch_size, thinking)
        self.reads: Reads = reads_or_raise(reads)
        self.rule = f"perplexity 1, reads {reads}"
        definition = f"minus the mean token cross-entropy, in nats, of the {reads} under {model}"
        self.columns = (Column(name, definition, range=(-float("inf"), 0.0)),)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        texts = read(self.reads, prompts, responses, thinking=self.thinking)
        ids: list[list[int]] = [self._loaded.tokenizer(text)["input_ids"] for text in texts]
        for text, row in zip(texts, ids, strict=True):
            if len(row) < 2:
                raise ValueError(f"a text of fewer than two tokens has no perplexity; got {text!r}")
        totals = log_likelihoods(
            self._loaded, [row[:1] for row in ids], [row[1:] for row in ids], batch_size=self.batch_size
        )
        return (totals / [len(row) - 1 for row in ids])[:, None]


class Relevance(_Measured):
    """How much an answer raises the likelihood of its question: nats per token of the question.

    A language model reads `Answer: …` and then `Question: …`; the value is the log-likelihood it gives the
    question's tokens, less what it gives them after an empty answer, over their number. It is an estimate of the
    pointwise mutual information of question and answer. A blank answer scores 0. It stands in for helpfulness,
    for which no model is packaged: an answer that speaks to the question is not yet one that helps.
    """

    reads: Reads = "last turn and answer"
    rule = "relevance 1"

    def __init__(
        self,
        *,
        model: str,
        name: str = "relevance",
        thinking: bool = False,
        batch_size: int = 16,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(model, dtype, device, batch_size, thinking)
        definition = f"nats per token by which the answer raises the likelihood of its question under {model}"
        self.columns = (Column(name, definition),)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        asked = [last_turn(prompt).strip() for prompt in prompts]
        answers = [answer_of(response, thinking=self.thinking).strip() for response in responses]
        pairs = list(
            dict.fromkeys([*((question, "") for question in asked), *zip(asked, answers, strict=True)])
        )
        tokens = self._loaded.tokenizer
        contexts: list[Any] = [tokens(f"Answer: {answer}\n\nQuestion:")["input_ids"] for _, answer in pairs]
        targets: list[Any] = [
            tokens(f" {question}", add_special_tokens=False)["input_ids"] for question, _ in pairs
        ]
        totals = log_likelihoods(self._loaded, contexts, targets, batch_size=self.batch_size)
        lengths = np.maximum([len(target) for target in targets], 1)
        mean = dict(zip(pairs, totals / lengths, strict=True))
        gains = [
            mean[question, answer] - mean[question, ""]
            for question, answer in zip(asked, answers, strict=True)
        ]
        return np.array(gains, dtype=np.float64).reshape(-1, 1)
