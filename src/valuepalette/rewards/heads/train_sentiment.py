"""Trains the sentiment head on pairs of sentences of our own writing, one glad and one sorry in the same words.

    python -m valuepalette.rewards.heads.train_sentiment [folder with movie-snippets.parquet]

The folder, where given, holds labelled film reviews, to judge the head by. None are trained on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from valuepalette.rewards.embedded import sentence_encoder
from valuepalette.rewards.heads.training import cross_validated, fit, quality, write_head

__all__ = ["PAIRS", "main"]

PAIRS = (
    ("I love this.", "I hate this."),
    ("This is wonderful.", "This is terrible."),
    ("What a great day.", "What an awful day."),
    ("I am so happy.", "I am so sad."),
    ("That was a delight.", "That was a disappointment."),
    ("Everything went well.", "Everything went wrong."),
    ("This made me smile.", "This made me angry."),
    ("I am grateful for it.", "I regret it."),
    ("It was a lovely surprise.", "It was a nasty shock."),
    ("They did an excellent job.", "They did a lousy job."),
    ("I feel hopeful about tomorrow.", "I dread tomorrow."),
    ("It works perfectly.", "It is completely broken."),
    ("I enjoyed every minute.", "I suffered every minute."),
    ("What a joy to be here.", "What a misery to be here."),
    ("It is a pleasure to help you.", "It is a burden to deal with you."),
    ("The news is good.", "The news is bad."),
    ("Things are getting better.", "Things are getting worse."),
    ("I am proud of you.", "I am ashamed of you."),
    ("It was a warm and kind gesture.", "It was a cold and cruel gesture."),
    ("The food was delicious.", "The food was disgusting."),
    ("A charming and moving story.", "A tedious and clumsy story."),
    ("An inspired, funny and touching film.", "A lazy, dull and pointless film."),
    ("I would recommend it to everyone.", "I would warn everyone against it."),
    ("She is brilliant at her work.", "She is useless at her work."),
    ("We had a fine time together.", "We had a miserable time together."),
    ("The acting is superb and the script is sharp.", "The acting is wooden and the script is a mess."),
    ("The book kept me up all night.", "The book put me to sleep."),
    ("The room was clean and quiet.", "The room was filthy and noisy."),
    ("The staff were friendly and quick.", "The staff were rude and slow."),
    ("It is worth every penny.", "It is a waste of money."),
    ("My friends cheered me up.", "My friends let me down."),
    ("The plan was a success.", "The plan was a failure."),
    ("You can do this, and I believe in you.", "You cannot do this, so give up."),
    ("Good luck, you will do fine.", "It is hopeless, you will fail."),
    ("The garden is in bloom and smells sweet.", "The garden is dead and smells of rot."),
    ("The children laughed and played.", "The children cried and fought."),
    ("He recovered and is healthy again.", "He got worse and is dying."),
    ("We won the match.", "We lost the match badly."),
    ("I feel safe with them.", "I am afraid of them."),
    ("It was an honest and generous offer.", "It was a dishonest and greedy offer."),
    ("The music is beautiful.", "The music is an ugly noise."),
    ("That is a clever idea.", "That is a stupid idea."),
    ("The journey was smooth.", "The journey was a nightmare."),
    ("The weather is bright and mild.", "The weather is grim and bitter."),
    ("She spoke with warmth and humour.", "She spoke with scorn and spite."),
    ("The meeting was useful and cheerful.", "The meeting was pointless and tense."),
    ("He keeps his promises.", "He lies and cheats."),
    ("This gives me courage.", "This fills me with despair."),
    ("A fresh, lively and clever picture.", "A stale, lifeless and silly picture."),
    ("The ending is satisfying.", "The ending is a letdown."),
    ("One of the best of the year.", "One of the worst of the year."),
    ("It is gripping from start to finish.", "It is boring from start to finish."),
    ("The characters are rich and believable.", "The characters are thin and unbelievable."),
    ("It treats its subject with grace.", "It treats its subject without care."),
    ("The jokes land and the pace is lively.", "The jokes fall flat and the pace drags."),
    ("A triumph.", "A disaster."),
    ("I miss those happy days.", "I am glad those dreadful days are over."),
    ("Thank you, that was very helpful.", "No thanks, that was no help at all."),
    ("The city is welcoming and full of life.", "The city is hostile and full of crime."),
    ("I slept well and feel rested.", "I slept badly and feel ill."),
)


def main(data: Path | None = None) -> None:
    encoder = sentence_encoder()
    texts = [glad for glad, _ in PAIRS] + [sorry for _, sorry in PAIRS]
    labels = np.arange(len(texts)) < len(PAIRS)
    vectors = encoder.encode(texts)
    head = fit(vectors, labels)
    # A pair stays together, or its other half would give it away.
    held_out = cross_validated(vectors, labels, np.arange(len(texts)) % len(PAIRS) % 10)
    card: dict[str, Any] = {
        "value": "sentiment: how glad rather than sorry a text sounds, as log-odds",
        "encoder": encoder.fingerprint,
        "method": "logistic regression on the sentence embedding, penalty 1",
        "sources": {"sentences of our own writing (Apache-2.0), in the script, in pairs": len(texts)},
        "held out": {"glad against sorry, 10 folds by pair": quality(held_out, labels, texts)},
        "out of domain": {} if data is None else _out_of_domain(data, head),
        "method beyond length": "area among pairs of texts with the same number of words",
        "limits": "English; tone of the whole text, so that one sentence of many counts for little.",
        "weak": False,
    }
    write_head("sentiment", head, card)
    print(json.dumps(card, indent=2))


def _out_of_domain(data: Path, head: Any) -> dict[str, Any]:
    import pyarrow.parquet as pq

    found: dict[str, Any] = {}
    for name, file, words in (
        ("sentences of film reviews", "movie-snippets", None),
        ("film reviews, the first 50 words", "movie-reviews", 50),
    ):
        table = pq.read_table(data / f"{file}.parquet").to_pydict()
        texts = [" ".join(text.split()[:words]) for text in table["text"][:4000]]
        labels = np.array(table["label"][:4000]) == 1
        found[name] = quality(head.log_odds(sentence_encoder().encode(texts)), labels, texts)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
