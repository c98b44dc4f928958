"""What a request may say. A field that is not here is refused by name; none is dropped.

applied   prompts, n, seed, stream, user, and the gateway's own: palette, columns, candidates, return_candidates
compared  temperature, top_p, top_k, max_tokens, stop, system turns: the pilot's, or a difference
extras    what only the model's server could do: tools, images, `response_format`, penalties, …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from valuepalette.engines import Message, Prompt
from valuepalette.server.deciding import Wanted
from valuepalette.server.policies import Refusal

__all__ = ["Asked", "ChatRequest", "CompletionRequest", "RewardRequest"]

Scalar = str | int | float | bool
Entry = str | float
Entries = Entry | list[Entry]
PaletteEntries = dict[str, Entries | dict[str, Entries] | dict[str, dict[str, Entries]]]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]

_OWN = ("model", "palette", "columns", "candidates", "return_candidates")
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "stop": "stop",
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "store": (False,),
    "metadata": ({},),
    "echo": (False,),
    "suffix": ("",),
}
"""Of an extra: what asks for nothing."""


@dataclass(frozen=True)
class Asked:
    """A request, read.

    path      of OpenAI's protocol, without the version
    sampling  the settings it names, by `Sampling`'s names
    system    its system turns, by place
    extras    the fields that only the model's server understands
    raw       the request as it came, but for the gateway's own fields
    """

    path: Literal["chat/completions", "completions"]
    wanted: Wanted
    prompts: tuple[Prompt, ...]
    n: int = 1
    seed: int | None = None
    stream: bool = False
    user: str | None = None
    show: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[int, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Seed | None = None
    user: str | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    palette: str | PaletteEntries | None = None
    columns: dict[str, Scalar] | None = None
    candidates: int | None = None
    return_candidates: bool | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def _wanted(self) -> Wanted:
        return Wanted(self.model, self.palette, self.candidates, self.columns or {})

    def _told(self) -> dict[str, Any]:
        """What the request says, without what it leaves open."""
        said = self.model_dump(exclude_unset=True)
        return {name: entry for name, entry in said.items() if entry is not None}

    def _common(self, known: Sequence[str]) -> dict[str, Any]:
        said = self._told()
        sampling = {}
        for name, setting in _SAMPLING.items():
            if name in said:
                entry = said[name]
                if name == "stop":
                    entry = (entry,) if isinstance(entry, str) else tuple(entry)
                if sampling.setdefault(setting, entry) != entry:
                    raise Refusal(
                        400, name, f"{name} must be {sampling[setting]}, as max_tokens says, got {entry}"
                    )
        extras = [
            name
            for name, entry in said.items()
            if name not in (*known, *_OWN, *_SAMPLING, "n", "seed", "user", "stream")
            and not any(entry == neutral for neutral in _NEUTRAL.get(name, ()))
        ]
        return {
            "wanted": self._wanted(),
            "n": self.n or 1,
            "seed": self.seed,
            "stream": bool(self.stream),
            "user": self.user,
            "show": bool(self.return_candidates),
            "sampling": sampling,
            "extras": tuple(extras),
            "raw": {name: entry for name, entry in said.items() if name not in _OWN},
        }


class _Part(BaseModel):
    """A part of a turn; all but texts are extras."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant", "developer", "tool", "function"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    refusal: str | None = None
    audio: Any = None

    def read(self, place: int) -> tuple[Message, list[str]]:
        """The turn as engines know it, and what of it they do not."""
        extras: list[str] = []
        if self.role not in ("system", "user", "assistant"):
            extras.append(f"messages[{place}].role {self.role}")
        others = ("name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio")
        extras += [f"messages[{place}].{name}" for name in others if getattr(self, name) not in (None, [])]
        if isinstance(self.content, list):
            kinds = [part.type for part in self.content if part.type != "text" or part.text is None]
            extras += [f"messages[{place}].content {kind:.40}" for kind in dict.fromkeys(kinds)]
            text = "\n".join(part.text or "" for part in self.content)
        else:
            if self.content is None and not extras:
                raise Refusal(400, "messages", f"messages[{place}] must have content")
            text = self.content or ""
        return Message(role=self.role, content=text), extras


class ChatRequest(_Request):
    """`/v1/chat/completions`."""

    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_completion_tokens: int | None = None
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None

    def read(self, *, chats: bool, texts: bool) -> Asked:
        """`chats`: prompts are put into a template; `texts`: the pilot's prompts are texts, as a lone turn then is."""
        found = [turn.read(place) for place, turn in enumerate(self.messages)]
        turns = [message for message, _ in found]
        common = self._common(["messages"])
        extras = (*common.pop("extras"), *(extra for _, own in found for extra in own))
        if not extras and turns[-1]["role"] == "assistant":
            raise Refusal(
                400, "messages", "messages must end where the answer begins, got an assistant's turn last"
            )
        alone = len(turns) == 1 and turns[0]["role"] == "user"
        if not extras and not chats and not alone:
            raise Refusal(
                400,
                "messages",
                "the model has no chat template: messages must be one user turn, which it continues",
            )
        prompt: Prompt = turns[0]["content"] if alone and (texts or not chats) else turns
        system = {i: turn["content"] for i, turn in enumerate(turns) if turn["role"] == "system"}
        return Asked(path="chat/completions", prompts=(prompt,), system=system, extras=extras, **common)


class CompletionRequest(_Request):
    """`/v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1)]
    stream_options: dict[str, Any] | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None

    def read(self, *, chats: bool, texts: bool) -> Asked:
        if chats:
            raise Refusal(
                400, "prompt", "the pilot's prompts went through a chat template: use /v1/chat/completions"
            )
        prompts = (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)
        common = self._common(["prompt"])
        if self.best_of == common["n"]:
            common["extras"] = tuple(name for name in common["extras"] if name != "best_of")
        return Asked(path="completions", prompts=prompts, **common)


class RewardRequest(BaseModel):
    """`/v1/rewards`: responses to prompts; or, as OpenRLHF's hook sends them, `query`, each a prompt and its response.

    `labels` is what that hook sends beside; nothing here depends on it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str | None = None
    palette: str | PaletteEntries | None = None
    beta: float | None = None
    candidates: int | Literal["limit"] | None = None
    prompts: list[str | list[dict[str, str]]]
    responses: list[str] | None = None
    query: list[str] | None = None
    labels: list[Any] | None = None
    columns: dict[str, Scalar | list[Scalar]] | None = None

    def exchanges(self, end: str | None) -> tuple[list[Prompt], list[str]]:
        """Prompts and responses, as many; `end` is cut from the end of responses, such as a model's "</s>"."""
        prompts: list[Prompt] = []
        for place, prompt in enumerate(self.prompts):
            if not isinstance(prompt, str):
                if not prompt or any(set(turn) != {"role", "content"} for turn in prompt):
                    raise Refusal(
                        400, "prompts", f"prompts[{place}] must be a text or turns of role and content"
                    )
                prompts.append([Message(role=turn["role"], content=turn["content"]) for turn in prompt])
            else:
                prompts.append(prompt)
        if (self.responses is None) == (self.query is None):
            raise Refusal(400, "responses", "a request has responses or query, one of them")
        given = self.responses if self.responses is not None else self.query or []
        if len(given) != len(prompts) or not given:
            raise Refusal(
                400,
                "responses",
                f"there must be a response for each prompt, got {len(given)} for {len(prompts)}",
            )
        if self.query is not None:
            given = [_rest(place, query, prompts[place]) for place, query in enumerate(self.query)]
        return prompts, [text.removesuffix(end) if end else text for text in given]


def _rest(place: int, query: str, prompt: Prompt) -> str:
    if not isinstance(prompt, str) or not query.startswith(prompt):
        raise Refusal(400, "query", f"query[{place}] must begin with the text of prompts[{place}]")
    return query[len(prompt) :]
