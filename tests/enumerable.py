"""A language model so small that every answer can be listed: what it was trained to is compared with the exact law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.collecting import Line, sample, score
from valuepalette.engines import Prompt, Sampling
from valuepalette.engines.opening import open_engine
from valuepalette.pilot import Pilot
from valuepalette.rewards import Column
from valuepalette.training import Task

END = 0
LETTERS = "abcd"
PROMPTS: tuple[str, ...] = ("ab", "cb", "da", "bd")  # of two letters: attention cannot count equal ones
SAMPLING = Sampling(max_new_tokens=2, top_k=0)

Array = NDArray[np.float64]


class Letters:
    """How often a letter comes up, or how many different ones do."""

    reads: Literal["answer"] = "answer"
    version = "1"

    def __init__(self, name: str, letter: str = "") -> None:
        self.columns = (Column(name, f"letters {letter or 'that differ'}"),)
        self._letter = letter

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Array:
        return np.array([[self.of(response)] for response in responses], dtype=float)

    def of(self, response: str) -> int:
        return response.count(self._letter) if self._letter else len(set(response))

    def close(self) -> None:
        pass


REWARDS: dict[str, Line] = {"as": lambda: Letters("as", "a"), "variety": lambda: Letters("variety")}


def save(folder: Path) -> Path:
    """A model of two tokens per answer over four letters, the same weights at every call."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["</s>", *LETTERS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=END,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    return folder


def task(folder: Path, **changes: Any) -> Task:
    told: dict[str, Any] = {
        "model": str(folder),
        "prompts": PROMPTS,
        "sampling": SAMPLING,
        "rewards": REWARDS,
        "dtype": "float32",
        "device": "cpu",
    }
    return Task(**{**told, **changes})


def pilot(model: Path, folder: Path, k: int, *, sampling: Sampling = SAMPLING, seed: int = 0) -> Pilot:
    """Scored answers of the model, drawn and measured as a study does."""
    engine = open_engine(str(model), dtype="float32", device="cpu")
    sample(engine, PROMPTS, folder, k=k, sampling=sampling, seed=seed, quiet=True)
    engine.close()
    return score(folder, REWARDS, quiet=True)


class Law:
    """The chance of every answer to each prompt under a model, exactly: (prompts, answers)."""

    answers: ClassVar = [[END], *([x, y] for x, y in product(range(1, 5), range(5)))]

    def __init__(self, model: str | Path) -> None:
        import torch

        engine = open_engine(str(model), dtype="float32", device="cpu")
        loaded = engine.loaded  # type: ignore[attr-defined]
        padded = torch.tensor([answer + [END] * (2 - len(answer)) for answer in self.answers])
        logs: list[Array] = []
        self.texts: list[str] = []
        for prompt in PROMPTS:
            read = engine.encode(prompt, SAMPLING)  # type: ignore[attr-defined]
            self.texts = [engine.decode(read, answer) for answer in self.answers]  # type: ignore[attr-defined]
            ids = torch.cat([torch.tensor([read] * len(padded)), padded], dim=1)
            with torch.inference_mode():
                chances = loaded.model(ids).logits.double().log_softmax(-1)[:, len(read) - 1 : -1]
            each = chances.gather(-1, padded[..., None])[..., 0].numpy()
            shown = np.array([[True, len(answer) == 2] for answer in self.answers])
            logs.append((each * shown).sum(axis=1))
        self.logs = np.array(logs)

    @cached_property
    def chances(self) -> Array:
        return np.exp(self.logs)

    def features(self, name: str) -> Array:
        return Letters(name, "a" if name == "as" else "").score([], self.texts)[:, 0]

    def tilted(self, weights: Mapping[str, float]) -> Array:
        """log of p0·exp(λᵀf)/Z(x)."""
        raised = self.logs + sum(weight * self.features(name) for name, weight in weights.items())
        return raised - np.log(np.exp(raised).sum(axis=1, keepdims=True))

    def level(self, name: str) -> float:
        return float((self.chances @ self.features(name)).mean())

    def kl(self, target: Array) -> float:
        """KL(this ‖ target), the mean over prompts."""
        return float((self.chances * (self.logs - target)).sum(axis=1).mean())
