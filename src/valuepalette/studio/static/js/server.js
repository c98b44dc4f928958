// Questions to the server, and the rule by which the newest wins.

export class Refused extends Error {
  constructor(message, status, faults) {
    super(message);
    this.status = status;
    this.faults = faults ?? [];
  }
}

async function told(reply) {
  const content = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refused(content.error ?? `the server said ${reply.status}`, reply.status, content.faults);
  return content;
}

export async function get(path, query = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null));
  return told(await fetch(`/api/${path}?${given}`));
}

export async function post(path, content) {
  const headers = { "Content-Type": "application/json" };
  return told(await fetch(`/api/${path}`, { method: "POST", headers, body: JSON.stringify(content) }));
}

// One question at a time. What is asked while one is on its way waits, and only the newest of it is sent. A reply is
// handed on unless something newer was, or `forget` was called since it was asked.
export function newest(ask, answered, failed) {
  let number = 0;
  let least = 0;
  let waiting = null;
  let busy = false;

  async function run() {
    busy = true;
    while (waiting) {
      const now = waiting;
      waiting = null;
      try {
        const reply = await ask(now.given);
        if (now.number >= least) answered(reply, now.given);
      } catch (error) {
        if (now.number >= least && !waiting) failed(error, now.given);
      }
    }
    busy = false;
  }

  return {
    push(given) {
      number += 1;
      waiting = { given, number };
      if (!busy) run();
    },
    // Replies to what was asked before are of no use any more.
    forget() {
      least = number + 1;
      waiting = null;
    },
    get idle() {
      return !busy && !waiting;
    },
  };
}
