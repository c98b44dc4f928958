"""Rewards that are Hugging Face models: tiny ones of the classes that the paper's rewards have."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from valuepalette.engines import Message
from valuepalette.rewards.checking import checked_score
from valuepalette.rewards.opening import open_reward

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(
        find_spec("torch") is None or find_spec("transformers") is None, reason="needs the extra models"
    ),
]

PROMPTS = ["How do I bake bread?", "Tell me a joke", "Why?", "Is it {prompt} or {answer}?"]
ANSWERS = ["Mix flour and water, then wait.", " A joke. ", "", "Because of a very long and winding story"]
SIZES: dict[str, dict[str, Any]] = {
    "bert": {"max_position_embeddings": 64},
    "distilbert": {"max_position_embeddings": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    "roberta": {"max_position_embeddings": 66, "pad_token_id": 1},
    "deberta-v2": {"max_position_embeddings": 64},
    "gpt2": {"n_positions": 64},
    "llama": {"max_position_embeddings": 64, "num_key_value_heads": 2},
}
CHAT = "{% for m in messages %}[{{ m['role'][0] }}]{{ m['content'] }}{% endfor %}"


def tokenizer_for(kind: str) -> Any:
    """A token for every printable character; encoders put [CLS] and [SEP] around a text and between two."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    named = ["<x>", "[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {token: i for i, token in enumerate([*named, *(chr(code) for code in range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if kind in ("gpt2", "llama"):  # no padding token, as GPT-2 has none
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<x>",
            unk_token="[UNK]",
            model_max_length=64,
            chat_template=CHAT,
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1" if kind == "bert" else "[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    inputs = (
        ["input_ids", "token_type_ids", "attention_mask"]
        if kind == "bert"
        else ["input_ids", "attention_mask"]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=64,
        model_input_names=inputs,
    )


def save(
    folder: Path, kind: str, auto_class: str = "AutoModelForSequenceClassification", **settings: Any
) -> Any:
    """Saves a random model of the kind and returns it with its tokenizer."""
    import torch
    import transformers

    tokenizer = tokenizer_for(kind)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        **SIZES[kind],
        **settings,
    }
    if kind == "distilbert":
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            del sizes[name]
    config = transformers.AutoConfig.for_model(kind, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, auto_class).from_config(config)
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer


def logits_one_by_one(model: Any, tokenizer: Any, *texts: list[str]) -> Any:
    """The model's logits of each text, or pair of texts, alone in its batch: no padding, nothing of ours."""
    import torch

    with torch.no_grad():
        rows = [
            model(**tokenizer(*([part] for part in parts), return_tensors="pt", truncation=True)).logits[0]
            for parts in zip(*texts, strict=True)
        ]
    return torch.stack(rows).double().numpy()


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta", "gpt2"])
def test_a_classifier_gives_what_its_model_gives(kind: str, tmp_path: Path) -> None:
    model, tokenizer = save(
        tmp_path,
        kind,
        num_labels=3,
        id2label={0: "no", 1: "yes", 2: "both"},
        label2id={"no": 0, "yes": 1, "both": 2},
    )
    logits = logits_one_by_one(model, tokenizer, ANSWERS if kind != "gpt2" else [a or "?" for a in ANSWERS])
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = ANSWERS if kind != "gpt2" else [a or "?" for a in ANSWERS]
    line = {"reward": "classifier", "model": str(tmp_path), "batch_size": 3}
    for options, expected in (
        ({"output": "logit", "label": "both"}, logits[:, 2]),
        ({"output": "probability"}, chances[:, 1]),
        ({}, np.log(chances[:, 1])),
        ({"negate": True, "label": 0, "output": "probability"}, -chances[:, 0]),
    ):
        reward = open_reward("v", {**line, **options})
        found = checked_score(reward, "v", PROMPTS, answers)[:, 0]
        np.testing.assert_allclose(found, expected, atol=2e-6)
        low, high = reward.columns[0].range
        assert ((low <= found) & (found <= high)).all()
        reward.close()
    assert reward.columns[0].scale == "real"  # no longer a probability once it is negated
    assert open_reward("v", line).columns[0].scale == "log-probability"


def test_a_classifier_of_one_label_is_a_sigmoid(tmp_path: Path) -> None:
    model, tokenizer = save(tmp_path, "deberta-v2", num_labels=1)
    texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    logits = logits_one_by_one(model, tokenizer, texts)[:, 0]
    line = {"reward": "classifier", "model": str(tmp_path), "label": 0, "reads": "last turn and answer"}
    found = checked_score(open_reward("v", line), "v", PROMPTS, ANSWERS)[:, 0]
    np.testing.assert_allclose(found, -np.log1p(np.exp(-logits)), atol=1e-5)


def test_a_label_that_is_not_there(tmp_path: Path) -> None:
    save(tmp_path, "bert", num_labels=2, id2label={0: "dull", 1: "funny"}, label2id={"dull": 0, "funny": 1})
    for label in (2, "sad", -1, True):
        with pytest.raises(ValueError, match=r"label must be one of 0 \(dull\), 1 \(funny\) of .*; got"):
            open_reward("v", {"reward": "classifier", "model": str(tmp_path), "label": label})


@pytest.mark.parametrize("kind", ["gpt2", "bert", "deberta-v2"])
def test_a_reward_model_reads_a_pair(kind: str, tmp_path: Path) -> None:
    model, tokenizer = save(tmp_path, kind, num_labels=1)
    questions = [f"\n\nHuman: {prompt} \n\nAssistant:" for prompt in PROMPTS]
    expected = logits_one_by_one(model, tokenizer, questions, [answer.strip() for answer in ANSWERS])
    line = {
        "reward": "reward_model",
        "model": str(tmp_path),
        "template": "\n\nHuman: {prompt} \n\nAssistant:",
        "batch_size": 3,
    }
    reward = open_reward("harmlessness", line)
    assert [column.name for column in reward.columns] == ["harmlessness"]
    conversations = [[Message(role="user", content=prompt)] for prompt in PROMPTS]
    for prompts in (PROMPTS, conversations):
        np.testing.assert_allclose(checked_score(reward, "h", prompts, ANSWERS), expected, atol=5e-6)
    thought = ["<think>Hm.</think>" + answer for answer in ANSWERS]
    np.testing.assert_allclose(reward.score(PROMPTS, thought), expected, atol=5e-6)


def test_a_reward_model_reads_one_text(tmp_path: Path) -> None:
    model, tokenizer = save(tmp_path, "llama", num_labels=1)
    # Braces in a prompt or an answer are text.
    texts = [f"Q {prompt} A {answer.strip()}!" for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    expected = logits_one_by_one(model, tokenizer, texts)
    line = {
        "reward": "reward_model",
        "model": str(tmp_path),
        "format": "text",
        "template": "Q {prompt} A {answer}!",
    }
    np.testing.assert_allclose(open_reward("v", line).score(PROMPTS, ANSWERS), expected, atol=5e-6)


def test_heads_are_columns(tmp_path: Path) -> None:
    model, tokenizer = save(tmp_path, "llama", num_labels=3)
    conversation = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello")]
    conversation.append(Message(role="user", content="Why?"))
    expected = logits_one_by_one(model, tokenizer, ["[u]Hi[a]Hello[u]Why?[a]So."])[0]
    line = {"reward": "reward_model", "model": str(tmp_path), "format": "chat"}
    named = open_reward("v", {**line, "heads": ["a", "b", "c"], "negate": ["b"]})
    assert [column.name for column in named.columns] == ["a", "b", "c"]
    np.testing.assert_allclose(named.score([conversation], ["So."])[0], expected * [1, -1, 1], atol=5e-6)
    picked = open_reward("v", {**line, "heads": {"last": 2, "first": "LABEL_0"}})
    np.testing.assert_allclose(picked.score([conversation], ["So."])[0], expected[[2, 0]], atol=5e-6)
    assert named.reads == "conversation"
    # A conversation too long for the model loses its beginning, never the answer.
    long = [Message(role="user", content="x" * 500)]
    assert named.score([long], ["So."]).tolist() != named.score([long], ["No."]).tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "heads must name the 3 outputs"),
        ({"heads": ["a", "b"]}, r"heads must be 3 different names, one per output; got \['a', 'b'\]"),
        ({"heads": {"a": 7}}, "heads: 'a' must be an output of"),
        ({"heads": ["a", "b", "c"], "negate": ["d"]}, "negate must be .* among a, b, c; got"),
        (
            {"heads": ["a", "b", "c"], "format": "mail"},
            "format must be one of 'pair', 'chat', 'text'; got 'mail'",
        ),
        ({"heads": ["a", "b", "c"], "template": "no place"}, r"must contain \{prompt\}; got 'no place'"),
        ({"heads": ["a", "b", "c"], "format": "chat", "template": "{prompt}"}, "template belongs to"),
        (
            {"heads": ["a", "b", "c"], "dtype": "int8"},
            "dtype must be one of float32, bfloat16, float16; got 'int8'",
        ),
    ],
)
def test_reward_model_refusals(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(tmp_path, "gpt2", num_labels=3)
    with pytest.raises(ValueError, match=said) as caught:
        open_reward("v", {"reward": "reward_model", "model": str(tmp_path), **options})
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_read_only_when_chosen(tmp_path: Path) -> None:
    import torch

    model, _ = save(tmp_path, "bert", num_labels=1)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    line = {"reward": "reward_model", "model": str(tmp_path)}
    with pytest.raises(ValueError, match=r"need pickle = true") as caught:
        open_reward("v", line).score(["p"], ["r"])
    assert "\n" not in str(caught.value)
    assert open_reward("v", {**line, "pickle": True}).score(["p"], ["r"]).shape == (1, 1)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="value 'v': model must be a Hugging Face id or a folder"):
        open_reward("v", {"reward": "classifier", "model": "/no/such/folder"})


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_coherence_is_the_cosine(pooling: str, tmp_path: Path) -> None:
    import torch

    model, tokenizer = save(tmp_path, "bert", "AutoModel")

    def vector(text: str) -> Any:
        with torch.no_grad():
            outputs = model(**tokenizer(text.strip(), return_tensors="pt"))
        hidden = outputs.last_hidden_state[0]
        return {"mean": hidden.mean(dim=0), "cls": hidden[0], "pooler": outputs.pooler_output[0]}[pooling]

    pairs = list(zip(PROMPTS, ANSWERS, strict=True))
    expected = [torch.cosine_similarity(vector(p), vector(a), dim=0).item() for p, a in pairs]
    line = {"reward": "embedding", "model": str(tmp_path), "pooling": pooling, "batch_size": 3}
    found = checked_score(open_reward("c", line), "c", PROMPTS, ANSWERS)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_versions_change_with_the_numbers(tmp_path: Path) -> None:
    save(tmp_path / "a", "bert", num_labels=2)
    save(tmp_path / "b", "bert", num_labels=2, hidden_size=16)
    line = {"reward": "classifier", "model": str(tmp_path / "a")}
    version = open_reward("v", line).version
    assert open_reward("v", line).version == version
    assert open_reward("v", {**line, "batch_size": 2}).version == version
    for change in (
        {"label": 0},
        {"output": "logit"},
        {"reads": "conversation"},
        {"negate": True},
        {"thinking": True},
    ):
        assert open_reward("v", {**line, **change}).version != version
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    assert open_reward("v", line).version != version


# ── likelihood ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("lm"), "gpt2")


def cross_entropy(folder: Path, ids: list[int]) -> tuple[float, int]:
    """The model's own loss on a text, alone in its batch."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    row = torch.tensor([ids])
    with torch.no_grad():
        return model(row, labels=row).loss.item(), len(ids) - 1


def test_perplexity_is_the_models_own_loss(language_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(language_model)
    line = {"reward": "perplexity", "model": str(language_model), "batch_size": 3, "dtype": "float32"}
    reward = open_reward("perplexity", line)
    found = checked_score(reward, "perplexity", PROMPTS, ANSWERS)[:, 0]
    texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    expected = [-cross_entropy(language_model, tokenizer(text)["input_ids"])[0] for text in texts]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert reward.columns[0].range == (-math.inf, 0.0)
    with pytest.raises(
        ValueError, match=r"value 'perplexity' failed at prompt 'W', response '': .* two tokens"
    ):
        checked_score(reward, "perplexity", ["What?", "W"], ["So.", ""])


def test_relevance_is_a_gain_per_token_of_the_question(language_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(language_model)

    def chance(context: str, text: str) -> float:
        before, after = tokenizer(context)["input_ids"], tokenizer(text)["input_ids"]
        both, all_but_first = cross_entropy(language_model, before + after)
        alone, ahead = cross_entropy(language_model, before)
        return (alone * ahead - both * all_but_first) / len(after)

    line = {"reward": "embedded:relevance", "model": str(language_model), "batch_size": 3, "dtype": "float32"}
    found = checked_score(open_reward("r", line), "r", PROMPTS, ANSWERS)[:, 0]
    expected = [
        chance(f"Answer: {answer.strip()}\n\nQuestion:", f" {prompt}")
        - chance("Answer: \n\nQuestion:", f" {prompt}")
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert found[2] == 0  # a blank answer says nothing of its question
