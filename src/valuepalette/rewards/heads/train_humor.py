"""Trains the humor head: packaged jokes against chat turns of the same lengths and sentences of documentation.

    pip install --group heads
    python -m valuepalette.rewards.heads.train_humor [folder with humor.parquet]

It reads only what packages carry. The folder, where given, holds jokes of another source, to judge the head by.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valuepalette.rewards.embedded import sentence_encoder
from valuepalette.rewards.heads.training import cross_validated, fit, quality, write_head

__all__ = ["chat_turns", "documentation", "jokes", "main"]

_TURNS_PER_JOKE = 4
_SEED = 0


def jokes() -> list[str]:
    """The English one-liners of pyjokes and pyjoker, each once."""
    from pyjokes import get_jokes  # pyright: ignore[reportMissingImports]  # group "heads"

    with (_folder("pyjoker") / "jokes.csv").open(encoding="utf-8", newline="") as file:
        told = [row["joke"].strip(' "“”') for row in csv.DictReader(file)]
    return _distinct([*get_jokes(language="en", category="all"), *told])


def chat_turns() -> list[str]:
    """The turns of chitchat-dataset of three words or more, conversation by conversation."""
    conversations: dict[str, Any] = json.loads(
        (_folder("chitchat_dataset") / "dataset.json").read_text("utf-8")
    )
    turns = (
        " ".join(message["text"] for message in turn).strip()
        for _, conversation in sorted(conversations.items())
        for turn in conversation["messages"]
    )
    return [turn for turn in turns if len(turn.split()) >= 3]


def documentation() -> list[str]:
    """Plain sentences of the Python reference that comes with Python."""
    from pydoc_data.topics import topics

    paragraphs = (" ".join(part.split()) for _, text in sorted(topics.items()) for part in text.split("\n\n"))
    sentences = {
        sentence
        for paragraph in paragraphs
        if "**" not in paragraph
        for sentence in re.split(r"(?<=\.)\s+", paragraph)
        if 5 <= len(sentence.split()) <= 30 and re.fullmatch(r"[A-Z][\w\s,;:'\"().-]*\.", sentence)
    }
    return sorted(sentences)


def matched(lengths: Iterable[int], texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """For each length in words a text of that length, or the nearest that is left; none twice."""
    shelves: dict[int, list[int]] = {}
    for i in rng.permutation(len(texts)):
        shelves.setdefault(len(texts[int(i)].split()), []).append(int(i))
    chosen: list[str] = []
    for length in lengths:
        nearest = min(shelves, key=lambda other: (abs(other - length), other))
        chosen.append(texts[shelves[nearest].pop()])
        if not shelves[nearest]:
            del shelves[nearest]
    return chosen


def main(data: Path | None = None) -> None:
    rng = np.random.default_rng(_SEED)
    told, said, documented = jokes(), chat_turns(), documentation()
    # The last conversations are kept out, to judge other jokes against.
    kept_out = said[-15_000:]
    lengths = [len(joke.split()) for joke in told]
    turns = matched(np.repeat(lengths, _TURNS_PER_JOKE), said[:-15_000], rng)
    sentences = matched(lengths[: len(documented)], documented, rng)
    texts = [*told, *turns, *sentences]
    labels = np.arange(len(texts)) < len(told)
    encoder = sentence_encoder()
    vectors = encoder.encode(texts)
    head = fit(vectors, labels)
    held_out = cross_validated(vectors, labels, rng.integers(0, 5, len(texts)))
    against_turns = np.arange(len(texts)) < len(told) + len(turns)
    card: dict[str, Any] = {
        "value": "humor: how joke-like a text is, as log-odds",
        "encoder": encoder.fingerprint,
        "method": "logistic regression on the sentence embedding, penalty 1, both classes weighing the same",
        "sources": {
            "pyjokes 0.8.3 (BSD-3-Clause) and pyjoker 0.1.0 (MIT), jokes": len(told),
            "chitchat-dataset 0.9.0 (MIT), turns of the jokes' lengths": len(turns),
            f"pydoc_data.topics of Python {platform.python_version()} (PSF), sentences": len(sentences),
        },
        "held out": {
            "jokes against chat turns, 5 folds": quality(
                held_out[against_turns],
                labels[against_turns],
                [*told, *turns],
            ),
            "jokes against all, 5 folds": quality(held_out, labels, texts),
        },
        "out of domain": {} if data is None else _out_of_domain(data, head, told, kept_out, rng),
        "method beyond length": "area among pairs of texts with the same number of words",
        "limits": "It knows the manner of one-liners, not wit; prose that is not chat it tells from jokes less well.",
        "weak": False,
    }
    write_head("humor", head, card)
    print(json.dumps(card, indent=2))


def _out_of_domain(
    data: Path, head: Any, told: Sequence[str], kept_out: Sequence[str], rng: np.random.Generator
) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(data / "humor.parquet").to_pydict()
    known = {_plain(joke) for joke in told}
    others = [text for text, label in zip(table["text"], table["label"], strict=True) if label == 1]
    others = [text for text in others if _plain(text) not in known][:3000]
    headlines = [text for text, label in zip(table["text"], table["label"], strict=True) if label == 0][:3000]
    turns = matched([len(text.split()) for text in others], kept_out, rng)
    encoder = sentence_encoder()
    scores = {
        name: head.log_odds(encoder.encode(texts))
        for name, texts in (("jokes", others), ("turns", turns), ("headlines", headlines))
    }
    return {
        name: quality(
            np.concatenate([scores["jokes"], scores[key]]),
            np.arange(len(others) + len(texts)) < len(others),
            [*others, *texts],
        )
        for name, key, texts in (
            ("other jokes against chat turns of other conversations", "turns", turns),
            ("other jokes against news headlines", "headlines", headlines),
        )
    }


def _distinct(texts: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    for text in texts:
        seen.setdefault(_plain(text), text)
    return list(seen.values())


def _plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower())


def _folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"training needs {module}: pip install --group heads", name=module)
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
