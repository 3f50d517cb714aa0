"use strict";
// Puts the parts together, and says which key does what.

const MOST_PRINTED = 200;
const root = document.documentElement;

function theme() {
  const dark =
    root.dataset.theme === "dark" || (!root.dataset.theme && window.matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // A page from a file may have no storage; the choice then ends with it.
  }
}

function keepTheme() {
  try {
    const kept = localStorage.getItem("theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    // As above: the system's choice holds.
  }
}

function byToken() {
  document.body.classList.toggle("by-token");
  for (const box of document.querySelectorAll(".probabilities")) {
    box.checked = document.body.classList.contains("by-token");
  }
}

function counted(found, total, active) {
  const answers = found.reduce((sum, one) => sum + one.samples.length, 0);
  const prompts = found.length === answers ? "" : ` to ${number(found.length)} prompts`;
  return active ? `${number(answers)} of ${number(total)} answers${prompts}` : `${number(answers)} answers${prompts}`;
}

/** What is printed: the answers that are listed, up to a number. */
function printed(found, other) {
  const cards = found.slice(0, MOST_PRINTED).map((one) => element("article", {}, ...promptCard(one.prompt, other)));
  const left = found.length - cards.length;
  const note = left > 0 ? [element("p", {}, `${number(left)} more are not printed.`)] : [];
  document.getElementById("print").replaceChildren(...cards, ...note);
}

async function start() {
  const { other, prompts } = JSON.parse(await inflated("answers"));
  const total = prompts.reduce((sum, prompt) => sum + prompt.samples.length, 0);
  const detail = document.getElementById("detail");
  const count = document.getElementById("count");

  const list = new List((found) => {
    if (found) detail.replaceChildren(...promptCard(found.prompt, other));
    else detail.replaceChildren(element("p", { className: "nothing" }, "No answer fits these filters."));
    detail.scrollTop = 0;
  });
  const filters = new Filters(prompts, () => {
    const found = select(prompts, filters.values, filters.order);
    list.show(found);
    count.textContent = counted(found, total, filters.active);
  });
  filters.changed();

  for (const button of document.querySelectorAll(".problem")) {
    button.addEventListener("click", () => {
      filters.set(JSON.parse(button.dataset.filters));
      document.getElementById("answers").scrollIntoView();
      document.getElementById("list").focus({ preventScroll: true });
    });
  }
  detail.addEventListener("change", (event) => event.target.matches(".probabilities") && byToken());
  window.addEventListener("beforeprint", () => printed(list.found, other));
  keys(list, filters);
  root.dataset.ready = "true";
  if (document.getElementById("rollouts")) showRollouts(JSON.parse(await inflated("rollouts")));
  showCharts(JSON.parse(await inflated("charts")));
  attachTokens(prompts, JSON.parse(await inflated("tokens")));
  list.select(list.at);
  root.dataset.tokens = "true";
}

function keys(list, filters) {
  const help = document.getElementById("help");
  const actions = {
    j: () => list.move(1),
    k: () => list.move(-1),
    "/": () => filters.search.focus(),
    w: () => filters.set(filters.values.verdict === "wrong" ? {} : { verdict: "wrong" }),
    p: byToken,
    t: theme,
    Escape: () => filters.clear(),
    "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || !(event.key in actions)) return;
    if (typing && event.key !== "Escape") return;
    event.preventDefault();
    if (typing) event.target.blur();
    actions[event.key]();
  });
}

keepTheme();
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("help-button").addEventListener("click", () => document.getElementById("help").showModal());
start();
