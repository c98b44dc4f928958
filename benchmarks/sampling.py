"""Sampling from a language model.

Eight candidates for each of 16 prompts from the embedded model: ours against the loop behind the published pilots,
which draws one sample per prompt at a time, 32 rows to a batch in the order of the data, with plain `generate`.
Both have float32, top-k 50, temperature 1 and at most 50 new tokens, and take turns. The prompts are single
questions of about 40 tokens, template included, and then the same questions after an exchange, of about 150.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from valuepalette.engines import Prompt, Sampling
from valuepalette.engines.loading import LoadedModel, load_causal_lm
from valuepalette.engines.transformers import TransformersEngine

Loop = Callable[[LoadedModel, Sequence[Prompt], Sampling], int]

K = 8
ROUNDS = 3
ROWS = 32
PROMPTS = (
    "Tell me a joke about a cat.",
    "How do I apologise to a friend whose birthday I forgot last week?",
    "What is the tallest mountain?",
    "Write a short note to my landlord about the broken heating in the kitchen, polite but firm.",
    "Why is the sky blue?",
    "Give me three ideas for dinner with rice and eggs.",
    "My neighbour plays loud music at night, and talking to him has not helped. What should I do?",
    "Explain gravity to a child.",
    "I want to learn the guitar. Where should I begin, and how long should I practise every day?",
    "Name a good book for a long train ride.",
    "Can you help me plan a birthday party for a boy who is turning seven and loves dinosaurs?",
    "What is the difference between a lake and a sea?",
    "My sister and I have not spoken for a year. How could I write to her without opening old wounds?",
    "Describe a storm in one sentence.",
    "How can I fall asleep faster?",
    "Is it safe to eat bread that has a little mould on one side?",
)
REPLY = (
    "That depends on what you have at hand and on how much time you want to give it. Most people do well to begin "
    "with something small that they can finish in an afternoon, look at what came of it, and go on from there. "
    "Write down what worked, since you will have forgotten it by next week. And do not hesitate to ask somebody "
    "who has done it before: they are usually glad to tell you, and it saves you the mistakes that everybody makes."
)
EXCHANGES: tuple[Prompt, ...] = tuple(
    [
        {"role": "user", "content": before},
        {"role": "assistant", "content": REPLY},
        {"role": "user", "content": prompt},
    ]
    for before, prompt in zip(PROMPTS[1:] + PROMPTS[:1], PROMPTS, strict=True)
)


def ours(loaded: LoadedModel, prompts: Sequence[Prompt], sampling: Sampling) -> int:
    """The tokens that our engine draws, those that end an answer included."""
    drawn = TransformersEngine(loaded).sample(prompts, K, sampling=sampling, seed=0)
    return sum(candidate.tokens for own in drawn for candidate in own)


def plain(loaded: LoadedModel, prompts: Sequence[Prompt], sampling: Sampling) -> int:
    """The tokens that the plain loop draws, counted the same way."""
    import torch

    model, tokenizer = loaded.model, loaded.tokenizer
    tokenizer.padding_side = "left"
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
            tokenize=False,
            add_generation_prompt=True,
        )
        for prompt in prompts
    ] * K
    drawn = 0
    for start in range(0, len(texts), ROWS):
        batch = tokenizer(
            texts[start : start + ROWS], return_tensors="pt", padding=True, add_special_tokens=False
        )
        output: Any = model.generate(
            **batch.to(model.device),
            do_sample=True,
            num_beams=1,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=tokenizer.eos_token_id,
        )
        ended = output[:, batch.input_ids.shape[1] :] == tokenizer.eos_token_id
        # A row goes on as padding after its first end token.
        drawn += int((torch.cumsum(ended, 1) - ended.long() == 0).sum())
    return drawn


def timed(loop: Loop, loaded: LoadedModel, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """Tokens per second of clock time, and per second of processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    tokens = loop(loaded, prompts, Sampling())
    return tokens / (time.perf_counter() - clock), tokens / (time.process_time() - processor)


def run(rounds: int = ROUNDS) -> str:
    """Both loops in turn, `rounds` times, as a Markdown table of medians."""
    try:
        loaded = load_causal_lm("embedded:smollm2-135m", dtype="float32", device="cpu")
    except ModuleNotFoundError as missing:
        return f"Not run: {missing}"
    import torch

    loops = {"plain": plain, "valuepalette": ours}
    for loop in loops.values():
        loop(loaded, PROMPTS[:2], Sampling(max_new_tokens=2))
    lines = [
        "| prompts | loop | tokens/s | ratio | tokens per processor second | ratio |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for kind, prompts in {"questions": PROMPTS, "exchanges": EXCHANGES}.items():
        pairs = [[timed(loop, loaded, prompts) for loop in loops.values()] for _ in range(rounds)]
        for column, name in enumerate(loops):
            cells = [kind, name]
            for clock in (0, 1):
                rates = [pair[column][clock] for pair in pairs]
                ratios = [pair[column][clock] / pair[0][clock] for pair in pairs]
                cells += [f"{statistics.median(rates):.0f}", f"{statistics.median(ratios):.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines += [
        "",
        f"Medians of {rounds} rounds; {torch.get_num_threads()} threads{load}; the goal is a ratio of 3.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(run())
