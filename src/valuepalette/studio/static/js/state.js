// What is asked, and its life in the address: every committed change is an entry of the history, so back, forward and
// sharing work. Nothing else is kept anywhere.

// Names are anybody's: an object without a prototype has no entry that nobody made.
export function bare(object = {}) {
  return Object.assign(Object.create(null), object);
}

export function empty() {
  return { entries: bare(), cohorts: bare(), kl: null, candidates: null, prompt: 0, beside: "base", kept: null };
}

// Only what a palette is: what the server is sent.
export function palette(state) {
  const cohorts = Object.fromEntries(Object.entries(state.cohorts).filter(([, entries]) => Object.keys(entries).length));
  return { entries: state.entries, cohorts, kl: state.kl, candidates: state.candidates };
}

export function toHash(state) {
  const told = new URLSearchParams();
  if (state.candidates !== null) told.set("k", state.candidates);
  if (state.kl !== null) told.set("kl", state.kl);
  for (const [value, text] of Object.entries(state.entries)) if (text && text !== "free") told.append("v." + value, text);
  for (const [cohort, entries] of Object.entries(state.cohorts)) {
    for (const [value, text] of Object.entries(entries)) told.append("c." + JSON.stringify([cohort, value]), text);
  }
  if (state.prompt) told.set("prompt", state.prompt);
  if (state.beside !== "base") told.set("beside", state.beside);
  if (state.kept) told.set("kept", JSON.stringify(state.kept));
  return "#" + told.toString();
}

// Whatever somebody wrote into an address: what is not understood is left out.
export function fromHash(hash, about) {
  const state = empty();
  const known = new Set(about.values.map((value) => value.name));
  const cohorts = new Set(about.cohorts.map((cohort) => cohort.name));
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (key === "k" && about.choices.includes(Number(text))) state.candidates = Number(text);
    else if (key === "kl" && Number(text) > 0) state.kl = Math.min(100, Number(text));
    else if (key === "prompt" && /^\d+$/.test(text)) state.prompt = Math.min(Number(text), about.prompts - 1);
    else if (key === "beside") state.beside = text;
    else if (key === "kept") state.kept = keptOf(text, known);
    else if (key.startsWith("v.") && known.has(key.slice(2))) state.entries[key.slice(2)] = text.slice(0, 300);
    else if (key.startsWith("c.")) {
      const pair = parsed(key.slice(2));
      if (Array.isArray(pair) && cohorts.has(pair[0]) && known.has(pair[1])) {
        (state.cohorts[pair[0]] ??= bare())[pair[1]] = text.slice(0, 300);
      }
    }
  }
  return state;
}

function keptOf(text, known) {
  const told = parsed(text);
  if (!told || typeof told !== "object" || typeof told.entries !== "object") return null;
  const entries = Object.entries(told.entries ?? {}).filter(([name, entry]) => known.has(name) && typeof entry === "string");
  const k = Number.isInteger(told.candidates) ? told.candidates : null;
  return { entries: Object.fromEntries(entries), cohorts: told.cohorts ?? {}, kl: told.kl > 0 ? told.kl : null, candidates: k };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function remember(state, { replace = false } = {}) {
  const hash = toHash(state);
  if (hash === location.hash || (hash === "#" && !location.hash)) return;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
}
