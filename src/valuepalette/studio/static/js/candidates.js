// k, the number of answers that a decoder chooses from: which to take, what each can have of the palette, what it costs.

import { $, h, say } from "./dom.js";
import { digitsOf, shown } from "./figures.js";
import { get, newest, post } from "./server.js";

const HAD = { OPTIMAL: "yes", BOUNDARY: "just", INFEASIBLE: "no", NUMERICAL: "roughly" };

export class Candidates {
  constructor(about, chosen) {
    this.about = about;
    this.chosen = chosen;
    const several = about.choices.length > 1;
    $("ks").hidden = $("plan-section").hidden = !several;
    this.radios = about.choices.map((k) => h("input", { type: "radio", name: "k", value: k, onchange: () => chosen(k) }));
    this.marks = about.choices.map(() => h("span", { class: "k-had" }));
    $("k-choices").replaceChildren(...about.choices.map((k, i) => h("label", {}, this.radios[i], h("span", {}, String(k)), this.marks[i])));
    this.ask = newest((palette) => post("plan", palette), (plan) => this.show(plan), (error) => this.fail(error));
    $("alone").addEventListener("toggle", () => $("alone").open && this.alone());
  }

  get several() {
    return this.about.choices.length > 1;
  }

  choose(k) {
    for (const radio of this.radios) radio.checked = Number(radio.value) === k;
    this.k = k;
  }

  // Something moved: what each k can have is not known any more.
  stale() {
    this.ask.forget();
    $("plan").classList.add("is-stale");
    for (const mark of this.marks) say(mark, "");
  }

  plan(palette) {
    this.asks = JSON.stringify([palette.entries, palette.cohorts]);
    if (this.several) this.ask.push(palette);
  }

  show({ choices, smallest }) {
    const heads = ["k", "can be had", "in play", "KL, nats", "tokens an answer"];
    const known = choices.some((each) => each.tokens !== null);
    const rows = choices.map((each) => [
      `${each.candidates}${each.candidates === smallest ? " · the smallest" : ""}`,
      HAD[each.status],
      each.effective === null ? "–" : shown(each.effective, 1),
      shown(each.kl, 3),
      ...(known ? [shown(each.tokens, 0)] : []),
    ]);
    table($("plan"), known ? heads : heads.slice(0, 4), rows, choices.map((each) => each.candidates === this.k));
    $("plan").classList.remove("is-stale");
    const had = new Map(choices.map((each) => [each.candidates, HAD[each.status]]));
    this.about.choices.forEach((k, i) => say(this.marks[i], had.get(k) ?? ""));
    const shares = this.asks.includes("reach") ? ` A share of reach is held at what k = ${this.about.most} reaches, so that every k is asked the same.` : "";
    const found = smallest === null ? `It cannot be had with ${this.about.most} answers to choose from.` : smallest === 1 ? "The model has it as it is." : `${smallest} answers to choose from are the fewest that have it.`;
    say($("plan-note"), found + shares);
  }

  fail(error) {
    $("plan").replaceChildren();
    say($("plan-note"), error.message);
  }

  async alone() {
    const ends = await Promise.all(this.about.choices.map((k) => get("alone", { k })));
    const rows = this.about.values.map((value) => [
      value.name,
      ...ends.map((end) => {
        const [low, high] = end[value.name];
        const digits = digitsOf(high - low);
        return `${shown(low, digits)} to ${shown(high, digits)}`;
      }),
    ]);
    table($("alone-table"), ["", ...this.about.choices.map((k) => `k = ${k}`)], rows, []);
  }
}

function table(host, heads, rows, marked) {
  host.replaceChildren(
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...rows.map((cells, i) => h("tr", { class: marked[i] ? "is-here" : null },
      ...cells.map((cell, j) => h(j ? "td" : "th", j ? {} : { scope: "row" }, cell))))),
  );
}
