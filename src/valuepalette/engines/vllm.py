"""Sampling by vLLM in this process: offline batches on a GPU, all prompts and candidates in one call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from valuepalette.engines import Candidate, Prompt, Sampling
from valuepalette.engines.drawing import candidate_key
from valuepalette.engines.loading import hub_commit, locate
from valuepalette.engines.templating import chat_template, encode, short_digest

__all__ = ["VLLMEngine", "engine_options", "sampling_options"]

PRECISIONS = ("float32", "bfloat16", "float16")


class VLLMEngine:
    """Draws candidates from a causal language model that vLLM runs in this process.

    `model` is a Hugging Face id, `hf:<id>`, a folder, or `embedded:<name>`; `template` is as for
    `valuepalette.engines.transformers.TransformersEngine`, and prompts reach the model as the same tokens. `dtype`
    is "float32", "bfloat16", "float16", or None for what the model's settings say. `options` go to `vllm.LLM` as
    they are: `tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`.

    Each candidate is a request with a seed of its own, by (seed, prompt, index); the prompt they share is computed
    once, since prefixes are cached. vLLM does not promise the same bits in another batch, so a draw may differ where
    two tokens all but tie, in half precision above all.

    Raises ModuleNotFoundError with the command where vLLM is missing, ValueError where it cannot run the model.
    """

    def __init__(
        self,
        model: str,
        *,
        template: str = "own",
        dtype: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not model:
            raise ValueError("model must be vllm:<a Hugging Face id or a folder>, got vllm:")
        if dtype is not None and dtype not in PRECISIONS:
            raise ValueError(f"dtype must be one of {', '.join(PRECISIONS)}, got {dtype!r}")
        if find_spec("vllm") is None:
            raise ModuleNotFoundError(
                'a model that vLLM runs needs vllm: pip install "valuepalette[vllm]"', name="vllm"
            )
        source = locate(model)
        if "gguf_file" in source.options:
            raise ValueError(f"model must be a Hugging Face id or a folder where vLLM runs it, got {model!r}")
        self._vllm = importlib.import_module("vllm")
        try:
            self._llm: Any = self._vllm.LLM(
                model=source.path,
                **engine_options(dtype, options),
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"model must be one that vLLM can run here, got {model!r}: {reason}") from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._template = chat_template(self._tokenizer, template)
        settings = self._llm.llm_engine.model_config
        self._limit: int = settings.max_model_len
        self._fingerprint = {
            "model": source.name,
            "revision": source.revision or hub_commit(source.path),
            "template": short_digest(self._template),
            "dtype": str(settings.dtype).removeprefix("torch."),
            "engine": f"vllm {self._vllm.__version__}",
        }

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Model id, revision, precision, template, and the version of vLLM."""
        return dict(self._fingerprint)

    def sample(
        self,
        prompts: Sequence[Prompt],
        k: int,
        *,
        sampling: Sampling,
        seed: int,
        logprobs: bool = False,
    ) -> list[list[Candidate]]:
        """`k` candidates for each prompt, in order; see `valuepalette.engines.Engine`. One call of vLLM.

        Raises ValueError where a prompt does not suit the model, as the transformers engine does.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if self._llm is None:
            raise ValueError(f"engine must be open, got the closed engine of {self._fingerprint['model']}")
        inputs = [
            encode(self._tokenizer, self._template, index, prompt, sampling, self._limit)
            for index, prompt in enumerate(prompts)
        ]
        if not inputs:
            return []
        requests = [
            (ids, candidate_key(seed, prompt, index))
            for prompt, ids in zip(prompts, inputs, strict=True)
            for index in range(k)
        ]
        outputs = self._llm.generate(
            [{"prompt_token_ids": ids} for ids, _ in requests],
            [self._vllm.SamplingParams(**sampling_options(sampling, key, logprobs)) for _, key in requests],
            use_tqdm=False,
        )
        if len(outputs) != len(requests):
            raise ValueError(f"vLLM must answer each of {len(requests)} requests, got {len(outputs)}")
        drawn = [_candidate(output.outputs[0], logprobs) for output in outputs]
        return [drawn[first : first + k] for first in range(0, len(drawn), k)]

    def close(self) -> None:
        """Lets go of the model; its memory is free once nobody else holds it."""
        self._llm = None


def engine_options(dtype: str | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """What vLLM's engine is told, wherever it runs; `options` come last."""
    return {
        "dtype": dtype or "auto",
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",  # before temperature and truncation
        "seed": 0,
        **(options or {}),
    }


def sampling_options(sampling: Sampling, key: int, logprobs: bool) -> dict[str, Any]:
    """What vLLM is told of one candidate, by its key."""
    return {
        "n": 1,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k or -1,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
        "seed": key % 2**63,
        "logprobs": 0 if logprobs else None,
    }


def _candidate(output: Any, logprobs: bool) -> Candidate:
    """What vLLM drew for one request."""
    if output.finish_reason not in ("stop", "length"):
        raise ValueError(f"vLLM must finish an answer by stop or length, got {output.finish_reason}")
    if logprobs and output.cumulative_logprob is None:
        raise ValueError("vLLM gave no log-probability, which logprobs = true needs")
    return Candidate(
        text=output.text,
        tokens=len(output.token_ids),
        finish_reason=output.finish_reason,
        logprob=float(output.cumulative_logprob) if logprobs else None,
    )
