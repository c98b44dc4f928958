"""A pairwise reward model from preferences, with TRL's RewardTrainer as it is.

The trainer is handed tokens, those that `reward = "reward_model"` puts to the model: what is trained is what scores.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines.embedded import EMBEDDED, converted
from valuepalette.engines.loading import quiet as calm
from valuepalette.folders import MANIFEST, alone, begin, digest, write_json
from valuepalette.resuming import CHECKPOINTS, metrics_of, resumed
from valuepalette.rewards.exchange import answer_of
from valuepalette.rewards.heads.training import word_counts
from valuepalette.rewards.learned import CARD, FORMAT, Learned
from valuepalette.rewards.learning.measuring import pair_quality, share_won
from valuepalette.rewards.learning.reading import Rankings, held_out_rows, read_rankings
from valuepalette.rewards.models import Checkpoint
from valuepalette.rewards.reward_model import RewardModel, checked_template, rows_of

__all__ = ["train_reward", "weighed_pairs"]

_METRICS = "metrics.jsonl"

_OWN = {
    "output_dir": "folder",
    "num_train_epochs": "epochs",
    "max_steps": "epochs",
    "learning_rate": "learning_rate",
    "per_device_train_batch_size": "batch",
    "save_steps": "save_every",
    "logging_steps": "metrics.jsonl, a row a step,",
    "max_length": "max_tokens",
    "seed": "seed",
}


def train_reward(
    data: object,
    folder: str | Path,
    *,
    model: str,
    name: str = "reward",
    lora: int | None = 16,
    epochs: float = 1.0,
    learning_rate: float = 1e-4,
    batch: int = 8,
    max_tokens: int = 1024,
    format: str | None = None,
    template: str | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    device: str | None = None,
    save_every: int = 25,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Learned:
    """Learns what is preferred: a model whose one output is larger for the chosen answer than for the rejected.

    Killed and called again it goes on from its last checkpoint; called once more it gives what is there. A folder that
    was begun with other data or settings is refused.

    data      a file or table with `prompt`, `chosen` and `rejected` (also as hh-rlhf's transcripts, or TRL's
              conversations), or with `prompt` and `ranked`: a list of answers, the best first. A list of n becomes its
              C(n, 2) pairs, which together weigh as much as any other list.
    folder    where the model and its card go: `reward = "reward_model"`, `model = "<folder>"` scores by it
    model     a Hugging Face id, a folder, or `embedded:<name>`
    name      of what is preferred, for the card
    lora      the rank of an adapter, which is merged in the end; None trains every weight
    batch     pairs to a step
    format    how an exchange is put to the model, "chat" or "text", and `template` as for `reward_model`. By default
              its own chat template, or the last turn and the answer parted by a line break where it has none.
    max_tokens  longer exchanges lose the beginning of a chat, or the end of a text
    held_out  the share of prompts that are not learned from
    device    "cpu" keeps off a GPU, which is taken where there is one
    save_every  steps between checkpoints: what a kill can cost
    settings  more for TRL's `RewardConfig`
    quiet     without it, how far the training is goes to standard error

    The saved model is judged on the pairs that were held out, through the reward that reads it.
    """
    _need()
    if lora is not None and (isinstance(lora, bool) or not isinstance(lora, int) or lora < 1):
        raise ValueError(f"lora must be a rank, 1 or more, or None to train the whole model; got {lora!r}")
    if said := next((key for key in settings or {} if key in _OWN), None):
        raise ValueError(
            f"settings: {said} is said by {_OWN[said]} here; got {said}={(settings or {})[said]!r}"
        )
    if isinstance(save_every, bool) or not isinstance(save_every, int) or save_every < 1:
        raise ValueError(f"save_every must be a number of steps, 1 or more; got {save_every!r}")
    rankings = read_rankings(data)
    rng = np.random.default_rng(seed)
    out = held_out_rows(rankings.groups, held_out, rng)
    scheme, _, rest = model.partition(":")
    base = Checkpoint(str(converted(rest)) if scheme == "embedded" and rest in EMBEDDED else model)
    format = format or ("chat" if base.tokenizer.chat_template else "text")
    if format not in ("chat", "text"):
        raise ValueError(f"format must be 'chat' or 'text'; got {format!r}")
    template = checked_template(format, template)
    rows = _rows(base, rankings, format, template, max_tokens)
    pairs = weighed_pairs([len(answers) for answers in rankings.answers], np.flatnonzero(~out), rng)
    training = {"lora": lora, "epochs": epochs, "learning_rate": learning_rate, "batch": batch}
    put = {"format": format, "template": template or None, "max_tokens": max_tokens}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if (path / CARD).exists() and not (path / MANIFEST).exists():
        raise ValueError(f"{path} holds a learned reward already: give a new folder")
    told = {
        "base": base.fingerprint,
        "name": name,
        "data": {"lists": len(rankings.answers), "sha256": digest([rankings.prompts, rankings.answers])},
        "training": {**training, "settings": dict(settings or {})},
        "put": put,
        "held_out": held_out,
        "seed": seed,
    }
    with alone(path):
        begin(path, told, FORMAT)
        if (path / CARD).exists():
            return Learned.load(path)
        trainer = _trainer(
            base, [(rows[row][best], rows[row][other]) for row, best, other in pairs], path,
            lora=lora, device=device,
            settings={
                "num_train_epochs": epochs,
                "learning_rate": learning_rate,
                "per_device_train_batch_size": batch,
                "max_length": None,  # the rows are cut already
                "seed": seed,
                "save_steps": save_every,
                **(settings or {}),
            },
        )  # fmt: skip
        with _hushed():
            resumed(trainer, path / CHECKPOINTS, path / _METRICS, label="training", words=_told, quiet=quiet)
        _save(trainer, base, path, merge=lora is not None)
        steps = int(trainer.state.global_step)
        del trainer
        card: dict[str, Any] = {
            "format": FORMAT,
            "reward": "reward_model",
            "put": put,
            "base": model,
            "training": {
                **training,
                "steps": steps,
                "loss": round(float(np.mean([row["loss"] for row in metrics_of(path / _METRICS)])), 4),
            },
            "data": {
                "source": rankings.name,
                "lists": len(rankings.answers),
                "held out": int(out.sum()),
                "seed": seed,
            },
            "aspects": [{"name": name, "kind": "pairs"}],
        }
        reward = RewardModel(
            model=str(path), format=format, template=template or None, max_tokens=max_tokens, device=device
        )
        card["aspects"][0]["quality"] = _judged(reward, rankings, out)
        write_json(path / CARD, card)
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
        return Learned.load(path)


def weighed_pairs(
    sizes: Sequence[int], rows: NDArray[np.intp], rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """The pairs of one epoch, as (row, better, worse): of each list as many, whatever its length.

    That many is what the longest list has, C(n, 2). A list with fewer pairs repeats them, each as often as the others;
    where that does not come out even, chance says which come once more. So a pair counts 1/C(n, 2).

    >>> weighed_pairs([2, 3], np.array([0, 1]), np.random.default_rng(0))
    [(0, 0, 1), (0, 0, 1), (0, 0, 1), (1, 0, 1), (1, 0, 2), (1, 1, 2)]
    """
    each = {int(row): list(itertools.combinations(range(sizes[row]), 2)) for row in rows}
    most = max(map(len, each.values()))
    found: list[tuple[int, int, int]] = []
    for row, pairs in each.items():
        whole, left = divmod(most, len(pairs))
        more = sorted(rng.permutation(len(pairs))[:left].tolist())
        found += [(row, *pair) for pair in [*pairs * whole, *(pairs[i] for i in more)]]
    return found


def _rows(
    base: Checkpoint, rankings: Rankings, format: str, template: str, max_tokens: int
) -> list[list[list[int]]]:
    """The tokens of each answer of each list, as the reward will put them to the model."""
    lengths = [len(answers) for answers in rankings.answers]
    prompts = [prompt for prompt, n in zip(rankings.prompts, lengths, strict=True) for _ in range(n)]
    answers = [answer_of(answer).strip() for answers in rankings.answers for answer in answers]
    rows = iter(rows_of(base, prompts, answers, format, template, max_tokens))
    return [[next(rows)["input_ids"] for _ in range(n)] for n in lengths]


def _trainer(
    base: Checkpoint,
    pairs: Sequence[tuple[list[int], list[int]]],
    folder: Path,
    *,
    lora: int | None,
    device: str | None,
    settings: Mapping[str, Any],
) -> Any:
    import torch

    with _hushed():
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer  # pyright: ignore[reportPrivateImportUsage]

        cpu = not torch.cuda.is_available() or device == "cpu"
        able = not cpu and torch.cuda.is_bf16_supported(including_emulation=False)
        told: dict[str, Any] = {
            "save_strategy": "steps",
            "save_total_limit": 2,
            "report_to": "none",
            "logging_steps": 1,
            "use_cpu": cpu,
            "bf16": able,
            "gradient_checkpointing": not cpu,
            "dataloader_pin_memory": not cpu,
            "disable_tqdm": True,
            "model_init_kwargs": {"dtype": "float32", "revision": base.revision},
            **settings,
        }
        adapter = None
        if lora is not None:
            from peft import LoraConfig

            adapter = LoraConfig(
                r=lora,
                lora_alpha=2 * lora,
                lora_dropout=0.0,
                target_modules="all-linear",
                modules_to_save=["score"],
                task_type="SEQ_CLS",
            )
        return RewardTrainer(
            model=base.id,
            args=RewardConfig(output_dir=str(folder / CHECKPOINTS), **told),
            train_dataset=Dataset.from_dict(
                {"chosen_ids": [best for best, _ in pairs], "rejected_ids": [other for _, other in pairs]}
            ),
            processing_class=base.tokenizer,
            peft_config=adapter,
        )


def _told(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the trainer logs, what says how well it learns."""
    return {name: logs[name] for name in ("loss", "accuracy", "margin", "grad_norm") if name in logs}


def _save(trainer: Any, base: Checkpoint, folder: Path, *, merge: bool) -> None:
    """Saves the whole model, an adapter merged into it, and the tokenizer."""
    with _hushed():
        model = trainer.model.merge_and_unload() if merge else trainer.model
        model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)


def _judged(reward: RewardModel, rankings: Rankings, out: NDArray[np.bool_]) -> dict[str, Any]:
    """How the saved model orders the pairs that were held out; a list's pairs stay together."""
    longer = _longer_wins(rankings, ~out)
    rows = np.flatnonzero(out)
    prompts = [rankings.prompts[row] for row in rows for _ in rankings.answers[row]]
    texts = [answer for row in rows for answer in rankings.answers[row]]
    scores = iter(reward.score(prompts, texts)[:, 0])
    reward.close()
    margins, chosen, rejected, groups = list[float](), list[str](), list[str](), list[int]()
    for row in rows:
        answers = rankings.answers[row]
        own = [next(scores) for _ in answers]
        for best, other in itertools.combinations(range(len(answers)), 2):
            margins.append(own[best] - own[other])
            chosen.append(answers[best])
            rejected.append(answers[other])
            groups.append(int(rankings.groups[row]))
    return pair_quality(np.array(margins), chosen, rejected, np.array(groups), longer=longer)


def _longer_wins(rankings: Rankings, rows: NDArray[np.bool_]) -> bool:
    """Whether, of two answers that were learned from, the longer is preferred more often than the shorter."""
    counts = [word_counts(rankings.answers[row]) for row in np.flatnonzero(rows)]
    gaps = [a - b for own in counts for a, b in itertools.combinations(own.tolist(), 2)]
    return bool(share_won(np.array(gaps, dtype=float)).mean() >= 0.5)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keeps off the terminal what libraries tell each other about their next releases, and their bars."""
    with warnings.catch_warnings(), calm():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _need() -> None:
    for module in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f'training a reward model needs {module}: pip install "valuepalette[train]"', name=module
            )
