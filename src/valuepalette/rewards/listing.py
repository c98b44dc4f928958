"""What can be measured: every reward a study may name, whether it is ready here, and how far it is to be trusted."""

from __future__ import annotations

import inspect
import math
import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from valuepalette.rewards import Column, Reward
from valuepalette.rewards.cards import CARDS
from valuepalette.rewards.learned import CARD, Learned
from valuepalette.rewards.opening import REWARDS, open_reward

__all__ = ["Listed", "ListedColumn", "list_learned", "list_rewards", "listing"]

_NEEDS = {
    "models": ("perplexity", "implicit", "classifier", "reward_model", "embedding"),
    "remote": ("endpoint", "vllm", "judge"),
}
_PACKAGES = {"models": ("torch", "transformers"), "remote": ("httpx",)}
_WIDTH = 100


@dataclass(frozen=True)
class ListedColumn:
    """A column of a reward; a bound that is None is infinite."""

    name: str
    definition: str
    scale: str
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Listed:
    """One reward.

    options  what its line may say beside `reward`; those it must say come first, in `required`
    columns  what it measures: name, definition, scale and range; none where that depends on its options
    missing  what must be installed before it can measure, with the command; None where it is ready
    package, licence, quality, limits   of a card: its source, and how far it is to be trusted
    weak     its source is too weak to steer by
    """

    reward: str
    measures: str
    required: tuple[str, ...]
    options: tuple[str, ...]
    columns: tuple[ListedColumn, ...]
    missing: str | None
    package: str | None
    licence: str | None
    quality: str | None
    limits: str | None
    weak: bool


def list_rewards() -> list[Listed]:
    """Every reward, those that need nothing first."""
    return [_listed(reward, opener) for reward, opener in REWARDS.items()]


def list_learned(source: str | Path) -> list[Listed]:
    """The rewards learned from data, with the quality their cards tell: those in a folder, or those a study names.

    source  the folder of one, a folder of such folders, or a study's file, whose `[values]` are read

    Raises ValueError where there are none.
    """
    path = Path(source)
    if path.is_dir():
        named = {
            str(card.parent): card.parent for card in sorted([*path.glob(CARD), *path.glob(f"*/{CARD}")])
        }
    else:
        named = _named_in(path)
    if not named:
        raise ValueError(
            f"{path} must hold or name rewards learned from data, each with its {CARD}; got none"
        )
    return [_learned(name, Learned.load(folder)) for name, folder in named.items()]


def _named_in(study: Path) -> dict[str, Path]:
    """The folders of learned rewards by the value that names them."""
    try:
        lines = tomllib.loads(study.read_text(encoding="utf-8")).get("values", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{study} must be a folder or a study's file: {error}") from None
    models = {name: line.get("model") for name, line in lines.items() if isinstance(line, dict)}
    return {name: Path(model) for name, model in models.items() if model and (Path(model) / CARD).is_file()}


def _learned(name: str, learned: Learned) -> Listed:
    opened = open_reward(name, {"reward": learned.reward, "model": str(learned.folder)})
    opened.close()
    data = learned.card["data"]
    return Listed(
        reward=name,
        measures=f"{', '.join(learned.quality)}, learned from {data['source']}: "
        f'{{ reward = "{learned.reward}", model = "{learned.folder}" }}',
        required=(),
        options=(),
        columns=tuple(_column(column) for column in opened.columns),
        missing=None,
        package=None,
        licence=None,
        quality="; ".join(f"{aspect}: {told}" for aspect, told in learned.quality.items()),
        limits=None,
        weak=False,
    )


def listing(rewards: Sequence[Listed]) -> str:
    """What `valuepalette values` prints, at most 100 characters wide."""
    wide = max(len(entry.reward) for entry in rewards) + 2
    lines: list[str] = []
    for entry in rewards:
        told = [("WEAK: not to steer by. " if entry.weak else "") + entry.measures]
        told += [f"quality: {entry.quality}"] if entry.quality else []
        told += [f"limits: {entry.limits}"] if entry.limits else []
        told += [f"from: {entry.package} ({entry.licence})"] if entry.package else []
        told += [f"needs: {', '.join(entry.required)}"] if entry.required else []
        told += [f"missing: {entry.missing}"] if entry.missing else []
        cut = [
            line
            for text in told
            for line in textwrap.wrap(text, max(_WIDTH - wide, 40), subsequent_indent="  ")
        ]
        lines += [
            f"{name:<{wide}}{line}" for name, line in zip([entry.reward, *[""] * len(cut)], cut, strict=False)
        ]
    examples = (
        "",
        "Larger is better in every value. In a study, under [values]:",
        '  diversity = "diversity"',
        '  humor = { reward = "classifier", model = "mohameddhiab/humor-no-humor", output = "logit" }',
        '  kindness = { reward = "judge", model = "gpt-4.1-mini", rubric = "Is the answer kind?" }',
        '  toxicity = { reward = "embedded:toxicity", check = true }   # a second opinion, never optimised',
    )
    return "\n".join([*lines, *examples])


def _listed(reward: str, opener: Callable[..., Reward]) -> Listed:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(opener).parameters
    options = tuple(name for name in parameters if name != "name")
    required = tuple(name for name in options if parameters[name].default is inspect.Parameter.empty)
    columns, missing = _opened(reward, opener, required)
    card = CARDS.get(reward)
    return Listed(
        reward=reward,
        measures=(inspect.getdoc(opener) or "").partition("\n")[0].replace("`", ""),
        required=required,
        options=options,
        columns=columns,
        missing=missing,
        package=card and card.package,
        licence=card and card.licence,
        quality=card and card.quality,
        limits=card and card.limits,
        weak=bool(card and card.weak),
    )


def _opened(
    reward: str, opener: Callable[..., Reward], required: Sequence[str]
) -> tuple[tuple[ListedColumn, ...], str | None]:
    """Its columns, and what is missing."""
    for extra, needing in _NEEDS.items():
        if reward in needing:
            absent = any(find_spec(name) is None for name in _PACKAGES[extra])
            return (), f'pip install "valuepalette[{extra}]"' if absent else None
    if required:
        return (), None
    try:
        opened = opener()
    except ModuleNotFoundError as error:
        return (), str(error)
    opened.close()
    return tuple(_column(column) for column in opened.columns), None


def _column(column: Column) -> ListedColumn:
    lower, upper = (bound if math.isfinite(bound) else None for bound in column.range)
    return ListedColumn(column.name, column.definition, column.scale, lower, upper)
