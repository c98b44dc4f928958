"""The page of the API, from the docstrings of what `valuepalette` exports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import valuepalette

HEAD = """\
# API

<!-- Written by `make docs` from docstrings; edit src/valuepalette/ instead. -->

Everything that `import valuepalette as vp` offers. Names are imported when they are first used, so that importing costs
nothing.
"""

GROUPS = {
    "Pilots": "Pilot read_prompts example_pilot open_shards ParquetShards on_ray RayShards",
    "Asking and solving": "Palette solve Solution Status Infeasible levels reach",
    "When it cannot be had, and how many candidates": "adjust Adjusted plan Plan solve_sequentially Ascent",
    "What can be had, and which weights do": "region Region cloud Cloud landscape Landscape",
    "What it costs, and how sure it is": "Sensitivity Price robustness Robustness bootstrap Bootstrap crossfit "
    "CrossFit sample_size SampleSize",
    "Models": "open_engine Engine Prompt Message Sampling Candidate",
    "Rewards": "open_reward Reward Column train_head train_reward Learned",
    "Collecting": "sample score",
    "Aligning": "Decoder choose Answers finetune distill corrected Task Tuned RewardWeights export_pairs export_sft "
    "write_rows",
    "Judging": "evaluate Evaluation monitor Monitoring Traffic",
    "Studies": "Study",
    "Telling of a run": "write_report gather_report render_report Report",
}

CALLED = {"Column", "Decoder", "Palette", "Sampling", "Task"}
"""Classes that a user makes."""

COLUMNS = r"( ?\S+(?:,? \S+)*) {2,}(\S.*)"
"""A name, two blanks or more, and what it is."""


def written() -> str:
    """The page as it should be."""
    parts = [HEAD]
    for group, names in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_entry(name) for name in names.split()]
    return "\n".join(parts)


def _entry(name: str) -> str:
    thing = getattr(valuepalette, name)
    doc = inspect.getdoc(thing) if inspect.isclass(thing) or inspect.isfunction(thing) else None
    parts = [f"### `{name}`\n", *_fenced(_signature(name, thing)), *_described(doc or "")]
    if inspect.isclass(thing):
        parts += [f"- `{shown}`: {line}" for shown, line in _members(thing)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _signature(name: str, thing: object) -> str:
    """On a line, or a line for each argument; of a result nothing: what returns it is what one calls."""
    if not callable(thing):
        return f"{name} = {thing}".replace("collections.abc.", "").replace("valuepalette.engines.", "")
    if inspect.isclass(thing) and name not in CALLED:
        return ""
    said = inspect.signature(thing)
    bare = said.replace(
        parameters=[
            argument.replace(annotation=_Plain(argument.annotation)) for argument in said.parameters.values()
        ],
        return_annotation=said.empty if inspect.isclass(thing) else _Plain(said.return_annotation),
    )
    line = f"{name}{bare}"
    if len(line) <= 100:
        return line
    inside, back = line[len(name) + 1 :].rsplit(")", 1)
    return "\n".join([f"{name}(", *(f"    {argument}" for argument in _parted(inside)), f"){back}"])


def _parted(arguments: str) -> list[str]:
    """At the commas that no bracket holds."""
    parts, depth = [""], 0
    for sign in arguments:
        depth += (sign in "[(") - (sign in "])")
        parts[-1] += sign
        if sign == "," and not depth:
            parts.append("")
    return [part.strip() for part in parts]


class _Plain(str):
    """An annotation as it is written."""

    def __repr__(self) -> str:
        return str(self)


def _described(doc: str) -> Iterator[str]:
    """Prose as prose, what is set in columns as a list, mathematics and examples as they stand."""
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        if re.match(COLUMNS, paragraph):
            yield "\n".join(_listed(paragraph)) + "\n"
        elif paragraph.startswith((" ", ">>>")):
            yield from _fenced(paragraph)
        else:
            yield paragraph + "\n"


def _listed(paragraph: str) -> Iterator[str]:
    items = list[list[str]]()
    for line in paragraph.splitlines():
        found = re.match(COLUMNS, line)
        if found:
            items.append([f"- `{found[1].strip()}`: {found[2]}"])
        else:
            items[-1].append(line.strip())
    yield from (" ".join(item) for item in items)


def _fenced(text: str) -> list[str]:
    return ["```text", inspect.cleandoc(text), "```\n"] if text else []


def _members(thing: type) -> Iterator[tuple[str, str]]:
    """Methods and properties with the first sentence of their docstrings."""
    for name, member in vars(thing).items():
        doc = inspect.getdoc(getattr(thing, name)) if not name.startswith("_") else None
        if not doc or isinstance(member, type):
            continue
        found = getattr(thing, name)
        arguments = f"({_names(found)})" if callable(found) and not isinstance(member, property) else ""
        yield f".{name}{arguments}", " ".join(doc.split("\n\n")[0].split())


def _names(method: Callable[..., object]) -> str:
    said = [
        argument.replace(annotation=argument.empty)
        for argument in inspect.signature(method).parameters.values()
    ]
    return str(inspect.Signature([argument for argument in said if argument.name != "self"]))[1:-1]
