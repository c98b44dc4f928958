"""Answers of the embedded model through the gateway, and the same decoder without it.

The packaged pilot, a palette of "humor reach 40%, harmlessness keep", k = 8 candidates of at most 40 tokens, each drawn
and scored on this machine's processor. What the gateway adds is measured by itself under "What the gateway adds"; here
stands what a user waits for.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request

from benchmarks.serving import asked_of, started

K, ANSWERS, WORKERS = 8, 12, 4
REWARDS = {"humor": "embedded:humor", "harmlessness": "embedded:harmlessness"}
PALETTE = {"humor": "reach 40%", "harmlessness": "keep"}
MODEL = "smollm"


def gateway(port: int, _: int) -> None:
    """The gateway with the model in its own process."""
    import uvicorn

    import valuepalette as vp
    from valuepalette.server.app import create_app
    from valuepalette.server.gateway import Gateway

    pilot = vp.example_pilot()
    made = Gateway(
        pilot,
        vp.open_engine("embedded:smollm2-135m", dtype="float32"),
        {name: vp.open_reward(name, spec) for name, spec in REWARDS.items()},
        name=MODEL,
        palettes={"playful": vp.Palette(PALETTE)},
        candidates=K,
    )
    uvicorn.run(create_app(made), port=port, log_level="error", ws="none")


def decoded() -> list[float]:
    """Seconds of each answer, one after another, of the decoder in this process."""
    import valuepalette as vp

    solution = vp.solve(vp.example_pilot(), PALETTE, candidates=K)
    engine = vp.open_engine("embedded:smollm2-135m", dtype="float32")
    decoder = vp.Decoder(engine, REWARDS, solution)
    decoder.generate(["Say -1."], seed=0)
    took = list[float]()
    for number in range(ANSWERS):
        began = time.perf_counter()
        decoder.generate([f"Say {number}."], seed=number)
        took.append(time.perf_counter() - began)
    return took


def parts(port: int) -> dict[str, float]:
    """Seconds by part of the work, as the gateway itself counts them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page = answer.read().decode()
    return {
        name: float(sum_)
        for name, sum_ in re.findall(r'valuepalette_seconds_sum\{part="(\w+)"\} (\S+)', page)
    }


def run() -> str:
    alone = sorted(decoded())
    served, port = started(gateway)
    try:
        model = f"{MODEL}/playful"
        asyncio.run(asked_of(port, model, 1, 2, 1))
        one, one_rate = asyncio.run(asked_of(port, model, 1, ANSWERS, 1))
        many, many_rate = asyncio.run(asked_of(port, model, 1, ANSWERS, WORKERS))
        shares = parts(port)
    finally:
        served.terminate()
    rows = [
        ("decoder, one after another", alone, len(alone) / sum(alone)),
        ("gateway, one after another", sorted(one), one_rate),
        (f"gateway, {WORKERS} at a time", sorted(many), many_rate),
    ]
    lines = ["| | p50 s | p95 s | answers a minute |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {took[len(took) // 2]:.2f} | {took[int(0.95 * len(took))]:.2f} | {60 * rate:.0f} |"
        for name, took, rate in rows
    ]
    whole = shares.pop("whole")
    told = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in shares.items())
    about = (__doc__ or "").partition("\n\n")[2]
    return "\n".join([about, *lines, "", f"{ANSWERS} answers each. Of the gateway's time: {told}."])
