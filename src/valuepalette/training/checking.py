"""What is refused before training begins: another p0 than the pilot's, and settings with another optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from valuepalette.engines import Sampling
from valuepalette.folders import differences, plain
from valuepalette.rewards import Reward
from valuepalette.solution import Solution
from valuepalette.trainers import sampling_faults

__all__ = [
    "check_model",
    "check_rewards",
    "check_sampling",
    "check_settings",
    "needed_values",
    "whole_numbers",
]

_MODEL = ("model", "revision", "template")
_MOVES: Mapping[str, tuple[tuple[object, ...], str]] = {
    "normalize_advantages": ((False,), "dividing by a batch's spread rescales the reward against the KL"),
    "reward_clip_range": ((None,), "clipped rewards are other rewards"),
    "num_iterations": ((1,), "a second pass over the same answers is clipped, and answers by another policy"),
    "temperature": ((1, None), "p0 is the model at temperature 1"),
    "top_k": ((0, None), "truncated answers are not the model's own"),
    "top_p": ((1, None), "truncated answers are not the model's own"),
    "min_p": ((None, 0), "truncated answers are not the model's own"),
    "repetition_penalty": ((1, None), "penalised answers are not the model's own"),
    "generation_kwargs": ((None,), "answers must be the model's own"),
    "disable_dropout": ((True,), "with dropout the model differs from the one it is compared with"),
    "sync_ref_model": ((False,), "the KL must be to the original model"),
    "mask_truncated_completions": ((False,), "answers cut at the limit belong to p0 too"),
    "weight_decay": ((0,), "it pulls weights to zero, away from the optimum"),
    "label_smoothing_factor": ((0,), "it changes what is learned"),
    "neftune_noise_alpha": ((None,), "it changes what is learned"),
}

_OWN: Mapping[str, str] = {
    "max_steps": "steps or epochs",
    "num_train_epochs": "steps or epochs",
    "gradient_accumulation_steps": "the number of rows and batch",
    "per_device_train_batch_size": "batch",
    "learning_rate": "learning_rate",
    "output_dir": "folder",
    "save_steps": "save_every",
    "seed": "the task",
    "report_to": "report_to",
    "use_cpu": "the task's device",
}
"""What every trainer's settings are said by here."""


def check_sampling(solution: Solution, sampling: Sampling, *, whole: bool) -> None:
    """The task must answer as the pilot did; with `whole`, at temperature 1 without truncation."""
    recorded = plain(solution.fingerprint.get("sampling") or {})
    if not recorded:
        raise ValueError(
            "the solution's pilot must record how it was sampled, or nobody can tell whether it is of the model that "
            "is trained; it records nothing"
        )
    told = {**asdict(sampling), "stop": list(sampling.stop)}
    system_prompt = told.pop("system_prompt")
    if whole and (faults := sampling_faults(told)):
        raise ValueError(
            "the pilot must be drawn at temperature 1 without top-k and top-p, since the model that is trained has "
            f"neither, got {', '.join(faults)}"
        )
    found = list(differences(recorded, plain(told), "sampling"))
    found += differences(solution.fingerprint.get("system_prompt"), system_prompt, "system_prompt")
    if found:
        raise ValueError(f"the solution's pilot was drawn otherwise than the task says ({'; '.join(found)})")
    if sampling.stop:
        raise ValueError(
            f"stop must be empty, since a trained model ends its answer itself, got {list(sampling.stop)}"
        )


def check_model(solution: Solution, fingerprint: Mapping[str, str]) -> None:
    """The model and its template must be those of the pilot; its precision may differ."""
    recorded = solution.fingerprint.get("model") or {}
    if not recorded:
        raise ValueError(
            "the solution's pilot must record its model, or nobody can tell whether it is this one"
        )
    both = [part for part in _MODEL if part in recorded and part in fingerprint]
    old, new = ({part: of[part] for part in both} for of in (plain(recorded), fingerprint))
    if found := list(differences(old, new)):
        raise ValueError(f"the pilot must be of the model that is trained, got another ({'; '.join(found)})")


def needed_values(solution: Solution) -> list[str]:
    """The values that have a weight, directly or by a feature derived from them."""
    each = zip(solution.resolved.specs, solution.weights.array, strict=True)
    return list(dict.fromkeys(spec.value for spec, weight in each if weight))


def check_rewards(solution: Solution, rewards: Mapping[str, Reward]) -> None:
    """What has a weight must be measured, and as it was on the pilot."""
    measured = {
        column.name: {"definition": column.definition, "version": reward.version, "scale": column.scale}
        for reward in rewards.values()
        for column in reward.columns
    }
    if absent := [name for name in needed_values(solution) if name not in measured]:
        raise ValueError(
            f"rewards must measure what has a weight; {', '.join(absent)} is not among "
            f"{', '.join(measured) or 'none'}"
        )
    found: list[str] = []
    for name, about in (solution.fingerprint.get("rewards") or {}).items():
        now = measured.get(name, {})
        both = [key for key in ("definition", "version", "scale") if key in about and key in now]
        found += differences({key: about[key] for key in both}, {key: now[key] for key in both}, name)
    if found:
        raise ValueError(
            f"values must be measured as the pilot's were, got others ({'; '.join(found)}): score the pilot anew"
        )


def check_settings(settings: Mapping[str, Any], own: Mapping[str, str]) -> None:
    """Settings of the trainer that would move the optimum are refused, and those with a name here: all's and `own`."""
    named = {**_OWN, **own}
    for name, entry in settings.items():
        if name in named:
            raise ValueError(f"settings: {name} is said by {named[name]} here, got {name}={entry!r}")
        allowed, reason = _MOVES.get(name, ((entry,), ""))
        if not _among(entry, allowed):
            raise ValueError(
                f"settings: {name} must be {allowed[0]}, since it would move the optimum: {reason}; got {entry!r}"
            )


def whole_numbers(**numbers: object) -> None:
    """Each must be a whole number, 1 or more."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {number!r}")


def _among(entry: object, allowed: Sequence[object]) -> bool:
    return any(entry == one and isinstance(entry, bool) == isinstance(one, bool) for one in allowed)
