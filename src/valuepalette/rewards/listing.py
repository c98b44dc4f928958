"""What can be measured: every reward a study may name, whether it is ready here, and how far it is to be trusted."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from valuepalette.rewards import Reward
from valuepalette.rewards.heads import card_of
from valuepalette.rewards.opening import REWARDS

__all__ = ["Listed", "list_rewards", "listing"]

_NEEDS_MODELS = ("perplexity", "classifier", "reward_model", "embedding")
_WIDTH = 100


@dataclass(frozen=True)
class Listed:
    """One reward.

    options  what its line may say beside `reward`; those it must say come first, in `required`
    missing  what must be installed before it can measure, with the command; None where it is ready
    quality  how well a head does by its card: areas under the ROC curve
    limits   what it does not know, by its card
    weak     its source is too weak to steer by
    """

    reward: str
    measures: str
    required: tuple[str, ...]
    options: tuple[str, ...]
    missing: str | None
    quality: str | None
    limits: str | None
    weak: bool


def list_rewards() -> list[Listed]:
    """Every reward, those that need nothing first."""
    return [_listed(reward, opener) for reward, opener in REWARDS.items()]


def listing(rewards: Sequence[Listed]) -> str:
    """What `valuepalette values` prints, at most 100 characters wide."""
    wide = max(len(entry.reward) for entry in rewards) + 2
    lines: list[str] = []
    for entry in rewards:
        told = [("WEAK: not to steer by. " if entry.weak else "") + entry.measures]
        told += [f"quality: {entry.quality}"] if entry.quality else []
        told += [f"limits: {entry.limits}"] if entry.limits else []
        told += [f"needs: {', '.join(entry.required)}"] if entry.required else []
        told += [f"missing: {entry.missing}"] if entry.missing else []
        cut = [line for text in told for line in textwrap.wrap(text, _WIDTH - wide, subsequent_indent="  ")]
        lines += [
            f"{name:<{wide}}{line}" for name, line in zip([entry.reward, *[""] * len(cut)], cut, strict=False)
        ]
    examples = (
        "",
        "Larger is better in every value. In a study, under [values]:",
        '  diversity = "diversity"',
        '  humor = { reward = "classifier", model = "mohameddhiab/humor-no-humor", output = "logit" }',
        '  toxicity = { reward = "embedded:toxicity", check = true }   # a second opinion, never optimised',
    )
    return "\n".join([*lines, *examples])


def _listed(reward: str, opener: Callable[..., Reward]) -> Listed:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(opener).parameters
    options = tuple(name for name in parameters if name != "name")
    required = tuple(name for name in options if parameters[name].default is inspect.Parameter.empty)
    card = _card(reward)
    return Listed(
        reward=reward,
        measures=(inspect.getdoc(opener) or "").partition("\n")[0].replace("`", ""),
        required=required,
        options=options,
        missing=_missing(reward, opener, required),
        quality=_quality(card),
        limits=card.get("limits"),
        weak=bool(card.get("weak", False)),
    )


def _card(reward: str) -> Mapping[str, Any]:
    scheme, _, name = reward.partition(":")
    try:
        return card_of(name) if scheme == "embedded" else {}
    except FileNotFoundError:
        return {}


def _quality(card: Mapping[str, Any]) -> str | None:
    """The range of a card's areas, in and out of the domain it was trained on."""
    told: list[str] = []
    for domain in ("held out", "out of domain"):
        areas = sorted({f"{measured['area']:.2f}" for measured in card.get(domain, {}).values()})
        if areas:
            told.append(f"{' to '.join(dict.fromkeys([areas[0], areas[-1]]))} {domain}")
    return f"area under the ROC curve {', '.join(told)}; 0.5 is chance" if told else None


def _missing(reward: str, opener: Callable[..., Reward], required: Sequence[str]) -> str | None:
    if reward in _NEEDS_MODELS:
        absent = [name for name in ("torch", "transformers") if find_spec(name) is None]
        return 'pip install "valuepalette[models]"' if absent else None
    if required:
        return None
    try:
        opener().close()
    except ModuleNotFoundError as error:
        return str(error)
    return None
