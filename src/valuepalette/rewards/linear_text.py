"""Linear text classifiers: tf-idf of a text's terms, a weight per term, a probability."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.rewards.packaged import ALT_PROFANITY_CHECK, SNOWBALL, TOXICITYCLASSIFIER
from valuepalette.rewards.pickled import numbers_of

__all__ = ["LinearText", "character_ngrams", "offensive", "toxic", "whole_words"]

_WORD = re.compile(r"\b\w\w+\b")


def whole_words(text: str) -> list[str]:
    """The words of two characters or more, in lower case.

    >>> whole_words("A cat, two dogs!")
    ['cat', 'two', 'dogs']
    """
    return _WORD.findall(text.lower())


def character_ngrams(text: str) -> Iterable[str]:
    """The runs of two to four characters inside each word, a blank counting as its first and last character.

    >>> list(character_ngrams("Hi"))
    [' h', 'hi', 'i ', ' hi', 'hi ', ' hi ']
    """
    for word in text.lower().split():
        yield from _ngrams(word)


@lru_cache(maxsize=50_000)
def _ngrams(word: str) -> tuple[str, ...]:
    padded = f" {word} "
    grams: list[str] = []
    for n in (2, 3, 4):
        grams += [padded[i : i + n] for i in range(max(len(padded) - n, 0) + 1)]
        if len(padded) <= n:
            break
    return tuple(grams)


@dataclass(frozen=True)
class LinearText:
    """The mean over calibrated linear classifiers of the probability that a text belongs to their class.

    terms                  cuts a text into terms; those outside the vocabulary are dropped
    vocabulary             term -> its number
    idf        (V,)        how rare each term is; a text's vector is counts × idf, scaled to length one
    weights    (F, V)      of F classifiers
    intercepts (F,)
    slopes, offsets (F,)   probability = 1 / (1 + exp(slope · score + offset))
    """

    terms: Callable[[str], Iterable[str]]
    vocabulary: dict[str, int]
    idf: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Each classifier's score of each text, shape (texts, F)."""
        number = self.vocabulary.get
        scores = np.tile(self.intercepts, (len(texts), 1))
        for row, text in enumerate(texts):
            counts = Counter(number(term, -1) for term in self.terms(text))
            counts.pop(-1, None)
            if counts:
                index = np.fromiter(counts, dtype=np.intp, count=len(counts))
                vector = np.fromiter(counts.values(), dtype=np.float64, count=len(counts)) * self.idf[index]
                scores[row] += self.weights[:, index] @ vector / np.sqrt(vector @ vector)
        return scores

    def log_odds(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p / (1 - p) of each text, shape (texts,); p is the mean of the classifiers' probabilities."""
        exponents = self.slopes * self.scores(texts) + self.offsets
        # p and 1 - p are both means of sigmoids: sums of positive numbers, so neither loses digits near 0.
        return np.log(_sigmoid(-exponents).mean(axis=1)) - np.log(_sigmoid(exponents).mean(axis=1))


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))


@lru_cache(maxsize=1)
def offensive() -> LinearText:
    """alt-profanity-check's classifier: is the text offensive? Read once per process."""
    vectorizer = numbers_of(ALT_PROFANITY_CHECK.checked("data/vectorizer.joblib"))
    folds = numbers_of(ALT_PROFANITY_CHECK.checked("data/model.joblib")).calibrated_classifiers_
    sigmoids = [fold.calibrators[0] for fold in folds]
    return LinearText(
        terms=whole_words,
        vocabulary=vectorizer.vocabulary_,
        idf=vectorizer._tfidf.idf_.array,
        weights=np.concatenate([fold.estimator.coef_.array for fold in folds]),
        intercepts=np.array([fold.estimator.intercept_.array.item() for fold in folds]),
        slopes=np.array([sigmoid.a_ for sigmoid in sigmoids]),
        offsets=np.array([sigmoid.b_ for sigmoid in sigmoids]),
    )


@lru_cache(maxsize=1)
def toxic() -> LinearText:
    """toxicityclassifier's English classifier: is the text toxic? Read once per process."""
    vectorizer = numbers_of(TOXICITYCLASSIFIER.checked("models/EnglishVectorizer.bf"))
    model = numbers_of(TOXICITYCLASSIFIER.checked("models/EnglishModel.bf"))
    return LinearText(
        terms=_toxicity_terms,
        vocabulary=vectorizer.vocabulary_,
        idf=vectorizer._tfidf._idf_diag.data,
        weights=model.coef_,
        intercepts=model.intercept_,
        slopes=np.array([-1.0]),
        offsets=np.array([0.0]),
    )


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# The function words that the classifier was trained without.
_FUNCTION_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those am is
are was were be been being have has had having do does did doing will can should just don now a an the
and but if or because as until while of at by for with about against between into through during before
after above below to from up down in out on off over under again further then once here there when where
why how all any both each few more most other some such no nor not only own same so than too very s t d
ll m o re ve y ma ain aren couldn didn doesn hadn hasn haven isn mightn mustn needn shan shouldn wasn
weren won wouldn
"""
_DROPPED = frozenset(_FUNCTION_WORDS.split())


def _toxicity_terms(text: str) -> Iterable[str]:
    for word in text.lower().translate(_NO_PUNCTUATION).split():
        if word not in _DROPPED:
            yield from _ngrams(_stem(word))


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    SNOWBALL.folder()
    import snowballstemmer

    return snowballstemmer.stemmer("english")
