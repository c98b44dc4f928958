"""vLLM on a cluster, by Ray Data's own LLM processor: its config and its rows are ours, the rest is Ray's.

A row is one candidate: the tokens of its prompt, and its sampling settings with a seed of its own, the very ones that
`valuepalette.engines.vllm` hands over. Answers come back in any order; a shard whose answers are all there is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from valuepalette.clusters.actors import Cluster, silent
from valuepalette.distributing import connected
from valuepalette.engines import Candidate, Sampling
from valuepalette.engines.drawing import candidate_key
from valuepalette.engines.loading import hub_commit, locate, quiet
from valuepalette.engines.templating import chat_template, encode, short_digest
from valuepalette.engines.vllm import PRECISIONS, engine_options, sampling_options
from valuepalette.parts import Shard, write_shard

__all__ = ["ProcessorEngine"]

BATCH = 64
"""Rows that an engine is handed at a time; it holds eight such batches at once."""


@dataclass(frozen=True)
class ProcessorEngine:
    """A causal language model that vLLM runs on the GPUs of a cluster; a `valuepalette.collecting.Drawer`.

    model, template  as for `valuepalette.engines.vllm.VLLMEngine`; a folder lies at the same path on every node
    dtype            "float32", "bfloat16" or "float16": what the model's settings say is known only where it runs
    cluster          its `actors` are engines, each on as many GPUs as `options` ask for; None for all GPUs there are
    options          go to vLLM's engine as they are: `tensor_parallel_size`, `max_model_len`

    Raises ModuleNotFoundError where vLLM is missing here, ValueError where the model or the precision does not suit.
    """

    model: str
    cluster: Cluster
    template: str = "own"
    dtype: str | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise ValueError(
                f"dtype must be told with vllm: on a cluster, one of {', '.join(PRECISIONS)}, got {self.dtype!r}"
            )
        if "gguf_file" in self._source.options:
            raise ValueError(
                f"model must be a Hugging Face id or a folder where vLLM runs it, got {self.model!r}"
            )

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """As `VLLMEngine` has it."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> Mapping[str, str]:
        try:
            release = version("vllm")
        except PackageNotFoundError:
            raise ModuleNotFoundError(
                'a model that vLLM runs needs vllm, here as on every node: pip install "valuepalette[vllm,ray]"',
                name="vllm",
            ) from None
        reader = _reader(self._source.path, self.template, self._most)
        return {
            "model": self._source.name,
            "revision": self._source.revision or hub_commit(self._source.path),
            "template": short_digest(reader.template),
            "dtype": str(self.dtype),
            "engine": f"vllm {release}",
        }

    def config(self) -> Any:
        """The processor's settings. Prompts come as tokens and vLLM words its answers, so its own stages are off."""
        from ray.data.llm import vLLMEngineProcessorConfig

        told = engine_options(self.dtype, self.options)
        each = told.get("tensor_parallel_size", 1) * told.get("pipeline_parallel_size", 1)
        engines = self.cluster.actors or max(1, self.cluster.count // each)
        return vLLMEngineProcessorConfig(
            model_source=self._source.path,
            engine_kwargs=told,
            concurrency=(engines, engines),
            batch_size=BATCH,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
            log_engine_metrics=False,
        )

    def draw_shards(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Draws shards on the cluster and writes their parts from here.

        Raises ValueError where a prompt does not suit the model, before any is drawn.
        """
        if not shards:
            return
        reader = _reader(self._source.path, self.template, self._most)
        for shard in shards:
            reader.read(shard)
        ray = connected()
        from ray.data import from_items
        from ray.data.llm import build_processor

        rows = [{"shard": at, "item": ray.cloudpickle.dumps(shard)} for at, shard in enumerate(shards)]
        requests = _Requests(self._source.path, self.template, self._most)
        answers: dict[int, dict[int, Candidate]] = {}
        left = len(shards)
        with silent():
            processor: Any = build_processor(self.config(), postprocess=_Answer(self._source.path))
            drawn = processor(from_items(rows, override_num_blocks=len(rows)).flat_map(requests))
            for row in drawn.iter_rows():
                at, shard = row["shard"], shards[row["shard"]]
                own = answers.setdefault(at, {})
                own[row["row"]] = _candidate(row, shard.sampling, shard.logprobs)
                if len(own) == shard.k * len(shard.prompts):
                    ordered = [own[i] for i in range(len(own))]
                    write_shard(shard, [ordered[i : i + shard.k] for i in range(0, len(own), shard.k)])
                    del answers[at]
                    left -= 1
                    yield shard
        if left:
            raise RuntimeError(
                f"Ray's processor left {left} of {len(shards)} shards without all of their answers"
            )

    def close(self) -> None:
        """Nothing: the engines end with their pass."""

    @cached_property
    def _source(self) -> Any:
        return locate(self.model)

    @property
    def _most(self) -> int | None:
        return (self.options or {}).get("max_model_len")


@dataclass(frozen=True)
class _Requests:
    """From a shard to a row for each candidate."""

    path: str
    template: str
    most: int | None

    def __call__(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        reader = _reader(self.path, self.template, self.most)
        shard: Shard = connected().cloudpickle.loads(row["item"])
        rows: list[dict[str, Any]] = []
        for index, (prompt, ids) in enumerate(zip(shard.prompts, reader.read(shard), strict=True)):
            for candidate in range(shard.k):
                told = sampling_options(
                    shard.sampling, candidate_key(shard.seed, prompt, candidate), shard.logprobs
                )
                # What ended an answer is not told, but shows where the text still has it.
                told["include_stop_str_in_output"] = True
                rows.append(
                    {
                        "shard": row["shard"],
                        "row": index * shard.k + candidate,
                        "tokenized_prompt": ids,
                        # Ray's tables know no type for what is empty.
                        "sampling_params": {
                            name: entry for name, entry in told.items() if entry not in (None, [])
                        },
                    }
                )
        return rows


@dataclass(frozen=True)
class _Answer:
    """What is kept of an answer as Ray's stage gives it; `ended` where its last token is one that ends answers."""

    path: str

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        tokens = [int(token) for token in row["generated_tokens"]]
        chances = row.get("logprobs")
        return {
            "shard": row["shard"],
            "row": row["row"],
            "text": row["generated_text"],
            "tokens": len(tokens),
            "ended": bool(tokens) and tokens[-1] in _reader(self.path, "none", None).ends,
            "logprob": None
            if chances is None
            else sum(own[token]["logprob"] for own, token in zip(chances, tokens, strict=True)),
        }


def _candidate(row: Mapping[str, Any], sampling: Sampling, logprobs: bool) -> Candidate:
    """An answer as the engine on one machine words it: without the stop text that ended it."""
    text, tokens = row["text"], int(row["tokens"])
    stop = next((stop for stop in sampling.stop if text.endswith(stop)), "")
    if not (stop or row["ended"] or tokens == sampling.max_new_tokens):
        raise ValueError(f"vLLM must finish an answer by stop or length, got {tokens} tokens without an end")
    return Candidate(
        text=text[: len(text) - len(stop)],
        tokens=tokens,
        finish_reason="stop" if stop or row["ended"] else "length",
        logprob=float(row["logprob"]) if logprobs else None,
    )


@dataclass(frozen=True)
class _Reader:
    """How a model reads prompts and which tokens end its answers, by its files alone."""

    tokenizer: Any
    template: str | None
    limit: int | None
    ends: frozenset[int]

    def read(self, shard: Shard) -> list[list[int]]:
        """The tokens of each prompt."""
        return [
            encode(self.tokenizer, self.template, shard.first + index, prompt, shard.sampling, self.limit)
            for index, prompt in enumerate(shard.prompts)
        ]


@lru_cache(maxsize=2)
def _reader(path: str, template: str, most: int | None) -> _Reader:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    with quiet():
        tokenizer, settings = AutoTokenizer.from_pretrained(path), AutoConfig.from_pretrained(path)
        try:
            ends = GenerationConfig.from_pretrained(path).eos_token_id
        except OSError:
            ends = None
    found = {tokenizer.eos_token_id, *([ends] if isinstance(ends, int) else ends or [])}
    limit = most or getattr(settings.get_text_config(), "max_position_embeddings", None)
    return _Reader(tokenizer, chat_template(tokenizer, template), limit, frozenset(found - {None}))
