// The page: what is asked goes to the server, what comes back is drawn.

import { Answers } from "./answers.js";
import { Candidates } from "./candidates.js";
import { $, h, say } from "./dom.js";
import { isFree, relationOf } from "./entry.js";
import { exporting } from "./exporting.js";
import { Radar } from "./radar.js";
import { Ranges } from "./ranges.js";
import { Row } from "./row.js";
import { get, newest, post } from "./server.js";
import { Spreads } from "./spreads.js";
import { bare, empty, fromHash, palette, remember } from "./state.js";
import { Verdict } from "./verdict.js";

const RESTS = 350; // ms of rest before what takes long is asked for

async function start() {
  const about = await get("about");
  const alone = new Map([[about.most, about.alone.widest], [about.candidates, about.alone.here]]);
  let state = fromHash(location.hash, about);
  let resting = 0;
  let latest = null;
  let written = { moving: null, at: -Infinity }; // the edit that the address had last

  document.title = `${about.name} · valuepalette studio`;
  say($("pilot"), `${about.name} · ${about.prompts.toLocaleString("en")} prompts, ${about.rows.toLocaleString("en")} answers`);

  const unit = () => document.querySelector("input[name=unit]:checked").value;
  const rows = new Map();
  const cohortRows = new Map();
  for (const value of about.values) {
    const row = new Row(scaleOf(value), value.name, (_, how) => edited(value.name, row, how), { unit });
    if (value.check) row.name.append(h("small", {}, " second opinion"));
    rows.set(value.name, row);
  }
  $("rows").replaceChildren(...[...rows.values()].map((row) => row.root));

  const radar = about.values.length > 2 ? new Radar($("radar"), about.values.map((value) => value.name)) : null;
  $("radar-figure").hidden = radar === null;
  const spreads = new Spreads($("spreads"), about.values);
  const verdict = new Verdict(adjust);
  const candidates = new Candidates(about, (k) => change({ candidates: k }));
  const answers = new Answers(about, (patch) => change(patch, { solve: "prompt" in patch }), beside);
  const ranges = new Ranges(
    ({ feature, low, high }, exact) => rowOf(feature)?.room_(low, high, exact),
    () => {
      document.body.dataset.ranges = "exact";
      candidates.plan(palette(state));
    },
  );
  const solver = newest((given) => post("solve", given.asked), solved, refused);
  exporting(() => palette(state));

  // Of a value, all that a row needs: the widest ends for the slider, and those at this k for shares of reach.
  function scaleOf(value) {
    const [low, high] = about.alone.widest[value.name];
    const [least, most] = (alone.get(state.candidates ?? about.candidates) ?? about.alone.widest)[value.name];
    return { ...value, low, high, least, most };
  }

  function rowOf(feature) {
    const [value, cohort] = feature.split(" @ ");
    return rows.get(feature) ?? cohortRows.get(cohortKey(cohort, value)) ?? null;
  }

  function texts() {
    return [...Object.values(state.entries), ...Object.values(state.cohorts).flatMap(Object.values)];
  }

  // A slider moved, or an entry was written.
  function edited(value, row, { live }) {
    if (isFree(row.text)) delete state.entries[value];
    else state.entries[value] = row.text;
    verdict.adjusted(null);
    asked({ live, moving: value });
  }

  // Anything else that changes what is asked.
  function change(patch, { solve = true } = {}) {
    state = { ...state, ...patch };
    apply();
    if (solve) asked({});
    else remember(state);
    answers.compare();
  }

  // An edit, into the address, once what is asked of the server is on its way. Many of one feature in a row, as of a key
  // that is held, are one step back. Nothing is written while a slider is dragged: browsers slow down whoever writes that fast.
  function edits(moving) {
    const replace = written.moving === moving && performance.now() - written.at < RESTS;
    written = { moving, at: performance.now() };
    const now = { ...state, entries: bare(state.entries) };
    setTimeout(() => remember(now, { replace }));
  }

  // live: something moves; moving: the feature that was edited, null where it was anything else.
  function asked({ live = false, moving = null, replace = false, silent = false }) {
    if (!silent && moving === null) remember(state, { replace });
    else if (!silent && !live) edits(moving);
    candidates.stale();
    const given = palette(state);
    $("budget").hidden = !texts().some((text) => relationOf(text) === "max");
    const wanted = { ...given, prompt: about.answers ? state.prompt : null };
    const next = { asked: wanted, text: JSON.stringify(wanted), since: performance.now(), live };
    // A slider mostly comes to rest where it was seen last.
    if (live || !latest?.live || latest.text !== next.text) solver.push((latest = next));
    clearTimeout(resting);
    document.body.dataset.ranges = "moving";
    if (live) ranges.ask(given, features(), { live, moving });
    else {
      ranges.stop();
      resting = setTimeout(() => {
        ranges.ask(palette(state), features());
      }, RESTS);
    }
  }

  function features() {
    const own = [...cohortRows.keys()].map((key) => JSON.parse(key)).map(([cohort, value]) => `${value} @ ${cohort}`);
    return [...rows.keys(), ...own];
  }

  function solved(told, now) {
    const { asked: given, since } = now;
    const plain = new Map();
    const own = new Map();
    for (const feature of told.features) {
      const key = feature.cohort === null ? feature.value : cohortKey(feature.cohort, feature.value);
      if (!own.has(key)) own.set(key, { feature: null, tails: [] });
      if (feature.tail) own.get(key).tails.push(feature);
      else own.get(key).feature = feature;
      if (!feature.tail && feature.cohort === null) plain.set(feature.value, feature);
    }
    for (const [value, row] of rows) row.show(own.get(value)?.feature, own.get(value)?.tails ?? [], now === latest);
    for (const [key, row] of cohortRows) row.show(own.get(key)?.feature, own.get(key)?.tails ?? [], now === latest);
    for (const row of [...rows.values(), ...cohortRows.values()]) row.blame(null);
    verdict.show(told, texts().every(isFree));
    radar?.draw(plain);
    spreads.draw(plain, told.after);
    if (given.prompt === state.prompt) answers.live(told.chances, told.proof);
    document.body.dataset.status = told.status;
    painted(since);
  }

  function refused(error, now) {
    now.live = false; // asked again, it is sent again
    for (const row of [...rows.values(), ...cohortRows.values()]) row.blame(null);
    for (const { cohort, value, message } of error.faults ?? []) {
      (cohort === null ? rows.get(value) : cohortRows.get(cohortKey(cohort, value)))?.blame(message);
    }
    verdict.refuse(error.message, error.status === 422 ? "It cannot be read" : "No answer came");
    for (const row of [...rows.values(), ...cohortRows.values()]) row.empty();
    radar?.draw(new Map());
    spreads.draw(new Map(), null);
    answers.live(null, error.message);
    document.body.dataset.status = "REFUSED";
    ranges.stop();
  }

  async function adjust(method) {
    verdict.busy(true);
    const given = JSON.stringify(palette(state));
    const stale = () => JSON.stringify(palette(state)) !== given; // something else is asked since
    try {
      const told = await post("adjust", { ...palette(state), method });
      if (stale()) return;
      change(taken(told));
      verdict.adjusted(told);
    } catch (error) {
      if (!stale()) verdict.refuse(error.message);
    } finally {
      verdict.busy(false);
    }
  }

  // A palette of the server's, as the state has it.
  function taken({ entries, cohorts, kl }) {
    const asked = Object.fromEntries(Object.entries(entries).filter(([, text]) => !isFree(text)));
    const own = Object.entries(cohorts).map(([cohort, inner]) => [cohort, bare(inner)]);
    return { entries: bare(asked), cohorts: bare(Object.fromEntries(own)), kl: kl ?? state.kl };
  }

  // The state, onto the page.
  function apply() {
    for (const [value, row] of rows) row.set(state.entries[value] ?? "");
    candidates.choose(state.candidates ?? about.candidates);
    $("kl").value = state.kl ?? "";
    $("beside").value = state.beside;
    if ($("beside").value !== state.beside) state.beside = $("beside").value = "base";
    $("pin").hidden = false;
    $("beside").querySelector("[value=kept]").hidden = state.kept === null;
    answers.show(state.prompt).catch((error) => fail(error));
    reconcile();
    rescale();
  }

  async function rescale() {
    const k = state.candidates ?? about.candidates;
    if (!alone.has(k)) alone.set(k, await get("alone", { k }));
    if (k !== (state.candidates ?? about.candidates)) return;
    for (const value of about.values) rows.get(value.name).rescale(scaleOf(value));
    for (const [key, row] of cohortRows) if (row.k !== k) rescaleCohort(key).catch(fail);
  }

  // A cohort's value goes as far as its own prompts go, at this k.
  async function rescaleCohort(key) {
    const [cohort, value] = JSON.parse(key);
    const k = state.candidates ?? about.candidates;
    cohortRows.get(key).k = k;
    const { base, low, high } = (await get("cohort", { name: cohort, k }))[value];
    const row = cohortRows.get(key);
    while (row?.busy) await new Promise((rested) => setTimeout(rested, 100));
    if (row?.k !== k || cohortRows.get(key) !== row) return;
    row.rescale({ ...row.scale, base, low, high, least: low, most: high });
    row.set(state.cohorts[cohort]?.[value] ?? "");
    if (latest) solver.push(latest); // its slider stands elsewhere now
  }

  // Cohorts: a row for each that is asked of.
  function reconcile() {
    const wanted = Object.entries(state.cohorts).flatMap(([cohort, entries]) => Object.entries(entries).map(([value, text]) => [cohort, value, text]));
    const keys = new Set(wanted.map(([cohort, value]) => cohortKey(cohort, value)));
    for (const [key, row] of cohortRows) {
      if (!keys.has(key)) {
        row.root.remove();
        cohortRows.delete(key);
      }
    }
    for (const [cohort, value, text] of wanted) {
      const key = cohortKey(cohort, value);
      if (!cohortRows.has(key)) addCohort(cohort, value, key);
      cohortRows.get(key).set(text);
    }
  }

  function addCohort(cohort, value, key) {
    const scale = scaleOf(about.values.find((each) => each.name === value));
    const row = new Row(scale, `${value} · ${cohort}`, (_, { live }) => {
      state.cohorts[cohort][value] = row.text || "free";
      asked({ live, moving: `${value} @ ${cohort}` });
    }, { unit, remove: () => {
      const rest = bare(state.cohorts[cohort]);
      delete rest[value];
      change({ cohorts: bare({ ...state.cohorts, [cohort]: rest }) });
    } });
    row.root.classList.add("is-cohort");
    cohortRows.set(key, row);
    $("cohorts").append(row.root);
    rescaleCohort(key).catch(fail);
  }

  // The palette that the answers are compared with; null for the model as it is.
  function beside() {
    if (state.beside === "kept" && state.kept) return state.kept;
    const name = state.beside.replace(/^named:/, "");
    const known = state.beside.startsWith("named:") && Object.hasOwn(about.palettes, name);
    return known ? { ...about.palettes[name], candidates: state.candidates } : null;
  }

  $("beside").replaceChildren(
    h("option", { value: "base" }, "the model as it is"),
    h("option", { value: "kept", hidden: true }, "the palette that was kept"),
    ...Object.keys(about.palettes).map((name) => h("option", { value: `named:${name}` }, name)),
  );
  $("beside").addEventListener("change", () => change({ beside: $("beside").value }, { solve: false }));
  $("pin").addEventListener("click", () => change({ kept: JSON.parse(JSON.stringify(palette(state))), beside: "kept" }, { solve: false }));
  $("reset").addEventListener("click", () => change({ ...empty(), prompt: state.prompt, kept: state.kept, beside: state.beside }));
  $("kl").addEventListener("change", () => change({ kl: Number($("kl").value) > 0 ? Number($("kl").value) : null }));
  const names = Object.keys(about.palettes);
  $("named-label").hidden = names.length === 0;
  $("named").replaceChildren(h("option", { value: "" }, "choose one"), ...names.map((name) => h("option", { value: name }, name)));
  $("named").addEventListener("change", () => {
    const name = $("named").value;
    if (Object.hasOwn(about.palettes, name)) change(taken(about.palettes[name]));
  });
  $("add-cohort").hidden = about.cohorts.length === 0;
  $("cohort").replaceChildren(...about.cohorts.map(({ name }) => h("option", { value: name }, name)));
  $("cohort-value").replaceChildren(...about.values.map(({ name }) => h("option", { value: name }, name)));
  $("add-cohort").addEventListener("submit", (event) => {
    event.preventDefault();
    const [cohort, value] = [$("cohort").value, $("cohort-value").value];
    const own = bare(state.cohorts[cohort]);
    own[value] ??= "keep";
    change({ cohorts: bare({ ...state.cohorts, [cohort]: own }) });
  });
  addEventListener("popstate", () => {
    state = fromHash(location.hash, about);
    solver.forget();
    latest = null;
    verdict.adjusted(null);
    apply();
    asked({ silent: true });
    answers.compare();
  });

  apply();
  asked({ replace: true });
  document.body.dataset.ready = "true";
}

// How long it took from the movement until the browser has painted what came of it.
function painted(since) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => performance.measure("studio:painted", { start: since, end: performance.now() });
    channel.port2.postMessage(null);
  });
}

function cohortKey(cohort, value) {
  return JSON.stringify([cohort, value]);
}

function fail(error) {
  $("failure").hidden = false;
  say($("failure"), `The studio cannot go on: ${error.message}`);
}

start().catch(fail);
