// One value: a slider that spans all it can reach alone, and the text that says what is asked.
//
// On the track lie the range that is left by the others, the base level, and the level that is had with its interval.

import { h, say } from "./dom.js";
import { entryOf, isFree, parts, relationOf, withPlain } from "./entry.js";
import { digitsOf, percent, shown, written } from "./figures.js";

const STEPS = 400;
const RELATIONS = [
  [">=", "at least"],
  ["<=", "at most"],
  ["==", "exactly"],
  ["max", "as high as it can"],
  ["free", "free"],
];
let count = 0;

export class Row {
  // scale: { name, base, low, high, definition }. changed(row, { live }) is told of every movement and every commit.
  constructor(scale, label, changed, { unit, remove = null } = {}) {
    this.unit = unit;
    this.changed = changed;
    this.dragging = false;
    this.bound = null; // the level that the server says is asked, of the newest question
    this.text = "";
    const id = `row-${(count += 1)}`;
    this.name = h("h3", { id, title: scale.definition || null }, label);
    this.level = h("output", { class: "level" });
    this.weight = h("span", { class: "weight" });
    this.base = h("span", { class: "base-said" });
    this.room = h("span", { class: "track-room", hidden: true });
    this.had = h("span", { class: "track-had" });
    this.at = h("span", { class: "track-level" });
    this.zero = h("span", { class: "track-base" });
    this.slider = h("input", {
      type: "range", min: 0, max: STEPS, step: 1, "aria-labelledby": id,
      oninput: () => this.moved(true), onchange: () => this.rested(), onpointerup: () => this.rested(),
      onpointercancel: () => this.rested(), onblur: () => this.rested(),
    });
    this.relation = h("select", { "aria-label": `${label}: how it is asked`, onchange: () => this.related() },
      ...RELATIONS.map(([value, text]) => h("option", { value }, text)));
    this.entry = h("input", {
      type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off", maxlength: 300, placeholder: "free",
      "aria-label": `${label}: entry`, "aria-describedby": `${id}-fault`, onchange: () => this.typed(),
    });
    this.reach = h("span", { class: "reach" });
    this.fault = h("p", { class: "fault", id: `${id}-fault`, role: "alert", hidden: true });
    this.tails = h("ul", { class: "tails" });
    const ends = [h("span", {}), h("span", {})];
    this.ends = ends;
    this.root = h(
      "div", { class: "row", role: "group", "aria-labelledby": id },
      h("div", { class: "row-head" }, this.name, this.base, this.level, this.weight),
      h("div", { class: "track" },
        h("div", { class: "track-in", "aria-hidden": "true" }, this.room, this.had, this.zero, this.at),
        this.slider),
      h("div", { class: "ends", "aria-hidden": "true" }, ...ends),
      h("div", { class: "row-foot" }, this.relation, this.entry, this.reach,
        remove && h("button", { type: "button", class: "quiet", "aria-label": `Remove ${label}`, onclick: remove }, "✕")),
      this.fault,
      this.tails,
    );
    this.rescale(scale);
  }

  rescale(scale) {
    this.scale = scale;
    const range = scale.high - scale.low;
    this.digits = digitsOf(range);
    this.slider.disabled = !(range > 0);
    say(this.base, `base ${shown(scale.base, this.digits)}`);
    say(this.ends[0], shown(scale.low, this.digits));
    say(this.ends[1], shown(scale.high, this.digits));
    put(this.zero, "left", this.share(scale.base));
  }

  // Of the track, from 0 to 1.
  share(level) {
    const { low, high } = this.scale;
    return high > low ? Math.min(1, Math.max(0, (level - low) / (high - low))) : 0.5;
  }

  // Of the way from the base level to the most, or to the least, that the value can reach alone at this k.
  reachOf(level) {
    const { base, most, least } = this.scale;
    const end = level >= base ? most : least;
    return end === base ? 0 : (level - base) / Math.abs(end - base);
  }

  moved(live) {
    this.dragging = live;
    if (live) this.bound = null;
    const step = Number(this.slider.value);
    const { low, high, base } = this.scale;
    const level = low + (step / STEPS) * (high - low);
    let relation = relationOf(this.text);
    if (relation === "free" || relation === "max") relation = ">=";
    this.text = withPlain(this.text, this.worded(step, level, relation, base));
    this.entry.value = this.text;
    this.tell(level);
    this.relation.value = relationOf(this.text);
    this.free(false);
    this.changed(this, { live });
  }

  // A slider that comes to rest where it began makes no change event; so whatever ends a movement is listened to.
  rested() {
    if (!this.dragging) return;
    const bound = this.bound;
    this.moved(false);
    if (bound !== null) this.stand(bound);
  }

  // Whether somebody is moving it, or writing into it.
  get busy() {
    return this.dragging || (document.activeElement === this.entry && this.entry.value !== this.text);
  }

  // The slider, where a level is.
  stand(level) {
    this.slider.value = Math.round(this.share(level) * STEPS);
    this.tell(level);
  }

  worded(step, level, relation, base) {
    if (step === Math.round(this.share(base) * STEPS)) return entryOf(relation, "keep");
    const part = Math.round(100 * this.reachOf(level));
    if (this.unit() === "reach" && relation !== "==") {
      if (relation === ">=" && part > 0) return `reach ${Math.min(100, part)}%`;
      if (relation === "<=" && part < 0) return `<= reach ${Math.min(100, -part)}%`;
    }
    return entryOf(relation, written(level, this.digits + 1));
  }

  related() {
    const wanted = this.relation.value;
    const plain = parts(this.text).find((part) => !part.startsWith("P") && part !== "free" && part !== "max");
    const quantity = (plain ?? "keep").replace(/^(>=|<=|==)\s*/, "");
    const side = wanted === "==" && quantity.startsWith("reach") ? "keep" : quantity;
    const text = wanted === "free" ? "free" : wanted === "max" ? "max" : entryOf(wanted, side);
    this.set(withPlain(this.text, text));
    this.changed(this, { live: false });
  }

  typed() {
    this.set(this.entry.value.trim());
    this.changed(this, { live: false });
  }

  // What is asked, as a text; the slider follows once the server says which level that is.
  set(text) {
    this.text = text === "free" ? "" : text;
    if (this.entry.value !== this.text) this.entry.value = this.text;
    this.relation.value = relationOf(this.text);
    this.free(isFree(this.text));
    this.blame(null);
    if (isFree(this.text)) {
      this.slider.value = Math.round(this.share(this.scale.base) * STEPS);
      this.tell(null);
    }
  }

  free(is) {
    this.root.classList.toggle("is-free", is);
  }

  tell(level) {
    const said = level === null ? "free" : `${shown(level, this.digits)}, ${percent(this.reachOf(level))} of reach`;
    this.slider.setAttribute("aria-valuetext", said);
    say(this.reach, level === null ? "" : `${percent(this.reachOf(level))} of reach`);
  }

  // The server's figures of this value, and of its tails; `newest` where nothing was asked since.
  show(feature, tails, newest) {
    const asked = feature?.lower ?? feature?.upper ?? null;
    if (newest) this.bound = asked;
    if (asked !== null && newest && !this.dragging) this.stand(asked);
    const had = feature?.level !== null && feature?.level !== undefined;
    say(this.level, had ? `${shown(feature.level, this.digits)} ± ${shown(feature.se, this.digits)}` : "");
    say(this.weight, had ? `λ ${shown(feature.weight, 3)}` : "");
    this.at.hidden = this.had.hidden = !had;
    if (had) {
      const [low, high] = [-1.96, 1.96].map((z) => this.share(feature.level + z * (feature.se ?? 0)));
      put(this.at, "left", this.share(feature.level));
      put(this.had, "left", low);
      put(this.had, "width", high - low);
    }
    this.tails.replaceChildren(...tails.map((tail) => h("li", {},
      h("span", {}, tail.name.split(" @ ")[0]), h("span", {}, `asked ${tail.asked}`),
      h("span", {}, tail.level === null ? `base ${percent(tail.base, 1)}` : `${percent(tail.base, 1)} → ${percent(tail.level, 1)}`),
      h("span", {}, tail.weight === null ? "" : `λ ${shown(tail.weight, 3)}`))));
  }

  // Nothing is known of what is asked.
  empty() {
    this.show(null, [], false);
    this.room_(null, null, false);
    say(this.reach, "");
    if (!isFree(this.text)) this.slider.setAttribute("aria-valuetext", this.text);
  }

  // What the others leave it; null where they cannot be had themselves.
  room_(low, high, exact) {
    this.room.hidden = low === null;
    this.room.classList.toggle("is-coarse", !exact);
    if (low === null) return;
    put(this.room, "left", this.share(low));
    put(this.room, "width", this.share(high) - this.share(low));
    this.room.title = `${shown(low, this.digits)} to ${shown(high, this.digits)}`;
  }

  blame(message) {
    this.fault.hidden = message === null;
    say(this.fault, message ?? "");
    if (message === null) this.entry.removeAttribute("aria-invalid");
    else this.entry.setAttribute("aria-invalid", "true");
  }
}

function put(element, property, share) {
  element.style.setProperty(property, `${(100 * share).toFixed(2)}%`);
}
