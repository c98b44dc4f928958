"""One id in, one engine out."""

from __future__ import annotations

from valuepalette.engines import Engine
from valuepalette.engines.loading import load_causal_lm
from valuepalette.engines.openai import OpenAIEngine
from valuepalette.engines.transformers import TransformersEngine
from valuepalette.engines.vllm import VLLMEngine
from valuepalette.requesting import Limits

__all__ = ["open_engine"]


def open_engine(
    id: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    template: str = "own",
    batch_rows: int = 128,
    base_url: str | None = None,
    limits: Limits | None = None,
) -> Engine:
    """Opens the engine that an id names.

    `embedded:<name>` is the model that installs offline, `hf:<hub id>` a model of the Hugging Face hub,
    `openai:<model>` one behind a server at `base_url`, asked within `limits`, `vllm:<model>` one that vLLM runs in
    this process; otherwise the id is a folder, a `*.gguf` file, or a hub id, tried in this order. `dtype` and
    `device` are explained at `valuepalette.engines.loading.load_causal_lm`, the rest at the modules of
    `valuepalette.engines`: `transformers`, `openai` and `vllm`.
    """
    scheme, colon, rest = id.partition(":")
    if colon and scheme == "openai":
        return OpenAIEngine(rest, base_url=base_url, template=template, limits=limits)
    if base_url is not None:
        raise ValueError(f"base_url goes with openai:<model>, got {base_url!r} and {id!r}")
    if colon and scheme == "vllm":
        if device is not None:
            raise ValueError(
                f"device must be left out with vllm:, which takes the GPUs it sees; got {device!r}"
            )
        return VLLMEngine(rest, template=template, dtype=dtype)
    return TransformersEngine(
        load_causal_lm(id, dtype=dtype, device=device), template=template, batch_rows=batch_rows
    )
