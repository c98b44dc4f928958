"""Hugging Face checkpoints that score text: named, fingerprinted, loaded when first needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines.embedded import digest
from valuepalette.engines.loading import PRECISIONS, quiet
from valuepalette.rewards.batching import by_length

__all__ = ["Checkpoint", "Row", "needs_models"]

Row = dict[str, list[int]]
"""A text as the tokenizer hands it to the model: `input_ids`, `attention_mask`, perhaps `token_type_ids`."""


def needs_models() -> None:
    """Raises ModuleNotFoundError with the command that installs what runs a model, where that is missing."""
    for module in ("torch", "transformers"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(
                f'scoring by a model needs {module}: pip install "valuepalette[models]"', name=module
            )


@dataclass(frozen=True)
class Checkpoint:
    """A model by its id or folder.

    Weights are read from safetensors files alone unless `pickle` is chosen, and code that comes with a model is
    run only where `remote_code` is: both run what the model's author wrote. `dtype` is one of float32, bfloat16
    and float16; `device` is torch's name of one, a GPU where there is one by default.
    """

    id: str
    revision: str | None = None
    dtype: str = "float32"
    device: str | None = None
    pickle: bool = False
    remote_code: bool = False

    def __post_init__(self) -> None:
        if not self.id or not isinstance(self.id, str):
            raise ValueError(f"model must be a Hugging Face id or a folder; got {self.id!r}")
        if self.dtype not in PRECISIONS:
            raise ValueError(f"dtype must be one of {', '.join(PRECISIONS)}; got {self.dtype!r}")

    @cached_property
    def config(self) -> Any:
        needs_models()
        from transformers import AutoConfig

        return self._pretrained(AutoConfig)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, padding on the right, with a padding token where the model brings none."""
        needs_models()
        from transformers import AutoTokenizer

        tokenizer = self._pretrained(AutoTokenizer)
        tokenizer.padding_side = "right"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer

    @property
    def max_tokens(self) -> int:
        """The longest input in tokens: the smaller of what tokenizer and model say."""
        positions = getattr(self.config, "max_position_embeddings", None) or 1_000_000
        if getattr(self.config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
            positions -= 2  # these number their positions from 2
        return int(min(self.tokenizer.model_max_length, positions))

    @cached_property
    def fingerprint(self) -> str:
        """The id, what pins it (the hub's commit, or a SHA-256 of the folder's files), and the precision."""
        folder = Path(self.id)
        pinned = (
            _digest(folder) if folder.is_dir() else getattr(self.config, "_commit_hash", None) or "unknown"
        )
        return f"{self.id}@{pinned[:12]} {self.dtype}"

    def load(self, auto_class: str) -> Any:
        """The model, as transformers' `auto_class` reads it, on its device and ready to score."""
        needs_models()
        import torch
        import transformers

        model = self._pretrained(
            getattr(transformers, auto_class),
            dtype=getattr(torch, self.dtype),
            use_safetensors=None if self.pickle else True,
        )
        if hasattr(model.config, "pad_token_id"):
            model.config.pad_token_id = self.tokenizer.pad_token_id
        model.requires_grad_(False)
        return model.to(self.device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None, **options: Any) -> list[Row]:
        """Each text, or each pair of texts, as a row; cut to what the model takes."""
        options = {"truncation": True, "max_length": self.max_tokens, **options}
        encoded = self.tokenizer(list(texts), None if pairs is None else list(pairs), **options)
        return [{key: encoded[key][i] for key in encoded} for i in range(len(texts))]

    def run(
        self,
        model: Any,
        rows: Sequence[Row],
        take: Callable[[Any, Any], Any],
        *,
        batch_size: int,
    ) -> NDArray[np.float64]:
        """`take(outputs, attention_mask)` of every row, shape (rows, width); batches are of like length."""
        import torch

        numbers: NDArray[np.float64] | None = None
        pads = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        with torch.inference_mode():
            for batch in by_length([len(row["input_ids"]) for row in rows], batch_size):
                chosen = [rows[i] for i in batch]
                wide = max(len(row["input_ids"]) for row in chosen)
                inputs = {
                    key: torch.tensor(
                        [row[key] + [pads.get(key, 0)] * (wide - len(row[key])) for row in chosen]
                    )
                    for key in chosen[0]
                }
                inputs = {key: tensor.to(model.device) for key, tensor in inputs.items()}
                taken = take(model(**inputs), inputs["attention_mask"]).double().cpu().numpy()
                if numbers is None:
                    numbers = np.empty((len(rows), taken.shape[1]))
                numbers[batch] = taken
        return np.empty((0, 0)) if numbers is None else numbers

    def _pretrained(self, auto_class: Any, **options: Any) -> Any:
        try:
            with quiet():
                return auto_class.from_pretrained(
                    self.id, revision=self.revision or "main", trust_remote_code=self.remote_code, **options
                )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            hint = "" if self.pickle else " (weights that are not safetensors need pickle = true)"
            raise ValueError(
                f"model must be a Hugging Face id or a folder that can be loaded; got {self.id!r}: {reason}{hint}"
            ) from error


def _digest(folder: Path) -> str:
    """One SHA-256 over settings, tokenizer and weights."""
    kinds = {".json", ".safetensors", ".bin", ".txt", ".model", ".jinja"}
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in kinds:
            total.update(f"{path.name} {digest(path)}\n".encode())
    return total.hexdigest()
