"""Rewards learned from data: what lies in their folder, how good they are, and heads as a reward."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.folders import read_json
from valuepalette.rewards import Column
from valuepalette.rewards.classifier import output_column
from valuepalette.rewards.embedded import sentence_encoder
from valuepalette.rewards.embedding import Encoder
from valuepalette.rewards.exchange import Reads, read, reads_or_raise
from valuepalette.rewards.models import Checkpoint

__all__ = ["CARD", "FORMAT", "HEAD", "Learned", "LearnedHead", "pinned"]

CARD, HEAD = "card.json", "head.npz"
FORMAT = 1


@dataclass(frozen=True)
class Learned:
    """A reward that was learned from data, in its folder; `str()` says how good it is.

    card  what it was learned from and how well it does on what was held out: `card.json`
    """

    folder: Path
    card: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Learned:
        """What training left in `folder`. Raises ValueError where there is no card."""
        path = Path(folder) / CARD
        if not path.is_file():
            raise ValueError(
                f"model must be a folder with a {CARD}, as training leaves it; got {str(folder)!r}"
            )
        return cls(Path(folder), read_json(path, FORMAT))

    @property
    def reward(self) -> str:
        """What a study calls it: "head" or "reward_model"."""
        return self.card["reward"]

    @property
    def quality(self) -> dict[str, str]:
        """By aspect, how well it does on what was held out, in a line."""
        return {aspect["name"]: _told(aspect["quality"]) for aspect in self.card["aspects"]}

    def __str__(self) -> str:
        lines = [f"{name}: {told}" for name, told in self.quality.items()]
        return "\n".join([*lines, f'In a study: {{ reward = "{self.reward}", model = "{self.folder}" }}'])


def _told(quality: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for measure, found in quality.items():
        if isinstance(found, int):
            parts.append(f"{found:,} {measure} held out")
        elif isinstance(found, float) or found is None:
            parts.append(f"{measure} {_number(found)}")
        else:
            value, lower, upper = map(_number, found)
            parts.append(f"{measure} {value} ({lower} to {upper})")
    return ", ".join(parts)


def _number(found: float | None) -> str:
    return "unknown" if found is None else f"{found:.2f}"


def pinned(encoder: Encoder) -> str:
    """What pins an encoder wherever it lies: the fingerprint without the id or the folder's name."""
    return encoder.fingerprint if encoder.packaged else encoder.fingerprint.rpartition("@")[2]


class LearnedHead:
    """What heads trained by `train_head` give a text: one column for each aspect.

    `model` is the folder they were saved to. `aspects` says which are measured, all by default; a single one bears the
    value's name. A rating comes in the units it was given in. Classes come as `output`: the "logit" (log-odds, the
    default), "log-probability" or "probability" of the better class. `encoder` says where the encoder lies, if not
    where the card says; one with other weights is refused.
    """

    def __init__(
        self,
        *,
        model: str,
        name: str = "head",
        aspects: Sequence[str] | None = None,
        output: str = "logit",
        thinking: bool = False,
        encoder: str | None = None,
        batch_size: int = 64,
        device: str | None = None,
        pickle: bool = False,
        remote_code: bool = False,
    ) -> None:
        self.learned = Learned.load(model)
        if self.learned.reward != "head":
            raise ValueError(f"model must be a folder of heads; got the {self.learned.reward} in {model!r}")
        card = self.learned.card
        known = [aspect["name"] for aspect in card["aspects"]]
        asked = known if aspects is None else list(aspects)
        if (
            isinstance(aspects, str)
            or not asked
            or len(set(asked)) != len(asked)
            or not set(asked) <= set(known)
        ):
            raise ValueError(f"aspects must be a list of names among {', '.join(known)}; got {aspects!r}")
        self.chosen = [known.index(aspect) for aspect in asked]
        self.output, self.thinking = output, thinking
        self.reads: Reads = reads_or_raise(card["reads"])
        self.classes = np.array([card["aspects"][i]["kind"] == "classes" for i in self.chosen])
        self.columns = tuple(
            _column(name if len(asked) == 1 else known[i], card["aspects"][i], output, Path(model).name)
            for i in self.chosen
        )
        with np.load(Path(model) / HEAD, allow_pickle=False) as stored:
            self.weights = stored["weights"][self.chosen].astype(np.float64)
            self.intercepts = stored["intercepts"][self.chosen].astype(np.float64)
        self._encoder = {"encoder": encoder, "device": device, "pickle": pickle, "remote_code": remote_code}
        self._batch_size = batch_size

    @property
    def version(self) -> str:
        numbers = hashlib.sha256(self.weights.tobytes() + self.intercepts.tobytes()).hexdigest()[:12]
        rule = f"{self.output}, reads {self.reads}, thinking {self.thinking}"
        return f"head 1, weights {numbers}, {self.learned.card['encoder']['pinned']}, {rule}"

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that the heads were trained on. Raises ValueError where it is another now."""
        about = self.learned.card["encoder"]
        if about["model"] is None and self._encoder["encoder"] is None:
            found = sentence_encoder()
        else:
            checkpoint = Checkpoint(
                self._encoder["encoder"] or about["model"],
                about["revision"],
                about["dtype"] or "float32",
                self._encoder["device"],
                self._encoder["pickle"],
                self._encoder["remote_code"],
            )
            found = Encoder(
                checkpoint,
                pooling=about["pooling"],
                max_tokens=about["max_tokens"],
                batch_size=self._batch_size,
            )
        if pinned(found) != about["pinned"]:
            raise ValueError(
                f"encoder must be the one the heads were trained on ({about['pinned']}); got {pinned(found)}"
            )
        return found

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        if not responses:
            return np.empty((0, len(self.columns)))
        vectors = self.encoder.encode(read(self.reads, prompts, responses, thinking=self.thinking))
        numbers = vectors @ self.weights.T + self.intercepts
        if self.output != "logit":
            numbers[:, self.classes] = -np.logaddexp(0, -numbers[:, self.classes])
        if self.output == "probability":
            numbers[:, self.classes] = np.exp(numbers[:, self.classes])
        return numbers

    def close(self) -> None:
        """Frees the encoder; the packaged one stays, since it serves the whole process."""
        if "encoder" in self.__dict__:
            self.encoder.close()
            del self.__dict__["encoder"]


def _column(name: str, aspect: Mapping[str, Any], output: str, folder: str) -> Column:
    definition = f"{aspect['definition']}, by the heads in {folder}"
    column = output_column(name, definition, output)  # raises for an unknown output
    return column if aspect["kind"] == "classes" else Column(name, definition)
