"use strict";
// One answer as it arrives: its tokens by how probable they were, what else was likely, its steps and its result.

/** Lower ends of the classes `p0` … `p3` of less and less probable tokens; `p4` is the rest. */
const PROBABLE = [0.99, 0.9, 0.5, 0.1];

function probabilityClass(logprob) {
  const least = PROBABLE.findIndex((lower) => Math.exp(logprob) >= lower);
  return `p${least < 0 ? PROBABLE.length : least}`;
}

/** The texts of tokens, of which several may make a character together: then the last one has it. */
function texts(tokens) {
  const decoder = new TextDecoder();
  return tokens.map((token, place) =>
    decoder.decode(Uint8Array.from(token.bytes ?? []), { stream: place < tokens.length - 1 }),
  );
}

class AnswerCard {
  constructor(name) {
    this.tokens = [];
    this.message = { role: "assistant", content: "" };
    this.text = element("div", { className: "tokens", role: "group", "aria-label": `Tokens of ${name}` });
    this.state = element("span", { className: "state" }, "…");
    this.likely = element("div", { className: "likely" });
    this.result = element("div", { className: "parts" });
    this.node = element(
      "article",
      { className: "answer", "aria-label": `Answer of ${name}`, "aria-busy": "true" },
      element("header", {}, element("h2", {}, element("bdi", {}, shown(name))), this.state),
      this.text,
      this.likely,
      this.result,
    );
    this.text.addEventListener("focusin", (event) => this.choose(event.target));
    this.text.addEventListener("pointerover", (event) => this.choose(event.target));
    this.text.addEventListener("keydown", (event) => this.move(event));
  }

  /** What one chunk of the stream adds. */
  add(choice) {
    this.message.content += choice.delta?.content ?? "";
    if (choice.delta?.reasoning_content)
      this.message.reasoning_content = (this.message.reasoning_content ?? "") + choice.delta.reasoning_content;
    const added = choice.logprobs?.content ?? [];
    const first = this.tokens.length;
    this.tokens.push(...added);
    const all = texts(this.tokens);
    added.forEach((token, place) => this.text.append(this.token(token, all[first + place], first + place)));
    if (choice.finish_reason) this.finish(choice);
  }

  token(token, text, place) {
    const shownText = text || (token.bytes?.length ? "" : token.token);
    return element(
      "span",
      { className: `token ${probabilityClass(token.logprob)}`, tabIndex: place ? -1 : 0, "data-place": String(place) },
      shown(shownText),
    );
  }

  choose(node) {
    const place = node.closest?.("[data-place]")?.dataset.place;
    if (place === undefined) return;
    this.text.querySelector(".chosen")?.classList.remove("chosen");
    node.closest("[data-place]").classList.add("chosen");
    const token = this.tokens[Number(place)];
    const rows = token.top_logprobs.map((other) => this.row(other, other.token === token.token));
    if (!token.top_logprobs.some((other) => other.token === token.token)) rows.unshift(this.row(token, true));
    this.likely.replaceChildren(
      element("table", {}, element("caption", {}, `Token ${Number(place) + 1} of ${this.tokens.length}`), ...rows),
    );
  }

  row(token, chosen) {
    const share = Math.exp(token.logprob);
    const bar = element("meter", { min: 0, max: 1, value: share, "aria-hidden": "true" });
    return element(
      "tr",
      { className: chosen ? "taken" : "" },
      element("th", { scope: "row" }, element("code", {}, shown(JSON.stringify(token.token)))),
      element("td", {}, percent(share)),
      element("td", { className: "bar" }, bar),
      element("td", {}, chosen ? "written" : ""),
    );
  }

  /** Arrows go from token to token, as one stop of the Tab key. */
  move(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const nodes = [...this.text.children];
    const now = nodes.indexOf(document.activeElement);
    let next = now + (steps[event.key] ?? 0);
    if (event.key === "Home") next = 0;
    if (event.key === "End") next = nodes.length - 1;
    if (next === now || now < 0 || !nodes[next]) return;
    event.preventDefault();
    nodes[now].tabIndex = -1;
    nodes[next].tabIndex = 0;
    nodes[next].focus();
  }

  finish(choice) {
    this.node.setAttribute("aria-busy", "false");
    const cut = choice.finish_reason === "length";
    this.state.textContent = `${number(this.tokens.length)} tokens${cut ? ", cut off" : ""}`;
    const { steps = [], answer = null, problem = null } = choice.tunix_rt ?? {};
    const parts = [];
    if (steps.length)
      parts.push(
        element("h3", {}, steps.length === 1 ? "1 step" : `${number(steps.length)} steps`),
        element("ol", { className: "steps" }, ...steps.map((step) => element("li", {}, shown(step)))),
      );
    if (answer !== null && !cut)
      parts.push(element("p", { className: "result" }, element("span", {}, "Answer"), element("strong", {}, shown(answer))));
    else parts.push(element("p", { className: "notice" }, cut ? "The end was not reached." : shown(`Not in the format: ${problem}`)));
    this.result.replaceChildren(...parts);
  }

  fail(message) {
    this.node.setAttribute("aria-busy", "false");
    this.state.textContent = "no answer";
    this.result.replaceChildren(element("p", { className: "notice", role: "alert" }, shown(message)));
  }
}
