"use strict";
// The list of prompts: only the rows in sight exist, so that its length costs nothing.

const ROW = 56;
const SPARE = 8;
const MARKS = { right: "✓", wrong: "✗", unjudged: "–" };

class List {
  /** `chosen` is called with what was selected, or null. */
  constructor(chosen) {
    this.box = document.getElementById("list");
    this.rows = document.getElementById("rows");
    this.chosen = chosen;
    this.found = [];
    this.at = -1;
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.select(Number(row.dataset.place));
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Show these, the first of them selected. */
  show(found) {
    this.found = found;
    this.rows.style.height = `${found.length * ROW}px`;
    this.box.scrollTop = 0;
    this.select(found.length ? 0 : -1);
  }

  select(place) {
    this.at = Math.min(place, this.found.length - 1);
    this.reveal();
    this.draw();
    this.chosen(this.found[this.at] ?? null, this.at);
  }

  move(by) {
    if (this.found.length) this.select(Math.max(0, this.at + by));
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const to = event.key === "End" ? this.found.length - 1 : Math.max(0, this.at + moves[event.key]);
    if (this.found.length) this.select(to);
  }

  reveal() {
    const top = this.at * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const below = top + ROW - this.box.clientHeight;
    if (below > this.box.scrollTop) this.box.scrollTop = below;
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const last = Math.min(this.found.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
    const shown = [];
    for (let place = first; place < last; place++) shown.push(this.row(place));
    this.rows.replaceChildren(...shown);
    if (this.at >= first && this.at < last) this.box.setAttribute("aria-activedescendant", `row-${this.at}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const { prompt, samples } = this.found[place];
    const made = element(
      "div",
      {
        className: "row",
        id: `row-${place}`,
        role: "option",
        "aria-selected": String(place === this.at),
        "aria-posinset": place + 1,
        "aria-setsize": this.found.length,
      },
      marks(prompt.samples),
      element("span", { className: "row-prompt" }, line(prompt.prompt)),
      element(
        "span",
        { className: "row-facts" },
        ...rowFacts(prompt, samples.find((sample) => sample.correct === false) ?? samples[0]),
      ),
    );
    made.dataset.place = place;
    made.style.transform = `translateY(${place * ROW}px)`;
    return made;
  }
}

/** One mark, or for several samples how many are right. */
function marks(samples) {
  const verdicts = samples.map(verdictOf);
  const right = verdicts.filter((verdict) => verdict === "right").length;
  const verdict = verdicts.includes("wrong") ? "wrong" : verdicts[0];
  if (samples.length === 1) {
    const words = element("span", { className: "hidden" }, `${WORDS[verdict]}: `);
    return element(
      "span",
      { className: `mark ${verdict}` },
      element("span", { "aria-hidden": "true" }, MARKS[verdict]),
      words,
    );
  }
  const counted = `${right}/${samples.length}`;
  return element("span", { className: `mark ${verdict}`, title: `${counted} right` }, counted);
}

function rowFacts(prompt, sample) {
  const given = sample.extracted === undefined ? "no answer" : line(sample.extracted, 40);
  const facts = [element("bdi", {}, given)];
  if (sample.correct === false && prompt.reference !== null) {
    facts.push(" ≠ ", element("bdi", {}, line(prompt.reference, 40)));
  }
  if (sample.flip) facts.push(element("span", { className: `flip ${sample.flip}` }, sample.flip));
  return facts;
}
