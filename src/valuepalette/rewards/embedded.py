"""The values that need no download: packaged classifiers, a lexicon, and heads on a packaged sentence embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Column
from valuepalette.rewards.classifier import output_column
from valuepalette.rewards.embedding import Coherence, Encoder
from valuepalette.rewards.exchange import Reads, read, reads_or_raise
from valuepalette.rewards.heads import load_head
from valuepalette.rewards.linear_text import LinearText, offensive, toxic
from valuepalette.rewards.models import Checkpoint
from valuepalette.rewards.packaged import ALT_PROFANITY_CHECK, MINILM, SNOWBALL, TOXICITYCLASSIFIER, VADER
from valuepalette.rewards.perplexity import Relevance

__all__ = [
    "EMBEDDED_MODEL",
    "Scored",
    "coherence",
    "harmlessness",
    "humor",
    "positiveness",
    "relevance",
    "sentence_encoder",
    "sentiment",
    "toxicity",
]

EMBEDDED_MODEL = "embedded:smollm2-135m"


class Scored:
    """A value that a function of the text gives; what it holds stays loaded for the process."""

    def __init__(
        self,
        column: Column,
        function: Callable[[Sequence[str]], NDArray[np.float64]],
        version: str,
        *,
        reads: str,
        thinking: bool,
    ) -> None:
        self.columns = (column,)
        self.reads: Reads = reads_or_raise(reads)
        self.version = f"{version}, reads {reads}, thinking {thinking}"
        self._function, self._thinking = function, thinking

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        if not responses:
            return np.empty((0, 1))
        return self._function(read(self.reads, prompts, responses, thinking=self._thinking)).reshape(-1, 1)

    def close(self) -> None:
        """Nothing to free: what is loaded serves the whole process."""


def harmlessness(
    *,
    name: str = "harmlessness",
    output: str = "log-probability",
    reads: str = "answer",
    thinking: bool = False,
) -> Scored:
    """How sure alt-profanity-check is that a text is inoffensive."""
    column = output_column(name, "that the text is inoffensive, by alt-profanity-check", output)
    ALT_PROFANITY_CHECK.folder()
    version = f"harmlessness 1, alt-profanity-check {ALT_PROFANITY_CHECK.version}, {output}"
    return Scored(column, _not(offensive, output), version, reads=reads, thinking=thinking)


def toxicity(
    *,
    name: str = "toxicity",
    output: str = "log-probability",
    reads: str = "answer",
    thinking: bool = False,
) -> Scored:
    """How sure toxicityclassifier is that a text is not toxic."""
    column = output_column(name, "that the text is not toxic, by toxicityclassifier", output)
    TOXICITYCLASSIFIER.folder()
    SNOWBALL.folder()
    version = f"toxicity 1, toxicityclassifier {TOXICITYCLASSIFIER.version}, {output}"
    return Scored(column, _not(toxic, output), version, reads=reads, thinking=thinking)


def _not(classifier: Callable[[], LinearText], output: str) -> Callable[[Sequence[str]], NDArray[np.float64]]:
    """The output for the texts *outside* the classifier's class."""

    def scores(texts: Sequence[str]) -> NDArray[np.float64]:
        logits = -classifier().log_odds(texts)
        if output == "logit":
            return logits
        logarithms = -np.logaddexp(0, -logits)
        return np.exp(logarithms) if output == "probability" else logarithms

    return scores


def positiveness(*, name: str = "positiveness", reads: str = "answer", thinking: bool = False) -> Scored:
    """The valence of a text's words by the VADER lexicon, negation and emphasis minded."""
    VADER.folder()
    column = Column(name, "compound score of the VADER sentiment lexicon", range=(-1.0, 1.0))
    version = f"positiveness 1, vaderSentiment {VADER.version}"
    return Scored(column, _compound, version, reads=reads, thinking=thinking)


def _compound(texts: Sequence[str]) -> NDArray[np.float64]:
    analyzer = _vader()
    return np.array([analyzer.polarity_scores(text)["compound"] for text in texts], dtype=np.float64)


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def humor(*, name: str = "humor", reads: str = "answer", thinking: bool = False) -> Scored:
    """How joke-like a text is: the log-odds of a head on the packaged sentence embedding."""
    return _headed("humor", name, "log-odds that the text is a joke", reads, thinking)


def sentiment(*, name: str = "sentiment", reads: str = "answer", thinking: bool = False) -> Scored:
    """How glad rather than sorry a text sounds: a head on the packaged sentence embedding, without a lexicon."""
    return _headed("sentiment", name, "log-odds that the text sounds glad rather than sorry", reads, thinking)


def _headed(head: str, name: str, definition: str, reads: str, thinking: bool) -> Scored:
    MINILM.folder()
    chosen = load_head(head)
    version = f"{head} 1, weights {chosen.checksum}, {_ENCODER}"
    column = Column(name, f"{definition}, by a head on all-MiniLM-L6-v2")
    return Scored(
        column,
        lambda texts: chosen.log_odds(sentence_encoder().encode(texts)),
        version,
        reads=reads,
        thinking=thinking,
    )


def coherence(*, name: str = "coherence", thinking: bool = False) -> Coherence:
    """The cosine of prompt and answer in the packaged sentence embedding."""
    return Coherence(sentence_encoder(), name=name, thinking=thinking)


def relevance(
    *,
    name: str = "relevance",
    model: str = EMBEDDED_MODEL,
    thinking: bool = False,
    batch_size: int = 16,
    dtype: str | None = None,
    device: str | None = None,
) -> Relevance:
    """How much the answer raises the likelihood of its question under the packaged language model."""
    return Relevance(
        name=name, model=model, thinking=thinking, batch_size=batch_size, dtype=dtype, device=device
    )


_ENCODER = f"{MINILM.distribution} {MINILM.version}"


@cache
def sentence_encoder() -> Encoder:
    """The packaged all-MiniLM-L6-v2: 384 dimensions, 256 tokens at most. One per process."""
    folders = {MINILM.checked(file).parent for file in MINILM.files}
    checkpoint = Checkpoint(str(folders.pop()))
    return Encoder(checkpoint, max_tokens=256, packaged=_ENCODER)
