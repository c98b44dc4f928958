"""Draws docs/images/demo.svg, the demo as it scrolls by, from what it printed.

    valuepalette demo > docs/images/demo.txt    records it
    python docs/recording.py                    draws what was recorded

A stylesheet moves the page, so that it plays where scripts do not run. Who prefers less motion sees the first part.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

RECORDED = Path(__file__).parent / "images" / "demo.txt"
PICTURE = RECORDED.with_suffix(".svg")

COLUMNS, ROWS, LINE, LETTER, EDGE, BAR = 102, 27, 19, 8.45, 16, 34
WIDTH, HEIGHT = round(2 * EDGE + COLUMNS * LETTER), 2 * EDGE + BAR + ROWS * LINE
SECONDS, GLIDE = 5.0, 0.7
"""That a part is shown, and that the way to the next takes."""

STYLE = """\
.page { fill: #f6f8fa; stroke: #d1d9e0 }
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328;
  white-space: pre }
.head { fill: #0969da; font-weight: 600 } .rule { fill: #818b98 } .good { fill: #1a7f37 } .bad { fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
  .page { fill: #151b23; stroke: #3d444d }
  text { fill: #f0f6fc }
  .head { fill: #4493f8 } .rule { fill: #9198a1 } .good { fill: #3fb950 } .bad { fill: #f0883e }
}"""


def main() -> None:
    PICTURE.write_text(drawn(RECORDED.read_text(encoding="utf-8")), encoding="utf-8")


def drawn(recorded: str) -> str:
    """The picture: every line of what was printed, and a stop at each part that it numbers."""
    lines = ["$ make demo", "", *recorded.strip("\n").splitlines()]
    last = max(len(lines) - ROWS, 0)
    stops = [0, *(min(at, last) for at, line in enumerate(lines) if re.match(r"\d+\. ", line))]
    texts = "\n".join(_line(at, line) for at, line in enumerate(lines) if line.strip())
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
  aria-label="The demo in a terminal: a pilot, a palette and its weights, a proof, and what was got on unseen prompts">
<style>
{STYLE}
{_motion(stops)}
</style>
<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>
<circle cx="20" cy="18" r="6" fill="#ff5f57"/><circle cx="40" cy="18" r="6" fill="#febc2e"/>
<circle cx="60" cy="18" r="6" fill="#28c840"/>
<svg x="{EDGE}" y="{BAR + EDGE // 2}" width="{WIDTH - 2 * EDGE}" height="{ROWS * LINE}">
<g class="scroll">
{texts}
</g>
</svg>
</svg>
"""


def _motion(stops: list[int]) -> str:
    whole = len(stops) * SECONDS
    frames = list[str]()
    for number, at in enumerate(stops):
        start, end = (100 * (number + share) * SECONDS / whole for share in (0, 1 - GLIDE / SECONDS))
        frames.append(f"{start:.2f}%, {end:.2f}% {{ transform: translateY({-at * LINE}px) }}")
    return (
        f"@keyframes scroll {{ {' '.join(frames)} 100% {{ transform: none }} }}\n"
        f"@media (prefers-reduced-motion: no-preference) {{ .scroll {{ animation: scroll {whole:.0f}s infinite }} }}"
    )


def _line(at: int, line: str) -> str:
    kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, line)), "")
    mark = f' class="{kind}"' if kind else ""
    return f'<text y="{at * LINE + 14}"{mark} xml:space="preserve">{escape(line)}</text>'


KINDS = {
    "head": r"^\d+\. |^\$ ",
    "rule": r"^-{5,}$",
    "good": r"^OPTIMAL|  met  |^  better",
    "bad": r"^cannot average|^Choosing among|^  worse",
}
"""How lines look, by what is in them."""


if __name__ == "__main__":
    main()
