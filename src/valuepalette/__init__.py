"""Align a language model to several values at once by asking for levels.

    import valuepalette as vp

    pilot = vp.example_pilot()
    solution = vp.solve(pilot, {"humor": "reach 40%", "harmlessness": "keep"})
    print(solution)

Importing this loads nothing heavy: a name is imported from its module when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valuepalette.adjusting import Adjusted, adjust
    from valuepalette.attainment import Evaluation
    from valuepalette.bootstrapping import Bootstrap, bootstrap
    from valuepalette.clouds import Cloud, cloud
    from valuepalette.collecting import sample, score
    from valuepalette.crossfitting import CrossFit, crossfit
    from valuepalette.decoding import Answers, Decoder, choose
    from valuepalette.distributing import RayShards, on_ray
    from valuepalette.dual import Status
    from valuepalette.engines import Candidate, Engine, Message, Prompt, Sampling
    from valuepalette.engines.opening import open_engine
    from valuepalette.evaluation import evaluate
    from valuepalette.example import example_pilot
    from valuepalette.exporting import export_pairs, export_sft, write_rows
    from valuepalette.landscapes import Landscape, landscape
    from valuepalette.monitoring import Monitoring, monitor
    from valuepalette.palette import Palette
    from valuepalette.perturbing import Robustness, robustness
    from valuepalette.pilot import Pilot, read_prompts
    from valuepalette.planner import plan
    from valuepalette.plans import Plan
    from valuepalette.pricing import Price, Sensitivity
    from valuepalette.regions import Region, region
    from valuepalette.report import Report, gather_report, render_report, write_report
    from valuepalette.rewards import Column, Reward
    from valuepalette.rewards.learned import Learned
    from valuepalette.rewards.learning.heads import train_head
    from valuepalette.rewards.learning.pairs import train_reward
    from valuepalette.rewards.opening import open_reward
    from valuepalette.sequencing import Ascent, solve_sequentially
    from valuepalette.shards import ParquetShards, open_shards
    from valuepalette.sizing import SampleSize, sample_size
    from valuepalette.solution import Infeasible, Solution
    from valuepalette.solving import levels, reach, solve
    from valuepalette.study import Study
    from valuepalette.traffic import Traffic
    from valuepalette.trainers import RewardWeights
    from valuepalette.training import Task, Tuned
    from valuepalette.training.correcting import corrected
    from valuepalette.training.distilling import distill
    from valuepalette.training.finetuning import finetune

    __version__: str

__all__ = [
    "Adjusted",
    "Answers",
    "Ascent",
    "Bootstrap",
    "Candidate",
    "Cloud",
    "Column",
    "CrossFit",
    "Decoder",
    "Engine",
    "Evaluation",
    "Infeasible",
    "Landscape",
    "Learned",
    "Message",
    "Monitoring",
    "Palette",
    "ParquetShards",
    "Pilot",
    "Plan",
    "Price",
    "Prompt",
    "RayShards",
    "Region",
    "Report",
    "Reward",
    "RewardWeights",
    "Robustness",
    "SampleSize",
    "Sampling",
    "Sensitivity",
    "Solution",
    "Status",
    "Study",
    "Task",
    "Traffic",
    "Tuned",
    "__version__",
    "adjust",
    "bootstrap",
    "choose",
    "cloud",
    "corrected",
    "crossfit",
    "distill",
    "evaluate",
    "example_pilot",
    "export_pairs",
    "export_sft",
    "finetune",
    "gather_report",
    "landscape",
    "levels",
    "monitor",
    "on_ray",
    "open_engine",
    "open_reward",
    "open_shards",
    "plan",
    "reach",
    "read_prompts",
    "region",
    "render_report",
    "robustness",
    "sample",
    "sample_size",
    "score",
    "solve",
    "solve_sequentially",
    "train_head",
    "train_reward",
    "write_report",
    "write_rows",
]

_MODULES = {
    "adjusting": ("Adjusted", "adjust"),
    "attainment": ("Evaluation",),
    "bootstrapping": ("Bootstrap", "bootstrap"),
    "clouds": ("Cloud", "cloud"),
    "collecting": ("sample", "score"),
    "crossfitting": ("CrossFit", "crossfit"),
    "decoding": ("Answers", "Decoder", "choose"),
    "distributing": ("RayShards", "on_ray"),
    "dual": ("Status",),
    "engines": ("Candidate", "Engine", "Message", "Prompt", "Sampling"),
    "engines.opening": ("open_engine",),
    "evaluation": ("evaluate",),
    "example": ("example_pilot",),
    "exporting": ("export_pairs", "export_sft", "write_rows"),
    "landscapes": ("Landscape", "landscape"),
    "monitoring": ("Monitoring", "monitor"),
    "palette": ("Palette",),
    "perturbing": ("Robustness", "robustness"),
    "pilot": ("Pilot", "read_prompts"),
    "planner": ("plan",),
    "plans": ("Plan",),
    "pricing": ("Price", "Sensitivity"),
    "regions": ("Region", "region"),
    "report": ("Report", "gather_report", "render_report", "write_report"),
    "rewards": ("Column", "Reward"),
    "rewards.learned": ("Learned",),
    "rewards.learning.heads": ("train_head",),
    "rewards.learning.pairs": ("train_reward",),
    "rewards.opening": ("open_reward",),
    "sequencing": ("Ascent", "solve_sequentially"),
    "sizing": ("SampleSize", "sample_size"),
    "shards": ("ParquetShards", "open_shards"),
    "solution": ("Infeasible", "Solution"),
    "solving": ("levels", "reach", "solve"),
    "study": ("Study",),
    "traffic": ("Traffic",),
    "trainers": ("RewardWeights",),
    "training": ("Task", "Tuned"),
    "training.correcting": ("corrected",),
    "training.distilling": ("distill",),
    "training.finetuning": ("finetune",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("valuepalette")
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"valuepalette.{module}"), name)
    raise AttributeError(f"module 'valuepalette' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
