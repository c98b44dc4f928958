// The answers to one prompt, the likeliest on top: under this palette, and beside it under another.

import { $, h, say } from "./dom.js";
import { percent, shown } from "./figures.js";
import { get, newest, post } from "./server.js";

export class Answers {
  // changed(patch) is told of another prompt or another palette beside; beside() gives the palette to compare with.
  constructor(about, changed, beside) {
    this.about = about;
    this.changed = changed;
    this.beside = beside;
    this.number = null;
    this.content = null;
    this.lists = { left: [], right: [] };
    $("answers-section").hidden = !about.answers;
    this.prompts = newest((find) => get("prompts", { find }), (reply) => this.list(reply), () => {});
    this.other = newest((given) => post("solve", given), (reply, given) => this.here(given.prompt) && this.rank("left", reply.chances, reply.proof), (error, given) => this.here(given.prompt) && this.rank("left", null, error.message));
    $("find").addEventListener("input", () => this.prompts.push($("find").value));
    $("prompt").addEventListener("change", () => this.changed({ prompt: Number($("prompt").value) }));
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
    if (about.answers) this.prompts.push("");
  }

  step(by) {
    const options = [...$("prompt").options];
    const at = options.findIndex((option) => Number(option.value) === this.number);
    const next = options[(at + by + options.length) % options.length];
    if (next) this.changed({ prompt: Number(next.value) });
  }

  list({ prompts, found }) {
    const options = prompts.map(({ number, text }) => h("option", { value: number }, `${number + 1} · ${text}`));
    const more = found - prompts.length;
    if (more) options.push(h("option", { disabled: true }, `and ${more} more: search for them`));
    if (!found) options.push(h("option", { disabled: true }, "no prompt has this in it"));
    const here = this.number ?? 0;
    const there = prompts.some(({ number }) => number === here);
    if (!there && (!found || !$("find").value)) options.push(h("option", { value: here }, `${here + 1}`));
    $("prompt").replaceChildren(...options);
    $("prompt").value = String(here);
    if (!there && found && $("find").value) this.changed({ prompt: prompts[0].number });
  }

  async show(number) {
    if (!this.about.answers || number === this.number) return;
    this.number = number;
    this.chances = null; // those of another prompt
    $("prompt").value = String(number);
    const content = await get("answers", { prompt: number });
    if (number !== this.number) return;
    this.content = content;
    const several = content.messages.length > 1;
    $("asked-prompt").replaceChildren(...content.messages.map(({ role, content: text }) => h("p", {}, several ? h("b", {}, `${role} `) : null, text)));
    for (const side of ["left", "right"]) {
      this.lists[side] = content.answers.map((answer) => this.card(answer));
      $(side).replaceChildren(...this.lists[side].map((card) => card.root));
    }
    if (this.chances) this.rank("right", this.chances);
    this.compare();
  }

  // Whether the answers on the page are to this prompt: they come later than its number does.
  here(number) {
    return this.content?.number === number;
  }

  card(answer) {
    const bar = h("span", { class: "chance-bar" });
    const chance = h("span", { class: "chance" });
    const values = this.about.values.map((value, i) => h("li", {}, `${value.name} ${shown(answer.values[i], 2)}`));
    const root = h("li", { class: "answer" },
      h("div", { class: "chance-line", "aria-hidden": "true" }, bar),
      h("div", { class: "answer-in" }, chance, h("div", { class: "said" }, h("p", {}, answer.text || "(an empty answer)"), h("ul", { class: "marks" }, ...values))));
    return { root, bar, chance };
  }

  // The chances of the answers under the palette that is asked for.
  live(chances, proof) {
    this.chances = chances;
    if (this.here(this.number)) this.rank("right", chances, proof);
  }

  rank(side, chances, trouble = null) {
    const cards = this.lists[side];
    const host = $(side);
    host.classList.toggle("is-void", !chances);
    if (!chances || chances.length !== cards.length) {
      for (const { chance, bar } of cards) {
        say(chance, "–");
        bar.style.setProperty("width", "0%");
      }
      host.setAttribute("aria-label", trouble ?? "");
      return;
    }
    host.removeAttribute("aria-label");
    const most = Math.max(...chances);
    const order = chances.map((_, i) => i).sort((a, b) => chances[b] - chances[a] || a - b);
    order.forEach((i, place) => {
      const { root, bar, chance } = cards[i];
      say(chance, percent(chances[i], chances[i] < 0.0995 ? 1 : 0));
      bar.style.setProperty("width", `${((100 * chances[i]) / most).toFixed(1)}%`);
      if (host.children[place] !== root) host.insertBefore(root, host.children[place] ?? null);
    });
  }

  // The palette beside: of the model as it is every answer is as likely as another.
  compare() {
    if (!this.here(this.number)) return;
    const palette = this.beside();
    if (palette === null) {
      this.other.forget();
      this.rank("left", this.content.answers.map(() => 1 / this.content.answers.length));
    } else this.other.push({ ...palette, prompt: this.number });
  }
}
