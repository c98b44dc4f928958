// What the other sliders leave each value: coarse while something moves, exact once it rests. One at a time and in
// turn, so that every range is renewed however long the movement lasts; what is out of date is dropped.

import { post } from "./server.js";

const COARSE = 0.05;
const EXACT = 1e-6;

export class Ranges {
  // shown(reply, exact) is told of each; settled() once all are exact.
  constructor(shown, settled) {
    this.shown = shown;
    this.settled = settled;
    this.turn = 0;
    this.wanted = null;
    this.busy = false;
  }

  // features: the names to find ranges for; but `moving`, whose range its own movement does not change.
  ask(palette, features, { live = false, moving = null } = {}) {
    const left = features.filter((name) => !live || name !== moving);
    this.wanted = { palette, left, gap: live ? COARSE : EXACT, exact: !live };
    if (!this.busy) this.run();
  }

  stop() {
    this.wanted = null;
  }

  async run() {
    this.busy = true;
    while (this.wanted?.left.length) {
      const now = this.wanted;
      this.turn %= now.left.length;
      const [feature] = now.left.splice(this.turn, 1);
      try {
        const reply = await post("reach", { ...now.palette, feature, gap: now.gap });
        if (this.wanted === now) this.shown(reply, now.exact);
        else this.turn += 1;
      } catch {
        if (this.wanted === now) this.shown({ feature, low: null, high: null }, now.exact);
      }
      if (this.wanted === now && now.exact && !now.left.length) this.settled();
    }
    this.busy = false;
  }
}
