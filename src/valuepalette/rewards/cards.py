"""What is known of the embedded values: where they come from, how well they do, what they do not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from valuepalette.engines.embedded import EMBEDDED
from valuepalette.rewards.heads import card_of
from valuepalette.rewards.packaged import (
    ALT_PROFANITY_CHECK,
    MINILM,
    TOXICITYCLASSIFIER,
    VADER,
    Package,
)

__all__ = ["CARDS", "Card"]


@dataclass(frozen=True)
class Card:
    """An embedded value's card.

    quality  measured, by a test where the public data is at hand; areas are under the ROC curve, 0.5 being chance
    weak     too weak to steer by: measured and reported, no headline
    """

    package: str
    licence: str
    quality: str
    limits: str
    weak: bool = False


def _of(package: Package, quality: str, limits: str, *, weak: bool = False) -> Card:
    return Card(f"{package.distribution} {package.version}", package.licence, quality, limits, weak)


def _of_head(name: str) -> Card:
    """A head's card: the range of its areas, in and out of the domain it was trained on."""
    card = card_of(name)
    told: list[str] = []
    for domain in ("held out", "out of domain"):
        areas = sorted(f"{measured['area at equal length']:.2f}" for measured in card[domain].values())
        told.append(f"{' to '.join(dict.fromkeys([areas[0], areas[-1]]))} {domain}")
    return _of(
        MINILM, f"area {', '.join(told)}, among texts of equal length", card["limits"], weak=card["weak"]
    )


_SMOLLM = EMBEDDED["smollm2-135m"]

CARDS: Mapping[str, Card] = {
    "embedded:harmlessness": _of(
        ALT_PROFANITY_CHECK,
        "prefers the harmless answer in 54 % of 2,312 hh-rlhf pairs, where the shorter one wins 56 %",
        "It hears offensive words, not harmful intentions: a polite recipe for harm is harmless to it.",
    ),
    "embedded:toxicity": _of(
        TOXICITYCLASSIFIER,
        "area 0.97 for what alt-profanity-check finds offensive; prefers the harmless answer in 54 % of the pairs",
        "English; words as their stems, not what is meant by them.",
    ),
    "embedded:positiveness": _of(
        VADER,
        "area 0.70 on sentences of film reviews, 0.57 on the first 50 words of one",
        "English; a lexicon of words with rules for negation and emphasis, deaf to irony.",
    ),
    "embedded:sentiment": _of_head("sentiment"),
    "embedded:humor": _of_head("humor"),
    "embedded:coherence": _of(
        MINILM,
        "puts a prompt's own answer before another prompt's in 98 % of 2,312; rank correlation 0.68 with SimCSE",
        "Repeating the prompt is coherent to it.",
    ),
    "embedded:relevance": Card(
        _SMOLLM.requirement.replace("==", " "),
        _SMOLLM.licence,
        "puts a prompt's own answer before another prompt's in 95 %; rank correlation 0.13 with a trained "
        "helpfulness reward, -0.01 with length",
        "An answer that speaks to its question need not help: it stands in for helpfulness and is no measure of it.",
        weak=True,
    ),
}
"""The embedded values' cards, by the reward's name."""
