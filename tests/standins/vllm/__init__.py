"""A stand-in for vLLM's asynchronous engine, for a cluster's nodes: the names that Ray Data's LLM processor uses.

It draws what `standin_vllm` draws. STANDIN_TOLD names a file that is told what engines are made with, STANDIN_DIES
one that is made when an engine's process dies, once.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoTokenizer

import standin_vllm

__version__ = "0.0"


@dataclass
class SamplingParams(standin_vllm.SamplingParams):
    structured_outputs: Any = None


@dataclass
class Logprob:
    logprob: float


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[Any] = field(default_factory=list)
    finished: bool = True
    prompt: str | None = None
    metrics: Any = None
    prompt_logprobs: Any = None


class PoolingRequestOutput:
    """There to be told from the above."""


outputs = SimpleNamespace(RequestOutput=RequestOutput, PoolingRequestOutput=PoolingRequestOutput)


class AsyncEngineArgs:
    def __init__(self, **options: Any) -> None:
        self.options = options

    def create_engine_config(self) -> Any:
        return SimpleNamespace(
            scheduler_config=SimpleNamespace(max_num_seqs=8),
            parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        )


class AsyncLLMEngine:
    def __init__(self, options: dict[str, Any]) -> None:
        told = os.environ.get("STANDIN_TOLD")
        if told:
            with Path(told).open("a") as file:
                file.write(json.dumps(options) + "\n")
        self.tokenizer = AutoTokenizer.from_pretrained(options["model"])

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs, stat_loggers: Any = None) -> AsyncLLMEngine:
        assert stat_loggers is None
        return cls(args.options)

    async def generate(
        self, *, request_id: str, prompt: Any, sampling_params: SamplingParams, lora_request: Any
    ) -> AsyncIterator[RequestOutput]:
        assert lora_request is None
        mark = os.environ.get("STANDIN_DIES")
        if mark and not Path(mark).exists() and request_id == "3":
            Path(mark).touch()
            os._exit(1)
        found: Any = standin_vllm.drawn(self.tokenizer, prompt["prompt_token_ids"], sampling_params)
        found.logprobs = None
        if sampling_params.logprobs is not None:
            found.logprobs = [{5: Logprob(-0.1), token: Logprob(-1.5)} for token in found.token_ids]
        yield RequestOutput(prompt["prompt_token_ids"], [found])

    async def do_log_stats(self) -> None:
        pass

    def shutdown(self) -> None:
        pass
