"""The studio: from a slider that moves to what the browser has painted.

2,000 prompts of 16 answers with six values, in a real browser. A drag is sixty movements of the mouse; each reply that
is painted counts, from the movement it answers until the browser has painted it. Where the time goes is measured in
this process.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

PALETTE = "#v.humor=%2B0.1&v.warmth=%2B0.2&v.brevity=keep&v.accuracy=base-0.1&v.caution=keep"
DRAGS = 2


def run() -> str:
    """The section of the page."""
    from studios import CHROMIUM, opened, studio, synthetic

    if CHROMIUM is None:
        raise SystemExit("the studio's benchmark needs chromium: apt-get install chromium")
    pilot = synthetic()
    parts = _parts(pilot)
    with studio(opened(pilot), apart=True) as url:
        found = {k: _browse(url, f"{PALETTE}&k={k}") for k in (16, 8)}
    rows = "\n".join(
        f"| {k} | {len(times)} | {statistics.median(times):.0f} ms | {_quantile(times, 0.9):.0f} ms | "
        f"{statistics.median(alone):.0f} ms | {drawn:.0f} ms | {ranges:.0f} ms |"
        for k, (times, alone, ranges, drawn) in found.items()
    )
    where = "\n".join(f"| {name} | {1000 * seconds:.1f} ms |" for name, seconds in parts.items())
    return f"""\
From a movement of a slider until verdict, weights, levels, radar, distributions and answers are painted, in a browser
on the same machine, on 2,000 prompts × 16 answers × 6 values. A drag is sixty movements; while it lasts the ranges of
the other sliders are computed beside it, by a process of its own. A movement alone is a key that is pressed at rest.
Ranges are exact once all six are, after the slider is let go.

| k | painted in {DRAGS} drags | median | 90 % | a movement alone | drawing, processor time | ranges exact |
|---|---:|---:|---:|---:|---:|---:|
{rows}

The goal is 50 ms, on a machine that does nothing else. What of it is the server's, at k = 16, in time of the
processor, which other work on the machine does not change; the pilot was asked of these values before, as it is under a
slider, so its features are laid out:

| part | processor time, median |
|---|---:|
{where}

Load average while this was measured: {os.getloadavg()[0]:.1f}.
"""


def _parts(pilot: Any) -> dict[str, float]:
    from studios import opened
    from valuepalette.posing import pose
    from valuepalette.studio.asking import Solving, read_palette
    from valuepalette.studio.atelier import Atelier

    made = Atelier(opened(pilot))
    entries = {
        "humor": "+0.4",
        "warmth": "+0.2",
        "brevity": "keep",
        "accuracy": "base-0.1",
        "caution": "keep",
    }
    asked = Solving(entries=entries, prompt=0)
    palette = read_palette(asked, pilot.values)
    posed = pose(pilot, palette, 16, "prompt", "prompts", 0)
    import valuepalette as vp

    return {
        "reading the palette on the pilot": _timed(lambda: pose(pilot, palette, 16, "prompt", "prompts", 0)),
        "finding the weights, with their proof": _timed(lambda: posed.optimise(16)),
        "the whole of `solve`": _timed(lambda: vp.solve(pilot, palette, 16)),
        "and distributions and answers": _timed(lambda: made.solve(asked)),
    }


def _timed(call: Any, rounds: int = 15) -> float:
    call()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return statistics.median(times)


def _browse(url: str, hash_: str) -> tuple[list[float], list[float], float, float]:
    from playwright.sync_api import sync_playwright

    from studios import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{url}/{hash_}")
        page.wait_for_selector("body[data-status]")
        _exact(page)
        slider = page.locator(".row input[type=range]").first
        box = slider.bounding_box()
        assert box is not None
        middle, inner, left = box["y"] + box["height"] / 2, box["width"] - 22, box["x"] + 11
        drawing = page.context.new_cdp_session(page)
        drawing.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = _busy(drawing)
        times: list[float] = []
        ranges: list[float] = []
        for _ in range(DRAGS):
            at = float(slider.input_value()) / 400
            page.evaluate("() => performance.clearMeasures()")
            page.mouse.move(left + inner * at, middle)
            page.mouse.down()
            for step in range(60):
                share = 0.5 + 0.12 * (1 - abs(step - 30) / 30)
                page.mouse.move(left + inner * share, middle)
                page.wait_for_timeout(16)
            page.mouse.up()
            began = time.perf_counter()
            times += _painted(page)
            _exact(page)
            ranges.append(1000 * (time.perf_counter() - began) - 350)
        drawn = 1000 * (_busy(drawing) - before) / max(1, len(times))
        alone: list[float] = []
        slider.focus()
        for _ in range(5):
            page.evaluate("() => performance.clearMeasures()")
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(300)  # nothing is asked of the page meanwhile, which would draw for that
            _exact(page)
            alone.append(_painted(page)[0])
            page.wait_for_timeout(1500)  # until the plan is made, too
        browser.close()
    return times, alone, statistics.median(ranges), drawn


def _busy(drawing: Any) -> float:
    """Seconds that the page's own thread has spent."""
    found = drawing.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in found if metric["name"] == "TaskDuration")


def _painted(page: Any) -> list[float]:
    return page.evaluate(
        "() => performance.getEntriesByName('studio:painted').map((entry) => entry.duration)"
    )


def _exact(page: Any) -> None:
    page.wait_for_selector("body[data-ranges=exact]")


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]
