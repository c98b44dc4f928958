"""How a prompt becomes the tokens that a model reads: by its chat template, by another, or as it stands."""

from __future__ import annotations

import hashlib
from typing import Any

from valuepalette.engines import Prompt, Sampling

__all__ = ["chat_template", "encode", "short_digest", "templated", "turns_of"]


def chat_template(tokenizer: Any, template: str) -> str | None:
    """The Jinja text that a prompt is put into, or None where it is continued as it stands.

    `template` is "own", the tokenizer's own where it has one; "none"; or Jinja text.
    """
    if template == "none" or (template == "own" and not tokenizer.chat_template):
        return None
    return tokenizer.get_chat_template() if template == "own" else template


def encode(
    tokenizer: Any, template: str | None, index: int, prompt: Prompt, sampling: Sampling, limit: int | None
) -> list[int]:
    """The token ids that the model reads for `prompts[index]`; `template` is what `chat_template` gave.

    Raises ValueError where the prompt does not suit the template, holds no token, or leaves no room for the answer
    in a context of `limit` tokens.
    """
    if template is None:
        if not isinstance(prompt, str):
            raise ValueError(
                f"prompts[{index}] must be text for a model without a chat template, got a conversation"
            )
        if sampling.system_prompt is not None:
            raise ValueError(
                f"system_prompt must be None for a model without a chat template, got {sampling.system_prompt!r}"
            )
        ids = tokenizer(prompt).input_ids
    else:
        text = templated(tokenizer, template, index, prompt, sampling.system_prompt)
        ids = tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise ValueError(f"prompts[{index}] must hold at least one token, got {prompt!r}")
    if limit and len(ids) + sampling.max_new_tokens > limit:
        raise ValueError(
            f"prompts[{index}] must leave room for {sampling.max_new_tokens} new tokens in a context of "
            f"{limit}, got {len(ids)} tokens"
        )
    return list(ids)


def short_digest(template: str | None) -> str:
    """What a fingerprint says of a template."""
    return "none" if template is None else "sha256:" + hashlib.sha256(template.encode()).hexdigest()[:16]


def templated(tokenizer: Any, template: str, index: int, prompt: Prompt, system_prompt: str | None) -> str:
    """The text that a model reads for `prompts[index]`, up to where it answers."""
    from jinja2 import TemplateError

    turns = turns_of(index, prompt, system_prompt)
    try:
        return tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ValueError(
            f"prompts[{index}] must suit the model's chat template, got turns of {roles}: {error}"
        ) from error


def turns_of(index: int, prompt: Prompt, system_prompt: str | None) -> list[Any]:
    """The conversation that a chat template is given. A system turn of its own goes before `system_prompt`."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if not turns or turns[-1]["role"] == "assistant":
        raise ValueError(f"prompts[{index}] must end where the assistant is to answer, got {turns[-1:]}")
    if system_prompt is not None and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system_prompt})
    return turns
