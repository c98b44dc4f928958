"""From a line of a study's `[values]` to the reward it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from valuepalette.rewards import Reward, embedded
from valuepalette.rewards.classifier import Classifier
from valuepalette.rewards.embedding import Coherence
from valuepalette.rewards.endpoint import Endpoint
from valuepalette.rewards.implicit import ImplicitReward
from valuepalette.rewards.judge import Judge
from valuepalette.rewards.learned import LearnedHead
from valuepalette.rewards.lexical import Diversity, Length
from valuepalette.rewards.perplexity import Perplexity
from valuepalette.rewards.python import PythonFunction
from valuepalette.rewards.reward_model import RewardModel
from valuepalette.rewards.served import Served

__all__ = ["REWARDS", "SERVERS", "open_reward"]

REWARDS: Mapping[str, Callable[..., Reward]] = {
    "diversity": Diversity,
    "length": Length,
    "perplexity": Perplexity,
    "implicit": ImplicitReward,
    "classifier": Classifier,
    "reward_model": RewardModel,
    "embedding": Coherence.by,
    "head": LearnedHead,
    "python": PythonFunction,
    "endpoint": Endpoint,
    "vllm": Served,
    "judge": Judge,
    "embedded:harmlessness": embedded.harmlessness,
    "embedded:toxicity": embedded.toxicity,
    "embedded:positiveness": embedded.positiveness,
    "embedded:sentiment": embedded.sentiment,
    "embedded:humor": embedded.humor,
    "embedded:coherence": embedded.coherence,
    "embedded:relevance": embedded.relevance,
}
"""What `reward` may name, and what opens it. Its options are that function's keyword arguments."""

SERVERS = frozenset({"endpoint", "vllm", "judge"})
"""Those that ask a server, within limits that one process keeps."""

_BY_THE_STUDY = {"perplexity": "model", "implicit": "base"}
"""The option that is the study's model unless it is given."""


def open_reward(name: str, spec: str | Mapping[str, object], *, model: str | None = None) -> Reward:
    """The reward that a line `name = spec` of a study's `[values]` describes.

    `spec` is a reward's name, or a mapping with the name under `reward` and its options beside it. `model` is
    the study's base model, by which perplexity measures, and with which an implicit reward compares, unless they
    name another. A reward of one column calls it `name`. Nothing heavy is loaded before the reward first scores.

    Raises ValueError for an unknown reward, an option it lacks, or a value an option may not have, each naming the
    value and what is allowed; ModuleNotFoundError, with the command, where a package is missing.

    >>> open_reward("diversity", "diversity").columns[0].name
    'diversity'
    >>> open_reward("size", {"reward": "length", "unit": "characters"}).columns[0].definition
    'characters in the answer'
    """
    options: dict[str, Any] = {"reward": spec} if isinstance(spec, str) else dict(spec)
    kind = options.pop("reward", None)
    if kind not in REWARDS:
        close = get_close_matches(str(kind), REWARDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"value {name!r}: reward must be one of {', '.join(REWARDS)}; got {kind!r}{hint}")
    opener = REWARDS[kind]
    parameters = inspect.signature(opener).parameters
    allowed = [parameter for parameter in parameters if parameter != "name"]
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise ValueError(
            f"value {name!r}: options of reward {kind!r} are {', '.join(allowed)}; got {unknown[0]!r}"
        )
    if kind in _BY_THE_STUDY and model is not None:
        options.setdefault(_BY_THE_STUDY[kind], model)
    missing = [
        parameter
        for parameter in allowed
        if parameters[parameter].default is inspect.Parameter.empty and parameter not in options
    ]
    if missing:
        raise ValueError(
            f"value {name!r}: reward {kind!r} needs {' and '.join(missing)}; got {', '.join(options) or 'none'}"
        )
    try:
        return opener(name=name, **options)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"value {name!r}: {error}", name=error.name) from error
    except (ValueError, TypeError) as error:
        kind_of_error = ValueError if isinstance(error, ValueError) else TypeError
        raise kind_of_error(f"value {name!r}: {error}") from error
