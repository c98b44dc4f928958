"""Running a trainer so that it can be killed: checkpoints that are whole, metrics by step, one result at the end."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valuepalette.folders import alone, begin, write_json
from valuepalette.resuming import CHECKPOINTS, metrics_of, resumed
from valuepalette.training import METRICS, MODEL, RESULT, Tuned
from valuepalette.training.trainee import reporters

__all__ = ["calm", "in_rounds", "shared_settings", "train"]

_FORMAT = 1


def train(
    folder: str | Path,
    told: Mapping[str, Any],
    make: Callable[[contextlib.ExitStack], Any],
    *,
    weights: Mapping[str, float],
    quiet: bool,
) -> Tuned:
    """The model that is trained in `folder`; one that was killed goes on, and one that has ended is not trained again.

    told     the method, and all that decides what is learned; a folder begun with other entries is refused
    make     opens what is needed and gives the trainer; what it puts on the stack is closed when training ends
    weights  λ that it is trained for
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        begin(folder, told, _FORMAT)
        if (folder / RESULT).is_file():
            return Tuned.load(folder)
        with contextlib.ExitStack() as held, calm():
            trainer = make(held)
            resumed(
                trainer,
                folder / CHECKPOINTS,
                folder / METRICS,
                label=told["method"],
                words=_told,
                quiet=quiet,
            )
            return _finish(trainer, folder, told["method"], weights)


def shared_settings(
    folder: str | Path,
    seed: int,
    *,
    batch: int,
    rows: int,
    steps: int,
    learning_rate: float,
    save_every: int,
    report_to: Sequence[str] | None,
) -> dict[str, Any]:
    """What every trainer is told alike: `rows` in a step, `batch` in memory at a time, a row of metrics each step."""
    return {
        "output_dir": str(Path(folder) / CHECKPOINTS),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": rows // batch,
        "max_steps": steps,
        "learning_rate": learning_rate,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": save_every,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "seed": seed,
        "report_to": reporters(report_to),
    }


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Keeps off the terminal what libraries tell each other about their next releases, and their bars."""
    from valuepalette.engines.loading import quiet

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _finish(trainer: Any, folder: Path, method: str, weights: Mapping[str, float]) -> Tuned:
    """Writes the model, and then what says that training has ended; checkpoints are no longer needed."""
    model, beside = folder / MODEL, folder / ".model.part"
    if not model.exists():
        shutil.rmtree(beside, ignore_errors=True)
        trainer.save_model(str(beside))
        (beside / "training_args.bin").unlink(missing_ok=True)
        os.replace(beside, model)
    row = metrics_of(folder / METRICS)[-1]
    content = {
        "method": method,
        "weights": dict(weights),
        "steps": trainer.state.global_step,
        "tokens": int(trainer.state.num_input_tokens_seen),
        "seconds": row["seconds"],
    }
    write_json(folder / RESULT, content)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Tuned.load(folder)


def in_rounds(size: int, count: int, seed: int) -> list[int]:
    """`count` of `size` things, each as often as the others: the whole run's order, so that a kill changes nothing.

    >>> in_rounds(3, 5, seed=0)
    [2, 0, 1, 2, 1]
    """
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate(rounds)[:count].tolist()


def _told(logs: Mapping[str, Any]) -> dict[str, Any]:
    """What a trainer logs, in the words of this package: levels by feature, KL by answer and not by token."""
    row: dict[str, Any] = {}
    levels, spreads = dict[str, Any](), dict[str, Any]()
    for key, entry in logs.items():
        number = None if isinstance(entry, float) and not math.isfinite(entry) else entry
        if key.startswith("rewards/"):
            name, _, what = key.removeprefix("rewards/").rpartition("/")
            (levels if what == "mean" else spreads)[name] = number
        elif key in ("loss", "grad_norm", "learning_rate", "reward", "entropy"):
            row[key] = number
    if levels:
        row |= {"levels": levels, "spreads": spreads}
    if "kl" in logs and "completions/mean_length" in logs:
        row["kl"] = logs["kl"] * logs["completions/mean_length"]
        row["length"] = logs["completions/mean_length"]
        row["cut"] = logs.get("completions/clipped_ratio")
    return row
