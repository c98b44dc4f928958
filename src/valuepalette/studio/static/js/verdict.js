// Whether it can be had, in words; and where it cannot, why, and three ways on.

import { $, say } from "./dom.js";
import { percent, shown } from "./figures.js";

const WORDS = {
  OPTIMAL: ["can", "It can be had"],
  BOUNDARY: ["just", "It can just be had"],
  INFEASIBLE: ["cannot", "It cannot be had"],
  NUMERICAL: ["just", "It can be had, roughly"],
};

export class Verdict {
  constructor(adjust) {
    this.buttons = [...$("ways").querySelectorAll("button")];
    for (const button of this.buttons) button.addEventListener("click", () => adjust(button.dataset.method));
  }

  show(told, asksNothing) {
    const [kind, words] = asksNothing ? ["can", "The model as it is"] : WORDS[told.status];
    $("verdict").dataset.kind = kind;
    $("chip").dataset.kind = kind;
    say($("verdict-title"), words);
    say($("verdict-text"), told.proof ?? (asksNothing ? "Move a slider to ask for a level." : told.status === "OPTIMAL" ? "" : told.verdict));
    say($("kl-now"), told.kl === null ? "–" : `${shown(told.kl, 3)} nats`);
    const whole = told.candidates;
    say($("in-play"), told.effective === null ? "–" : `${shown(told.effective, 1)} of ${whole} answers`);
    say($("chip"), told.kl === null ? words : `${words} · KL ${shown(told.kl, 2)}`);
    $("ways").hidden = told.status !== "INFEASIBLE";
    this.busy(false);
  }

  // No answer, as of a palette that is not one: what is wrong is said.
  refuse(message, title = "It cannot be read") {
    $("verdict").dataset.kind = "cannot";
    $("chip").dataset.kind = "cannot";
    say($("verdict-title"), title);
    say($("verdict-text"), message);
    say($("chip"), title);
    say($("kl-now"), "–");
    say($("in-play"), "–");
    $("ways").hidden = true;
    this.busy(false);
  }

  adjusted(told) {
    const note = $("adjusted");
    note.hidden = told === null;
    if (told === null) return;
    const how = { interpolate: `${percent(told.rho, 1)} of the way`, greedy: "Value by value", nearest: "The nearest levels" }[told.method];
    const ways = Object.entries(told.in_the_way).map(([name, obstacle]) => `${name}: ${obstacle}`);
    say(note, ways.length ? `${how}. In the way of ${ways.join("; ")}.` : "It could be had as it was.");
  }

  busy(is) {
    for (const button of this.buttons) button.disabled = is;
  }
}
