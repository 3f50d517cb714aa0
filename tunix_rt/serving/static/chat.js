"use strict";
// The conversation: one question goes to every served model, and each goes on with its own answers.

const byId = (id) => document.getElementById(id);
const TOKEN = "tunix_rt_token";
let models = [];
/** For each model, what was said so far. */
let said = new Map();
let running = null;

async function call(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const reply = await response.json().catch(() => null);
  const error = new Error(reply?.error?.message ?? `the server says ${response.status}`);
  error.status = response.status;
  throw error;
}

/** The JSON of each server-sent event. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    waiting += value;
    const whole = waiting.split("\n\n");
    waiting = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function settings() {
  const found = {};
  for (const [name, id] of [["temperature", "temperature"], ["max_tokens", "max-tokens"], ["seed", "seed"]])
    if (byId(id).value !== "") found[name] = Number(byId(id).value);
  return found;
}

async function ask(model, question, card, signal) {
  const messages = [...(said.get(model.id) ?? []), { role: "user", content: question }];
  const body = { model: model.id, messages, stream: true, logprobs: true, top_logprobs: 5, ...settings() };
  try {
    const response = await call("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) card.add(choice);
    }
    if (model.tunix_rt.converses) said.set(model.id, [...messages, card.message]);
  } catch (error) {
    if (error.status === 401) logIn("");
    card.fail(error.name === "AbortError" ? "Stopped." : error.message);
  }
}

async function submit(event) {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (!question || running) return;
  running = new AbortController();
  busy(true);
  byId("question").value = "";
  grow();
  const cards = models.map((model) => new AnswerCard(model.id));
  const answers = element("div", { className: "answers" }, ...cards.map((card) => card.node));
  const asked = element("p", { className: "question" }, element("span", { className: "hidden" }, "You: "), shown(question));
  byId("log").append(element("section", { className: "exchange" }, asked, answers));
  asked.scrollIntoView({ block: "start" });
  await Promise.all(models.map((model, place) => ask(model, question, cards[place], running.signal)));
  running = null;
  busy(false);
  byId("question").focus();
}

function busy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
  document.documentElement.toggleAttribute("data-busy", is);
}

function begin() {
  running?.abort();
  said = new Map();
  byId("log").replaceChildren();
  byId("question").focus();
}

function about() {
  byId("title").replaceChildren(element("bdi", {}, shown(models.map((model) => model.id).join(" against "))));
  document.title = models.map((model) => model.id).join(" against ");
  const alone = models.filter((model) => !model.tunix_rt.converses).map((model) => model.id);
  byId("about").replaceChildren(
    alone.length ? shown(`The format of ${alone.join(" and ")} shows one prompt: each question is asked by itself.`) : "",
  );
  const own = models[0].tunix_rt.defaults;
  byId("temperature").placeholder = String(own.temperature);
  byId("max-tokens").placeholder = String(own.max_new_tokens);
}

function logIn(problem) {
  byId("login-problem").textContent = problem;
  if (!byId("login").open) byId("login").showModal();
}

async function load() {
  try {
    models = (await (await call("/v1/models")).json()).data;
  } catch (error) {
    if (error.status === 401) logIn(sessionStorage.getItem(TOKEN) ? "That token is not the right one." : "");
    else byId("about").replaceChildren(shown(error.message));
    return;
  }
  about();
  document.documentElement.setAttribute("data-ready", "");
  byId("question").focus();
}

function grow() {
  byId("question").rows = Math.min(8, byId("question").value.split("\n").length);
}

byId("composer").addEventListener("submit", submit);
byId("stop").addEventListener("click", () => running?.abort());
byId("new").addEventListener("click", begin);
byId("question").addEventListener("input", grow);
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("composer").requestSubmit();
  }
});
byId("by-probability").addEventListener("change", (event) =>
  document.body.classList.toggle("plain-tokens", !event.target.checked),
);
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
byId("login-form").addEventListener("submit", () => {
  sessionStorage.setItem(TOKEN, byId("token").value);
  byId("token").value = "";
  load();
});
load();
