// The palette in the words of a study, of Python, of the gateway and of TRL.

import { $, say } from "./dom.js";
import { post } from "./server.js";

export function exporting(palette) {
  const dialog = $("export-dialog");
  const tabs = [...$("tabs").children];
  let texts = {};
  let kind = "toml";
  let count = 0;

  function show(next) {
    kind = next;
    for (const tab of tabs) {
      const here = tab.dataset.kind === kind;
      tab.setAttribute("aria-selected", String(here));
      tab.tabIndex = here ? 0 : -1;
      if (here) $("export-text").setAttribute("aria-labelledby", tab.id);
    }
    say($("export-text"), texts[kind] ?? "…");
    say($("copied"), "");
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      say($("copied"), "Copied.");
    } catch {
      getSelection().selectAllChildren($("export-text"));
      say($("copied"), "Selected: copy it with the keyboard.");
    }
  }

  $("export").addEventListener("click", async () => {
    const number = (count += 1);
    let told;
    texts = {};
    show(kind);
    dialog.showModal();
    try {
      told = await post("export", palette());
    } catch (error) {
      told = Object.fromEntries(tabs.map((tab) => [tab.dataset.kind, error.message]));
    }
    if (number !== count) return; // it was closed, and opened on another palette
    texts = told;
    show(kind);
  });
  $("export-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  $("tabs").addEventListener("click", (event) => event.target.dataset.kind && show(event.target.dataset.kind));
  $("tabs").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const at = tabs.findIndex((tab) => tab.dataset.kind === kind);
    const next = tabs[(at + by + tabs.length) % tabs.length];
    show(next.dataset.kind);
    next.focus();
  });
  $("copy").addEventListener("click", () => copy(texts[kind] ?? ""));
  $("copy-link").addEventListener("click", () => copy(location.href));
}
