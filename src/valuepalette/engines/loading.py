"""Loading causal language models of Hugging Face: any hub id, folder or GGUF file, and the embedded one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuepalette.engines.embedded import EMBEDDED, converted, digest

if TYPE_CHECKING:
    import torch

__all__ = ["LoadedModel", "Source", "fastest_precision", "hub_commit", "load_causal_lm", "locate", "quiet"]

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model in memory, its tokenizer, and what makes it this model and no other.

    `model` is a `transformers.PreTrainedModel` in evaluation mode on its device, `tokenizer` its tokenizer.
    """

    model: Any
    tokenizer: Any
    fingerprint: Mapping[str, str]


def load_causal_lm(model_id: str, *, dtype: str | None = None, device: str | None = None) -> LoadedModel:
    """Loads a causal language model by its id.

    `model_id` is `embedded:<name>`, `hf:<hub id>`, a folder, a `*.gguf` file, or a hub id, tried in this
    order. `dtype` is "float32", "bfloat16" or "float16"; None takes what the device does fastest, and float32
    for an embedded model, so that it is the same everywhere. `device` is a torch device such as "cpu" or
    "cuda:0"; None takes a GPU where there is one.

    The fingerprint holds the `model` (an id, or the name of the folder or file), its `revision` (the hub's
    commit, or a SHA-256 of the files) and its `dtype`, the precision. Raises ValueError where the id leads to no
    causal language model, and ModuleNotFoundError with the command that installs what is missing.
    """
    torch = _torch()
    place = _place(device)
    precision = dtype or ("float32" if model_id.startswith("embedded:") else fastest_precision(place))
    if precision not in PRECISIONS:
        raise ValueError(f"dtype must be one of {', '.join(PRECISIONS)}, got {dtype!r}")
    source = locate(model_id)
    options = dict(source.options)

    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.path, **options)
            if "gguf_file" in options:
                from transformers import GgufConfig

                # Packed weights load ten times slower, and can be neither saved nor trained.
                options["quantization_config"] = GgufConfig(dequantize=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                source.path, dtype=getattr(torch, precision), **options
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"model must be a causal language model (embedded:<name>, a folder, a *.gguf file or a "
                f"Hugging Face id), got {model_id!r}: {reason[:300]}"
            ) from error
    model.requires_grad_(False).eval().to(place)
    revision = source.revision or hub_commit(source.path)
    return LoadedModel(model, tokenizer, {"model": source.name, "revision": revision, "dtype": precision})


def _place(device: str | None) -> torch.device:
    torch = _torch()
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device must be one that torch has here, such as cpu or cuda:0, got {device!r}: {reason}"
        ) from error
    return place


def fastest_precision(device: torch.device) -> str:
    """The precision a device computes fastest in, by what it has instructions for.

    On a CPU without bfloat16 instructions a matrix product of 128 rows takes 8 times longer in bfloat16.
    """
    torch = _torch()
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()
        return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"
    return "float32"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model lies, how it is loaded from there, and what it is called wherever it lies.

    `revision` is None for a model of the hub, whose commit is known once it is loaded.
    """

    name: str
    path: str
    options: Mapping[str, Any]
    revision: str | None


def locate(model_id: str) -> Source:
    """Where the model of an id lies. Raises ValueError where that cannot be."""
    scheme, colon, rest = model_id.partition(":")
    local = {"local_files_only": True}
    if colon and scheme == "embedded":
        return Source(model_id, str(converted(rest)), local, f"sha256:{EMBEDDED[rest].sha256}")
    if colon and scheme == "hf":
        return Source(rest, rest, {}, None)
    path = Path(model_id).expanduser()
    if path.is_dir():
        return Source(path.resolve().name, str(path), local, f"sha256:{_folder_digest(path)}")
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"model must be an existing *.gguf file, got {model_id!r}")
        _need("gguf")
        _need("accelerate")
        options = {**local, "gguf_file": path.name}
        return Source(path.name, str(path.parent), options, f"sha256:{digest(path)}")
    return Source(model_id, model_id, {}, None)


def hub_commit(hub_id: str) -> str:
    """The commit of a model of the hub that has just been loaded: what its snapshot in the cache is named by."""
    from transformers.utils.hub import cached_file

    settings = cached_file(hub_id, "config.json", local_files_only=True)
    return Path(str(settings)).parent.name


def _folder_digest(folder: Path) -> str:
    """One SHA-256 over the files that make the model, by name: weights, settings, tokenizer."""
    kinds = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in kinds:
            total.update(f"{path.name} {digest(path)}\n".encode())
    return total.hexdigest()


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(
            f'running a language model needs {module}: pip install "valuepalette[models]"', name=module
        )


def _torch() -> Any:
    """Imports torch, or says how to install it.

    Threads that spin while they wait for each other make two of them many times slower than one on a busy
    machine, so unless the user has decided otherwise OpenMP is asked, before it loads, to wait passively.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _need("torch")
    _need("transformers")
    import torch

    return torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the progress bars and remarks of transformers off the terminal while a model loads."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
