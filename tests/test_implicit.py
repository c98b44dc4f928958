"""Implicit rewards, β·log p/p0, against the same sums taken token by token."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import CHAT, save_tiny
from valuepalette.engines import Message, Sampling
from valuepalette.engines.opening import open_engine
from valuepalette.rewards.checking import RewardError, checked_score
from valuepalette.rewards.opening import open_reward

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(
        find_spec("torch") is None or find_spec("transformers") is None, reason="needs the extra models"
    ),
]

PROMPTS = ["Say hello", "Why?", "The end is"]
ANSWERS = ["Hello to you.", "<think>hm</think> So.", " near."]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), chat=True)


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moved(base, tmp_path_factory.mktemp("tuned"))


def moved(base: Path, folder: Path) -> Path:
    """Another model of the same kind: the weights a little off."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.05 * torch.randn(weights.shape, generator=generator)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def summed(folder: Path, context: str, answer: str) -> float:
    """log p(answer | context), one token after the other, by the model alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids: list[int] = tokenizer(context, add_special_tokens=False).input_ids
    total = 0.0
    with torch.no_grad():
        for token in tokenizer(answer, add_special_tokens=False).input_ids:
            total += model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)[token].item()
            ids.append(token)
    return total


def test_it_is_beta_times_the_log_ratio_of_the_answer_after_the_templated_prompt(
    base: Path, tuned: Path
) -> None:
    reward = open_reward("v", {"reward": "implicit", "model": str(tuned), "beta": 0.25}, model=str(base))
    found = checked_score(reward, "v", PROMPTS, ANSWERS)[:, 0]
    contexts = [f"<s>system:Be kind.<s>user:{prompt}<s>assistant:" for prompt in PROMPTS]
    each = list(zip(contexts, ANSWERS, strict=True))
    expected = [0.25 * (summed(tuned, c, a) - summed(base, c, a)) for c, a in each]
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.abs(found).min() > 0.01
    assert reward.columns[0].name == "v"
    assert reward.columns[0].scale == "real"
    reward.close()
    assert checked_score(reward, "v", PROMPTS, ANSWERS)[:, 0] == pytest.approx(found, abs=1e-12)


def test_prompts_are_put_as_an_engine_puts_them(base: Path, tuned: Path) -> None:
    talk: list[Message] = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    talk.append({"role": "user", "content": "C"})
    line = {"reward": "implicit", "model": str(tuned), "base": str(base), "beta": 1}
    for options, prompt, context in (
        ({"template": "none"}, "A text", "A text"),
        ({"system_prompt": "Be brief."}, "Hi", "<s>system:Be brief.<s>user:Hi<s>assistant:"),
        (
            {"template": CHAT.replace("Be kind.", "Be short.")},
            "Hi",
            "<s>system:Be short.<s>user:Hi<s>assistant:",
        ),
        ({}, talk, "<s>system:Be kind.<s>user:A<s>assistant:B<s>user:C<s>assistant:"),
    ):
        found = open_reward("v", {**line, **options}).score([prompt], ["Yes."])
        assert found.item() == pytest.approx(
            summed(tuned, context, "Yes.") - summed(base, context, "Yes."), abs=1e-5
        )


def test_it_agrees_with_the_chances_an_engine_drew_by(base: Path, tuned: Path) -> None:
    engine = open_engine(str(base), dtype="float32")
    drawn = engine.sample(["Say hello"], 4, sampling=Sampling(max_new_tokens=6), seed=0, logprobs=True)[0]
    # A token that is no character leaves no trace in the text.
    cut = [one for one in drawn if one.finish_reason == "length" and len(one.text) == one.tokens]
    assert cut
    line = {"reward": "implicit", "model": str(tuned), "base": str(base), "beta": 1.0}
    found = open_reward("v", line).score(["Say hello"] * len(cut), [one.text for one in cut])[:, 0]
    context = "<s>system:Be kind.<s>user:Say hello<s>assistant:"
    for number, one in zip(found, cut, strict=True):
        assert one.logprob is not None
        assert number == pytest.approx(summed(tuned, context, one.text) - one.logprob, abs=1e-4)


def test_the_end_of_an_answer_counts_where_it_is_asked_for(base: Path, tuned: Path) -> None:
    line = {"reward": "implicit", "model": str(tuned), "base": str(base), "beta": 1.0}
    without, whole = (
        open_reward("v", {**line, "end": end}).score(["Hi"], ["Yes."]).item() for end in (False, True)
    )
    context = "<s>system:Be kind.<s>user:Hi<s>assistant:Yes."
    ending = summed(tuned, context, "</s>") - summed(base, context, "</s>")
    assert whole - without == pytest.approx(ending, abs=1e-5)


def test_what_does_not_differ_prefers_nothing_and_turned_round_it_prefers_the_opposite(
    base: Path, tuned: Path
) -> None:
    line = {"reward": "implicit", "batch_size": 2}
    there, back, same = (
        open_reward("v", {**line, "model": str(one), "base": str(other)}).score(PROMPTS, ANSWERS)
        for one, other in ((tuned, base), (base, tuned), (base, base))
    )
    assert there == pytest.approx(-back, abs=1e-6)
    assert not same.any()
    assert open_reward("v", {**line, "model": str(tuned), "base": str(base)}).score([], []).shape == (0, 1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_tuned_model_may_be_an_adapter(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights += 0.1
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "whole")
    adapter, whole = (
        open_reward("v", {"reward": "implicit", "model": str(tmp_path / name)}, model=str(base)).score(
            PROMPTS, ANSWERS
        )
        for name in ("adapter", "whole")
    )
    assert adapter == pytest.approx(whole, abs=1e-5)
    assert adapter.any()


def test_what_cannot_be_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beta must be a positive number; got 0"):
        open_reward("v", {"reward": "implicit", "model": str(base), "base": str(base), "beta": 0})
    with pytest.raises(ValueError, match="needs base"):
        open_reward("v", {"reward": "implicit", "model": str(base)})
    other = save_tiny(tmp_path, metaspace=True)
    reward = open_reward("v", {"reward": "implicit", "model": str(other), "base": str(base)})
    with pytest.raises(RewardError, match="must read a text as the same tokens"):
        checked_score(reward, "v", ["Hi"], ["a b"])


def test_its_version_is_that_of_both_models(base: Path, tuned: Path) -> None:
    line = {"reward": "implicit", "model": str(tuned), "base": str(base)}
    versions = {open_reward("v", {**line, **more}).version for more in ({}, {"beta": 0.2}, {"end": True})}
    versions.add(open_reward("v", {**line, "model": str(base)}).version)
    assert len(versions) == 4
    assert all("sha256:" in version for version in versions)
    embedded = {"reward": "implicit", "model": "embedded:smollm2-135m", "base": "embedded:smollm2-135m"}
    assert "sha256:" in open_reward("v", embedded).version
