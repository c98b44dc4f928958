// The distribution of each value before and after, with its weight: a card for each.

import { h, say } from "./dom.js";
import { digitsOf, shown } from "./figures.js";

const HEIGHT = 92;

export class Spreads {
  constructor(host, values) {
    this.host = host;
    this.cards = values.map((value) => card(value));
    host.replaceChildren(...this.cards.map((each) => each.root));
    for (const each of this.cards) each.chart = chart(each);
    const resized = new ResizeObserver(() => this.resize());
    resized.observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const each of this.cards) each.chart.redraw();
    });
  }

  resize() {
    for (const each of this.cards) {
      const width = each.plot.clientWidth;
      if (width > 0 && width !== each.chart.width) each.chart.setSize({ width, height: HEIGHT });
    }
  }

  draw(features, after) {
    for (const each of this.cards) {
      const feature = features.get(each.value.name);
      const now = after?.[each.value.name] ?? each.value.before.map(() => null);
      each.now = feature;
      each.chart.setData([each.middles, each.value.before, now]);
      const digits = each.digits;
      say(each.level, feature?.level === null || !feature ? "–" : `${shown(feature.level, digits)} ± ${shown(feature.se, digits)}`);
      say(each.gain, feature?.gain === null || !feature ? "" : `${feature.gain >= 0 ? "+" : ""}${shown(feature.gain, digits)} on ${shown(feature.base, digits)}`);
      say(each.weight, feature?.weight === null || !feature ? "λ –" : `λ ${shown(feature.weight, 3)}`);
    }
  }
}

function card(value) {
  const { edges } = value;
  const middles = edges.slice(1).map((edge, i) => (edge + edges[i]) / 2);
  const plot = h("div", { class: "plot" });
  const level = h("span", { class: "level" }, "–");
  const gain = h("span", { class: "gain" });
  const weight = h("span", { class: "weight" }, "λ –");
  const root = h(
    "article",
    { class: "spread", "aria-label": value.name },
    h("header", {}, h("h3", {}, value.name), weight),
    plot,
    h("footer", {}, level, gain),
  );
  return { value, middles, plot, level, gain, weight, root, digits: digitsOf(edges.at(-1) - edges[0]), now: null };
}

function chart(each) {
  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bars = uPlot.paths.bars({ size: [1, Infinity], gap: 1 });
  const steps = uPlot.paths.stepped({ align: 0 });
  const options = {
    width: Math.max(120, each.plot.clientWidth || 240),
    height: HEIGHT,
    cursor: { show: false },
    legend: { show: false },
    padding: [6, 4, 0, 4],
    scales: { x: { time: false, range: () => [each.value.edges[0], each.value.edges.at(-1)] }, y: { range: (_, __, most) => [0, (most || 1) * 1.06] } },
    axes: [
      {
        size: 20, gap: 3, space: 60, font: "11px system-ui, sans-serif", ticks: { show: false }, grid: { show: false },
        stroke: () => tone("--muted"),
        values: (_, ticks) => ticks.map((tick) => String(Number(tick.toPrecision(4))).replace("-", "−")),
      },
      { show: false },
    ],
    series: [
      {},
      { paths: bars, fill: () => tone("--before"), stroke: () => tone("--before"), width: 0, points: { show: false } },
      { paths: steps, stroke: () => tone("--accent"), fill: () => tone("--accent-wash"), width: 2, points: { show: false } },
    ],
    hooks: { draw: [(plot) => lines(plot, each, tone)] },
  };
  return new uPlot(options, [each.middles, each.value.before, each.value.before.map(() => null)], each.plot);
}

// The base level and the level that is had.
function lines(plot, each, tone) {
  const { left, top, width, height } = plot.bbox;
  const draw = (level, stroke, dash) => {
    if (level === null || level === undefined) return;
    const x = Math.round(plot.valToPos(level, "x", true));
    if (x < left || x > left + width) return;
    plot.ctx.save();
    plot.ctx.strokeStyle = stroke;
    plot.ctx.lineWidth = 1.5 * devicePixelRatio;
    plot.ctx.setLineDash(dash.map((d) => d * devicePixelRatio));
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, top);
    plot.ctx.lineTo(x, top + height);
    plot.ctx.stroke();
    plot.ctx.restore();
  };
  draw(each.value.base, tone("--muted"), [3, 3]);
  draw(each.now?.level, tone("--accent"), []);
}
