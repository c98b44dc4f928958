// The palette radar: an axis for each value, and on it the share of the base model's answers that lie below a level.

import { svg } from "./dom.js";

const SIZE = 340;
const RADIUS = 112;
const MIDDLE = SIZE / 2;

export class Radar {
  constructor(host, names) {
    this.names = names;
    this.root = svg("svg", { viewBox: `-56 0 ${SIZE + 112} ${SIZE - 30}`, role: "img", "aria-label": "Radar of levels" });
    for (const ring of [0.25, 0.5, 0.75, 1]) {
      this.root.append(svg("polygon", { class: ring === 0.5 ? "ring half" : "ring", points: this.points(names.map(() => ring)) }));
    }
    names.forEach((name, i) => {
      const [x, y] = this.at(i, 1);
      const [tx, ty] = this.at(i, 1.14);
      const anchor = Math.abs(tx - MIDDLE) < 12 ? "middle" : tx > MIDDLE ? "start" : "end";
      this.root.append(svg("line", { class: "axis", x1: MIDDLE, y1: MIDDLE - 15, x2: x, y2: y }));
      const label = svg("text", { x: tx, y: ty + 4, "text-anchor": anchor }, name.length > 13 ? `${name.slice(0, 12)}…` : name);
      label.append(svg("title", {}, name));
      this.root.append(label);
    });
    this.base = svg("polygon", { class: "base" });
    this.now = svg("polygon", { class: "now" });
    this.dots = names.map(() => svg("circle", { class: "dot", r: 3.5 }));
    this.asks = names.map(() => svg("path", { class: "ask", d: "M0 -5.500 5.500 0 0 5.500 -5.500 0Z" }));
    this.root.append(this.base, this.now, ...this.dots, ...this.asks);
    host.replaceChildren(this.root);
  }

  at(i, share) {
    const angle = (2 * Math.PI * i) / this.names.length - Math.PI / 2;
    return [MIDDLE + RADIUS * share * Math.cos(angle), MIDDLE - 15 + RADIUS * share * Math.sin(angle)];
  }

  points(shares) {
    return shares.map((share, i) => this.at(i, share).map((x) => x.toFixed(1)).join(",")).join(" ");
  }

  // features: by name of the value; none where nothing is known of the palette.
  draw(features) {
    const ranks = this.names.map((name) => features.get(name)?.rank ?? {});
    if (features.size) this.base.setAttribute("points", this.points(ranks.map((rank) => rank.base ?? 0)));
    const had = ranks.every((rank) => rank.level !== null && rank.level !== undefined);
    this.now.setAttribute("points", had ? this.points(ranks.map((rank) => rank.level)) : "");
    ranks.forEach((rank, i) => {
      place(this.dots[i], had ? this.at(i, rank.level) : null);
      place(this.asks[i], rank.asked === null || rank.asked === undefined ? null : this.at(i, rank.asked));
    });
    const said = ranks.map((rank, i) => `${this.names[i]} ${Math.round(100 * (rank.level ?? rank.base ?? 0))}`);
    this.root.setAttribute("aria-label", `Levels as percentiles of the base model's answers: ${said.join(", ")}`);
  }
}

function place(mark, at) {
  mark.setAttribute("visibility", at ? "visible" : "hidden");
  if (at) mark.setAttribute("transform", `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})`);
}
