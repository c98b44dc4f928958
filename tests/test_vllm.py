"""The engine on vLLM: what is handed over, shown on a stand-in with vLLM's public names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import standin_vllm
from tiny import save_tiny
from valuepalette.engines import Sampling
from valuepalette.engines.drawing import candidate_key
from valuepalette.engines.opening import open_engine
from valuepalette.engines.vllm import VLLMEngine

pytestmark = pytest.mark.models
SHORT = Sampling(max_new_tokens=6)
PROMPTS: list[Any] = ["Hi", [{"role": "user", "content": "A cat?"}]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {"base": save_tiny(root / "base"), "chat": save_tiny(root / "chat", chat=True)}


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    standin = standin_vllm.module()
    monkeypatch.setitem(sys.modules, "vllm", standin)
    return standin


def test_one_call_for_all_prompts_and_candidates(vllm: Any, folders: dict[str, Path]) -> None:
    engine = open_engine(f"vllm:{folders['chat']}", dtype="bfloat16")
    sampling = Sampling(max_new_tokens=6, temperature=0.7, top_k=0, top_p=0.9, stop=("END",))
    drawn = engine.sample(PROMPTS, 3, sampling=sampling, seed=5)
    assert [len(own) for own in drawn] == [3, 3]
    (llm,) = vllm.made
    assert llm.options == {
        "dtype": "bfloat16",
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "seed": 0,
    }
    ((prompts, parameters),) = llm.calls
    assert len(prompts) == 6
    assert prompts[0] == prompts[1] == prompts[2] != prompts[3]
    keys = [candidate_key(5, prompt, index) % 2**63 for prompt in PROMPTS for index in range(3)]
    assert [own.seed for own in parameters] == keys
    assert {(own.n, own.temperature, own.top_k, own.top_p, own.max_tokens) for own in parameters} == {
        (1, 0.7, -1, 0.9, 6)
    }
    assert parameters[0].stop == ["END"]
    assert parameters[0].logprobs is None


@pytest.mark.parametrize("system", [None, "Be rude!"])
@pytest.mark.parametrize("template", ["own", "none", "{{ messages[0]['content'] }}:"])
def test_prompts_reach_the_model_as_those_of_transformers_do(
    vllm: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, template: str, system: str | None
) -> None:
    from valuepalette.engines import generation

    seen: list[list[int]] = []

    def generate(model: Any, inputs: list[list[int]], keys: Any, *_: Any, **__: Any) -> Any:
        seen.extend(inputs)
        return [[generation.Answer([5], True, -1.0)] * len(own) for own in keys]

    monkeypatch.setattr(generation, "generate", generate)
    sampling = Sampling(max_new_tokens=6, system_prompt=None if template == "none" else system)
    prompts = PROMPTS[:1] if template == "none" else PROMPTS
    other = open_engine(str(folders["chat"]), template=template, device="cpu")
    other.sample(prompts, 1, sampling=sampling, seed=0)
    engine = open_engine(f"vllm:{folders['chat']}", template=template)
    engine.sample(prompts, 1, sampling=sampling, seed=0)
    handed = [prompt["prompt_token_ids"] for prompt in vllm.made[0].calls[0][0]]
    assert sorted(handed) == sorted(seen)
    assert engine.fingerprint["template"] == other.fingerprint["template"]
    assert engine.fingerprint["revision"] == other.fingerprint["revision"]


def test_what_comes_back(vllm: Any, folders: dict[str, Path]) -> None:
    engine = VLLMEngine(
        str(folders["base"]), options={"tensor_parallel_size": 2, "enable_prefix_caching": False}
    )
    assert vllm.made[0].options["tensor_parallel_size"] == 2
    assert vllm.made[0].options["enable_prefix_caching"] is False
    assert engine.fingerprint == {
        "model": "base",
        "revision": engine.fingerprint["revision"],
        "template": "none",
        "dtype": "float32",
        "engine": "vllm 0.0",
    }
    (own,) = engine.sample(["Hi"], 8, sampling=SHORT, seed=0, logprobs=True)
    assert all(each.logprob == -1.5 * each.tokens for each in own)
    assert all((each.finish_reason == "length") == (each.tokens == 6) for each in own)
    assert vllm.made[0].calls[0][1][0].logprobs == 0
    vllm.made[0].reason = "abort"
    with pytest.raises(ValueError, match="finish an answer by stop or length, got abort"):
        engine.sample(["Hi"], 1, sampling=SHORT, seed=0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda engine: engine.sample(["Hi", ""], 1, sampling=SHORT, seed=0),
            r"prompts\[1\] must hold at least one",
        ),
        (
            lambda engine: engine.sample(["x" * 251], 1, sampling=SHORT, seed=0),
            r"in a context of 256, got 251",
        ),
        (
            lambda engine: engine.sample([PROMPTS[1]], 1, sampling=SHORT, seed=0),
            "must be text for a model without",
        ),
        (lambda engine: engine.sample(["Hi"], 0, sampling=SHORT, seed=0), "k must be at least 1, got 0"),
        (
            lambda engine: (engine.close(), engine.sample(["Hi"], 1, sampling=SHORT, seed=0)),
            "the closed engine of base",
        ),
    ],
)
def test_what_cannot_be_sampled(
    vllm: Any, folders: dict[str, Path], ask: Callable[[Any], Any], said: str
) -> None:
    engine = VLLMEngine(str(folders["base"]))
    with pytest.raises(ValueError, match=said) as caught:
        ask(engine)
    assert "\n" not in str(caught.value)
    assert not vllm.made[0].calls


def test_what_cannot_be_opened(vllm: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    broken, gguf = tmp_path / "broken", tmp_path / "model.gguf"
    broken.mkdir()
    gguf.touch()
    for id, options, said in (
        ("vllm:", {}, "got vllm:"),
        (
            f"vllm:{broken}",
            {},
            "must be one that vLLM can run here, .* Engine core initialization failed. See",
        ),
        (f"vllm:{gguf}", {}, "a Hugging Face id or a folder where vLLM runs it"),
        (f"vllm:{folders['base']}", {"dtype": "int3"}, "dtype must be one of float32, bfloat16, float16"),
        (f"vllm:{folders['base']}", {"device": "cuda:1"}, "device must be left out with vllm:"),
        (f"vllm:{folders['base']}", {"base_url": "http://host"}, "base_url goes with openai:"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            open_engine(id, **options)
        assert "\n" not in str(caught.value)
    assert not vllm.made


def test_without_vllm_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valuepalette.engines.vllm.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "valuepalette\[vllm\]"'):
        open_engine("vllm:facebook/opt-1.3b")


def test_it_is_imported_only_when_used(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = ModuleType("vllm")
    monkeypatch.setitem(sys.modules, "vllm", poisoned)  # without a name of vLLM's: any use would fail
    engine = open_engine(str(folders["base"]), device="cpu")
    assert engine.sample(["Hi"], 1, sampling=SHORT, seed=0)
