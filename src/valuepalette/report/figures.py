"""Which figures a report has, and what each says in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from valuepalette import plots
from valuepalette.attainment import Evaluation
from valuepalette.report.content import Method, PaletteReport, Report, Spread
from valuepalette.report.drawing import Picture, picture
from valuepalette.report.spelling import minus
from valuepalette.solution import Solution
from valuepalette.tabulating import decimals, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Figures", "drawn_figures"]

Figures = Mapping[tuple[str, ...], list[Picture]]
"""By ("all",), (palette,) or (palette, method)."""

MOST = 8
"""Distributions that one method shows."""


def drawn_figures(report: Report) -> Figures:
    """Every figure of a report; without matplotlib it says what to install."""
    count = itertools.count(1)
    found: dict[tuple[str, ...], list[Picture]] = {}
    whole = {
        palette.name: subject for palette in report.palettes if (subject := _subject(palette)) is not None
    }
    if len(whole) > 1:
        found["all",] = list(_radar(whole, count, "What the palettes got", "All palettes"))
    for palette in report.palettes:
        for method in palette.methods:
            found[palette.name, method.name] = [
                *_attainment(method, count),
                *_method_radar(palette, method, count),
                *_spreads(method, count),
            ]
        solution = palette.solution
        if solution is not None and solution.certificate is None and not any(m.got for m in palette.methods):
            found[palette.name,] = list(
                _radar({"promised": solution}, count, f"What {palette.name} promises", "What is promised")
            )
    return found


def _subject(palette: PaletteReport) -> Solution | Evaluation | None:
    """What a palette got, else what it promises."""
    for method in palette.methods:
        if method.evaluation is not None and any(
            row.quantile == row.quantile for row in method.evaluation.rows
        ):
            return method.evaluation
    solution = palette.solution
    return solution if solution is not None and solution.certificate is None else None


def _method_radar(palette: PaletteReport, method: Method, count: Iterator[int]) -> Iterator[Picture]:
    if method.evaluation is None or palette.solution is None or palette.solution.certificate is not None:
        return
    subjects: dict[str, Solution | Evaluation] = {"promised": palette.solution, "got": method.evaluation}
    yield from _radar(subjects, count, f"What {palette.name} promised and got", "Promised and got")


def _radar(
    subjects: Mapping[str, Solution | Evaluation], count: Iterator[int], title: str, caption: str
) -> Iterator[Picture]:
    """None where fewer than three values have a quantile: two are no area."""
    ranks = {name: _ranks(subject) for name, subject in subjects.items()}
    shared = [name for name in next(iter(ranks.values())) if all(name in ranked for ranked in ranks.values())]
    if len(shared) < 3:
        return
    told = "; ".join(
        f"{label}: " + ", ".join(f"{name} q{100 * ranked[name]:.0f}" for name in shared)
        for label, ranked in ranks.items()
    )
    yield picture(
        plots.radar(subjects, features=shared),
        next(count),
        title,
        f"Radar of levels as quantiles of single answers of the model as it is. {told}.",
        f"{caption}: each level as a quantile of what single answers of the model as it is are. Further out is more.",
    )


def _ranks(subject: Solution | Evaluation) -> dict[str, float]:
    """Quantiles of levels, of those that have one."""
    if isinstance(subject, Evaluation):
        return {row.name: row.quantile for row in subject.rows if row.quantile == row.quantile}
    resolved = subject.resolved
    shares = np.arange(resolved.quantiles.shape[1]) / 100
    return {
        name: float(np.interp(subject.levels[name], resolved.quantiles[i], shares))
        for i, name in enumerate(resolved.features)
        if resolved.specs[i].tail is None and resolved.quantiles[i][0] < resolved.quantiles[i][-1]
    }


def _attainment(method: Method, count: Iterator[int]) -> Iterator[Picture]:
    judged = method.evaluation
    if judged is None or judged.tolerance <= 0 or not any(row.verdict for row in judged.rows):
        return
    told = ", ".join(f"{row.name} {row.verdict.name.lower()}" for row in judged.rows if row.verdict)
    yield picture(
        plots.attainment(judged),
        next(count),
        "Asked and got",
        f"How far each level is from what was asked, with {judged.confidence:.0%} intervals: {told}.",
        f"Asked and got on {judged.prompts:,} prompts. Bars are {judged.confidence:.0%} intervals, the shade is the "
        "tolerance.",
    )


def _spreads(method: Method, count: Iterator[int]) -> Iterator[Picture]:
    for spread in method.spreads[:MOST]:
        before, after = spread.mean
        places = decimals(level=max(abs(before), abs(after)))
        means = f"mean {minus(number(before, places))} before, {minus(number(after, places))} after"
        yield picture(
            _distribution(spread),
            next(count),
            f"{spread.name} before and after",
            f"Distribution of {spread.name} over answers: {means}.",
            f"{spread.name}: {means}.",
            small=True,
        )


def _distribution(spread: Spread) -> Figure:
    asked = None if spread.asked != spread.asked else spread.asked
    (before, after), (even, weights) = spread.values, spread.weights
    if np.ptp(even) > 1e-9 * even.max():
        # The figure counts all answers before alike, so it is given as many of each as weigh.
        order = np.argsort(before, kind="stable")
        share = np.cumsum(even[order]) / even.sum()
        before = before[order][np.searchsorted(share, (np.arange(2000) + 0.5) / 2000)]
    return plots.distribution(before, after, name=spread.name, weights=weights, asked=asked)
