"""Rewarded soups: a model whose every number is a weighted average of other models' (Rame et al., 2023)."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["soup"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def soup(models: Mapping[str | os.PathLike[str], float], folder: str | os.PathLike[str]) -> Path:
    """Writes Σ share·model to `folder`, one file of weights at a time, so that a model need not fit in memory.

    models  folders of models saved by `save_pretrained` as safetensors, and the share of each; shares sum to one.
            All have the same tensors, of the same shapes. LoRA adapters are merged into their model first
    folder  what the first model's folder holds is copied there, with the weights replaced

    Sums are in float32 and saved in the first model's precision. Raises ValueError naming the tensor that differs.

    >>> soup({"helpful": 0.5}, "out")
    Traceback (most recent call last):
    ...
    ValueError: models must have shares that sum to 1, got 0.5
    """
    sources = {Path(model): float(share) for model, share in models.items()}
    total = math.fsum(sources.values())
    if not math.isclose(total, 1.0, abs_tol=1e-9):
        raise ValueError(f"models must have shares that sum to 1, got {total:g}")
    placed = {source: _tensors(source) for source in sources}
    first, others = next(iter(sources)), list(sources)[1:]
    for other in others:
        if differ := set(placed[first]) ^ set(placed[other]):
            raise ValueError(
                f"models must have the same tensors; {min(differ)!r} is in one of {first} and {other} alone"
            )
    out = Path(folder)
    if out.resolve() in [source.resolve() for source in sources]:
        raise ValueError(f"folder must not be one of the models, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(placed[first].values()):
        _write(first, name, sources, placed, out)
    weights = {*placed[first].values()}
    for path in first.iterdir():
        if path.is_file() and path.name not in weights:
            shutil.copyfile(path, out / path.name)
    return out


def _tensors(folder: Path) -> dict[str, str]:
    """The file that holds each tensor of a model."""
    from safetensors import safe_open

    if (folder / _INDEX).is_file():
        return json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
    if not (folder / _SINGLE).is_file():
        raise ValueError(f"models must be folders with {_SINGLE} or {_INDEX}, got {folder}")
    with safe_open(folder / _SINGLE, framework="pt") as file:
        return dict.fromkeys(file.keys(), _SINGLE)


def _write(
    first: Path,
    name: str,
    sources: Mapping[Path, float],
    placed: Mapping[Path, Mapping[str, str]],
    out: Path,
) -> None:
    """One file of weights of the soup, tensors placed as in the first model."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(first / name, framework="pt") as file:
        metadata = file.metadata()
    mixed: dict[str, Any] = {}
    for tensor in (key for key, place in placed[first].items() if place == name):
        parts = [_read(source / placed[source][tensor], tensor) for source in sources]
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"models must have tensors of the same shapes; {tensor!r} has {shapes}")
        mixed[tensor] = _mean(parts, list(sources.values()))
    partial = out / f"{name}.partial"
    save_file(mixed, partial, metadata=metadata)
    partial.replace(out / name)


def _read(path: Path, tensor: str) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(tensor)


def _mean(parts: Sequence[Any], shares: Sequence[float]) -> Any:
    if not parts[0].is_floating_point():
        return parts[0]
    total: Any = sum(share * part.float() for share, part in zip(shares, parts, strict=True))
    return total.to(parts[0].dtype).contiguous()
