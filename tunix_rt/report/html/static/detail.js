"use strict";
// One prompt with all its answers: steps by what was found of them, tokens by how probable they were.

const KINDS = {
  right: "right",
  wrong: "wrong",
  unchecked: "not checked",
  repeated: "repeated",
  unused: "not used later",
};
/** Lower ends, in thousandths, of the classes `p0` … `p3` of less and less probable tokens; `p4` is the rest. */
const PROBABLE = [990, 900, 500, 100];

function tokenEnds(answer) {
  let end = 0;
  return (answer.token_lengths ?? []).map((length) => (end += length));
}

/** Where a text is divided: at the ends of steps and tokens. Offsets count code points, as Python's do. */
function pieces(answer) {
  const points = Array.from(answer.completion ?? "");
  const cuts = new Set([0, points.length]);
  for (const span of answer.spans ?? []) span.forEach((at) => cuts.add(at));
  const ends = tokenEnds(answer);
  for (const end of ends) cuts.add(Math.min(end, points.length));
  const ordered = [...cuts].sort((left, right) => left - right);
  let step = 0;
  let token = 0;
  return ordered.slice(1).map((end, place) => {
    const start = ordered[place];
    while (answer.spans && step < answer.spans.length && answer.spans[step][1] <= start) step++;
    while (token < ends.length && ends[token] <= start) token++;
    const inside = answer.spans && step < answer.spans.length && answer.spans[step][0] <= start;
    const probability = token < ends.length ? answer.probabilities?.[token] : undefined;
    return {
      text: points.slice(start, end).join(""),
      step: inside ? step : null,
      last: inside && answer.spans[step][1] === end,
      probability,
    };
  });
}

function probabilityClass(probability) {
  if (probability === undefined) return "";
  const least = PROBABLE.findIndex((lower) => probability >= lower);
  return `p${least < 0 ? PROBABLE.length : least}`;
}

/** The completion in coloured pieces. A step is an element of its own, which says what was found of it. */
function completion(answer) {
  const box = element("pre", { className: "text completion", tabIndex: 0, "aria-label": "Completion" });
  let step = null;
  let into = box;
  for (const piece of pieces(answer)) {
    if (piece.step !== step) {
      step = piece.step;
      into = step === null ? box : stepElement(answer.kinds?.[step] ?? "unchecked", step);
      if (into !== box) box.append(into);
    }
    const kind = probabilityClass(piece.probability);
    const title = piece.probability === undefined ? "" : percent(piece.probability / 1000);
    into.append(kind ? element("span", { className: kind, title }, shown(piece.text)) : shown(piece.text));
  }
  if (!answer.completion)
    box.append(element("span", { className: "nothing" }, answer.error ? "" : "nothing was written"));
  return box;
}

function stepElement(kind, place) {
  return element(
    "span",
    { className: `step ${kind}`, title: `step ${place + 1}: ${KINDS[kind]}` },
    element("span", { className: "hidden" }, `[step ${place + 1}, ${KINDS[kind]}] `),
  );
}

/** Steps that do not stand in the completion as they were read. */
function stepList(answer) {
  if (!answer.steps) return null;
  const items = answer.steps.map((text, place) => {
    const step = stepElement(answer.kinds?.[place] ?? "unchecked", place);
    step.append(shown(text));
    return element("li", {}, step);
  });
  return element(
    "div",
    {},
    element("h5", {}, "Steps, as they were read"),
    element("ol", { className: "steps" }, ...items),
  );
}

function facts(answer, prompt) {
  const rows = [];
  const add = (name, value) => rows.push(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  const code = (text) => element("code", {}, shown(text));
  add("Answer", answer.extracted === undefined ? "none found" : code(answer.extracted));
  if (prompt.reference !== null) add("Reference", code(prompt.reference));
  if (answer.reason) add("Reason", element("bdi", {}, shown(answer.reason)));
  if (answer.marker) add("Found by", answer.marker);
  if (answer.confidence !== undefined) add("Confidence", percent(answer.confidence));
  if (answer.tokens !== undefined) add("Length", `${number(answer.tokens)} tokens`);
  if (answer.finish) add("Ended", WORDS[answer.finish] ?? answer.finish);
  for (const [name, score] of Object.entries(answer.scores ?? {})) {
    if (Object.keys(answer.scores).length > 1)
      add(`By ${name}`, score.correct ? "right" : `wrong (${line(String(score.reason))})`);
  }
  return element("dl", { className: "verdict" }, ...rows);
}

function badge(kind, text) {
  return element("span", { className: `badge ${kind}` }, text);
}

function badges(answer) {
  const verdict = verdictOf(answer);
  const made = [badge(verdict, `${MARKS[verdict]} ${WORDS[verdict]}`)];
  if (answer.flip) made.push(badge(answer.flip, answer.flip));
  if (answer.malformed) made.push(badge("plain", WORDS.malformed));
  if (answer.ambiguous) made.push(badge("plain", WORDS.ambiguous));
  if (answer.contradiction) made.push(badge("plain", STEP_WORDS.contradiction));
  return made;
}

/** One answer; `title` says whose it is. */
function answerCard(answer, prompt, title) {
  return element(
    "section",
    { className: "answer" },
    element("header", {}, element("h4", {}, element("bdi", {}, shown(title))), ...badges(answer)),
    completion(answer),
    answer.error ? element("p", { className: "notice" }, shown(answer.error)) : null,
    stepList(answer),
    facts(answer, prompt),
  );
}

function promptCard(prompt, other) {
  const several = prompt.samples.length > 1;
  const cards = prompt.samples.flatMap((sample) => {
    const own = several ? `Sample ${sample.sample + 1}` : other ? "This run" : "Completion";
    const made = [answerCard(sample, prompt, own)];
    if (sample.other) made.push(answerCard(sample.other, prompt, capital(other)));
    return made;
  });
  const slices = Object.entries(prompt.slices).map(([key, value]) =>
    element("span", { className: "badge plain" }, line(`${key}: ${value}`, 80)),
  );
  return [
    element("header", { className: "detail-head" }, element("h3", {}, element("bdi", {}, shown(prompt.id))), ...slices),
    element(
      "section",
      { className: "prompt" },
      element("h4", {}, "Prompt"),
      element("pre", { className: "text" }, shown(prompt.prompt)),
    ),
    legend(prompt),
    element("div", { className: cards.length > 1 ? "cards several" : "cards" }, ...cards),
  ];
}

function capital(text) {
  return text.startsWith("before") ? text[0].toUpperCase() + text.slice(1) : text;
}

/** What the colours mean, of those that occur, and the switch to the tokens' probabilities. */
function legend(prompt) {
  const answers = prompt.samples.flatMap((sample) => [sample, ...(sample.other ? [sample.other] : [])]);
  const kinds = new Set(answers.flatMap((answer) => answer.kinds ?? []));
  const known = answers.some((answer) => answer.token_lengths?.length && answer.probabilities?.length);
  const keys = Object.keys(KINDS)
    .filter((kind) => kinds.has(kind))
    .map((kind) => element("span", { className: `step ${kind}` }, `step: ${KINDS[kind]}`));
  const tokens = ["≥ 99 %", "≥ 90 %", "≥ 50 %", "≥ 10 %", "< 10 %"].map((text, place) =>
    element("span", { className: `p${place} key` }, text),
  );
  const toggle = element("input", {
    type: "checkbox",
    className: "probabilities",
    checked: document.body.classList.contains("by-token"),
  });
  return element(
    "p",
    { className: "legend" },
    ...keys,
    known ? element("label", { className: "toggle" }, toggle, "tokens by probability") : null,
    known ? element("span", { className: "token-keys" }, ...tokens) : null,
  );
}
