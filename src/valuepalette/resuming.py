"""Trainers that are killed and go on: checkpoints that are whole, and a row of metrics for each step."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from valuepalette.folders import replace_file
from valuepalette.progress import Progress

__all__ = ["CHECKPOINTS", "metrics_of", "resumed"]

CHECKPOINTS = "checkpoints"
"""Where a folder of training keeps them."""
_WHOLE = "whole"


def resumed(
    trainer: Any,
    checkpoints: Path,
    metrics: Path,
    *,
    label: str,
    words: Callable[[Mapping[str, Any]], dict[str, Any]],
    quiet: bool,
) -> None:
    """Trains from the last whole checkpoint, or from the start; `trainer` is one of transformers' and saves there.

    A checkpoint counts once a file in it says that it is whole; what a kill left half written is removed. Each row that
    the trainer logs is written to `metrics`, as `words` puts it; rows after the checkpoint are written again.
    """
    from transformers.trainer_callback import PrinterCallback

    last = _last(checkpoints)
    rows = metrics_of(metrics, 0 if last is None else _step(last))
    before = rows[-1]["seconds"] if rows else 0.0
    trainer.remove_callback(PrinterCallback)
    with contextlib.ExitStack() as shown:

        def progress(done: int, total: int) -> Progress:
            return shown.enter_context(Progress(label, total, done=done, unit="steps", quiet=quiet))

        trainer.add_callback(_recorder(metrics, progress, words, before))
        trainer.train(resume_from_checkpoint=None if last is None else str(last))


def metrics_of(path: Path, last: float = math.inf) -> list[dict[str, Any]]:
    """The rows of metrics up to a step, and no others left in the file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a kill may cut the last one
    kept = [line for line in whole if json.loads(line)["step"] <= last]
    if kept != lines:
        replace_file(path, lambda to: to.write_text("".join(kept), encoding="utf-8"))
    return [json.loads(line) for line in kept]


def _last(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; the others are removed."""
    found: list[Path] = []
    for path in folder.glob("checkpoint-*"):
        if (path / _WHOLE).is_file():
            found.append(path)
        else:
            shutil.rmtree(path)
    return max(found, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _recorder(
    path: Path,
    shown: Callable[[int, int], Progress],
    words: Callable[[Mapping[str, Any]], dict[str, Any]],
    before: float,
) -> Any:
    """A callback that writes a row for each step, marks checkpoints as whole and counts steps."""
    from transformers import TrainerCallback

    start = time.monotonic()

    class Recorder(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress = shown(state.global_step, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress.advance(1)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "train_loss" in logs:  # the last, over all steps
                return
            row = {"step": state.global_step, "seconds": round(before + time.monotonic() - start, 3)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, **words(logs)}, ensure_ascii=False) + "\n")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for file in checkpoint.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            replace_file(checkpoint / _WHOLE, lambda to: to.write_text("", encoding="utf-8"))

    return Recorder()
