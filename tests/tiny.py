"""Random language models of a few thousand weights, each with a tokenizer that knows the printable characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<s>system:Be kind.{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
SIZES = {
    "llama": {"num_key_value_heads": 2, "head_dim": 8},
    "gpt2": {"n_positions": 256},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
    "qwen2": {"num_key_value_heads": 2},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8},
    "gpt_neox": {},
    "bloom": {},
    "mamba": {"state_size": 4},
}
ATTENTIVE = [kind for kind in SIZES if kind != "mamba"]


def tiny_tokenizer(*, chat: bool = False, metaspace: bool = False) -> Any:
    """A token for every printable character; with `metaspace` a blank is part of how words are marked."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(code) for code in range(33, 127)] + ["▁" if metaspace else "Ġ", "Ċ"]
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT if chat else None, **ends)


def save_tiny(folder: Path, kind: str = "llama", *, chat: bool = False, metaspace: bool = False) -> Path:
    """Saves a random model of the kind, the same weights at every call."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer(chat=chat, metaspace=metaspace)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **SIZES[kind],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for weights in model.parameters():
            # Larger than a fresh model's, so that its chances are far from uniform and differ by context.
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
