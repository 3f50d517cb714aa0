"use strict";
// The controls above the list. Only what tells answers apart is offered, each choice with its number of answers.

const MOST_CHOICES = 60;
const NAMES = {
  verdict: "Verdict",
  flip: "Against",
  reason: "Reason",
  form: "Form",
  finish: "Ended",
  first: "First wrong step",
  steps: "Steps",
  slice: "Slice",
};
const WORDS = {
  right: "right",
  wrong: "wrong",
  unjudged: "not judged",
  flipped: "flipped",
  fixed: "right now, wrong there",
  broken: "wrong now, right there",
  stop: "by itself",
  length: "by the length limit",
  error: "failed",
  malformed: "malformed",
  ambiguous: "several answers marked",
};
const STEP_WORDS = {
  wrong: "a wrong step",
  lucky: "right answer, wrong step",
  unlucky: "wrong answer, right steps",
  contradiction: "last step and answer disagree",
  repeated: "a repeated step",
  unused: "an unused step",
};

class Filters {
  /** `changed` is called after every change. */
  constructor(prompts, changed) {
    this.form = document.getElementById("filters");
    this.search = document.getElementById("search");
    this.sort = document.getElementById("order");
    this.changed = changed;
    this.controls = new Map();
    for (const [name, choices] of Object.entries(this.choices(prompts))) this.offer(name, choices);
    this.offerOrder(prompts);
    const clear = element("button", { type: "button", className: "clear", onclick: () => this.clear() }, "Clear");
    document.getElementById("count").after(clear);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    for (const box of [this.form, this.sort]) box.addEventListener("input", () => this.changed());
  }

  /** For each filter its choices: value → [label, number of answers]. */
  choices(prompts) {
    const counts = Object.fromEntries(Object.keys(NAMES).map((name) => [name, new Map()]));
    const add = (name, value, label) => {
      const known = counts[name].get(value);
      counts[name].set(value, [label, (known?.[1] ?? 0) + 1]);
    };
    for (const prompt of prompts) {
      for (const sample of prompt.samples) {
        add("verdict", verdictOf(sample), WORDS[verdictOf(sample)]);
        if (sample.flip) add("flip", "flipped", WORDS.flipped);
        if (sample.flip) add("flip", sample.flip, WORDS[sample.flip]);
        if (sample.reason) add("reason", sample.reason, sample.reason);
        if (sample.malformed) add("form", "malformed", WORDS.malformed);
        if (sample.ambiguous) add("form", "ambiguous", WORDS.ambiguous);
        if (sample.finish) add("finish", sample.finish, WORDS[sample.finish] ?? sample.finish);
        const first = sample.first_wrong;
        if (sample.kinds) add("first", String(first ?? "none"), first === undefined ? "none" : `step ${first + 1}`);
        for (const [name, has] of Object.entries(STEPS)) if (has(sample)) add("steps", name, STEP_WORDS[name]);
        for (const [key, value] of Object.entries(prompt.slices)) {
          add("slice", sliceName(key, value), `${key}: ${value}`);
        }
      }
    }
    return counts;
  }

  offer(name, choices) {
    const telling = name === "form" || name === "steps" || name === "flip" ? 1 : 2;
    if (choices.size < telling) return;
    const ordered = [...choices].sort(([left, [, most]], [right, [, least]]) =>
      name === "first" || name === "slice"
        ? left.localeCompare(right, "en", { numeric: true })
        : least - most || left.localeCompare(right),
    );
    const options = ordered
      .slice(0, MOST_CHOICES)
      .map(([value, [label, count]]) => element("option", { value }, `${line(label, 60)} (${number(count)})`));
    const control = element("select", { name }, element("option", { value: "" }, "any"), ...options);
    this.controls.set(name, control);
    this.form.append(element("label", { className: "choice" }, element("span", {}, NAMES[name]), control));
  }

  offerOrder(prompts) {
    const sure = prompts.some((prompt) => prompt.samples.some((sample) => sample.confidence !== undefined));
    const options = Object.entries(ORDERS)
      .filter(([value]) => sure || !value.endsWith("sure"))
      .map(([value, [label]]) => element("option", { value }, label));
    this.sort.append(...options);
  }

  get order() {
    return this.sort.value;
  }

  get values() {
    const chosen = [...this.controls].map(([name, control]) => [name, control.value]);
    return { ...NO_FILTERS, text: this.search.value, ...Object.fromEntries(chosen) };
  }

  /** Whether any filter is in force; marks those that are. */
  get active() {
    for (const control of this.controls.values()) control.classList.toggle("active", control.value !== "");
    return Object.values(this.values).some((value) => value !== "");
  }

  /** Clear all filters and set these. */
  set(values) {
    this.search.value = "";
    for (const [name, control] of this.controls) control.value = values[name] ?? "";
    this.changed();
  }

  clear() {
    this.set({});
  }
}
