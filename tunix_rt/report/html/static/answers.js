"use strict";
// Which prompts are shown, in which order. No part of the document is touched here.

const NO_FILTERS = {
  text: "",
  verdict: "",
  flip: "",
  reason: "",
  form: "",
  finish: "",
  first: "",
  steps: "",
  slice: "",
};

/** Whether a sample has what each filter of `steps` asks for. */
const STEPS = {
  wrong: (sample) => sample.first_wrong !== undefined,
  lucky: (sample) => sample.correct === true && sample.first_wrong !== undefined,
  unlucky: (sample) => sample.correct === false && allRight(sample),
  contradiction: (sample) => sample.contradiction === true,
  repeated: (sample) => (sample.kinds ?? []).includes("repeated"),
  unused: (sample) => (sample.kinds ?? []).includes("unused"),
};

function allRight(sample) {
  const kinds = sample.kinds ?? [];
  return kinds.includes("right") && !kinds.includes("wrong");
}

function verdictOf(answer) {
  if (answer.correct === true) return "right";
  return answer.correct === false ? "wrong" : "unjudged";
}

/** The name of a slice's value in the filter; neither part can hold what separates them. */
function sliceName(key, value) {
  return JSON.stringify([key, value]);
}

/** Every answer with its prompt's others: each sample, then the other model's beside it. */
function everyAnswer(prompts) {
  return prompts.flatMap((prompt) => prompt.samples.flatMap((sample) => [sample, sample.other ?? []].flat()));
}

/** Give each answer its tokens, which lie in a block of their own since nothing else waits for them. */
function attachTokens(prompts, tokens) {
  everyAnswer(prompts).forEach((answer, place) => {
    [answer.token_lengths, answer.probabilities] = tokens[place];
  });
}

/** Lower-case text of a prompt with all its answers, made once. */
function textOf(prompt) {
  prompt.text ??= [
    prompt.id,
    prompt.prompt,
    prompt.reference ?? "",
    ...prompt.samples.flatMap((sample) => [
      sample.completion ?? "",
      sample.extracted ?? "",
      sample.other?.completion ?? "",
    ]),
  ]
    .join("\n")
    .toLowerCase();
  return prompt.text;
}

function fits(sample, filters) {
  return (
    (!filters.verdict || verdictOf(sample) === filters.verdict) &&
    (!filters.flip || sample.flip === filters.flip || (filters.flip === "flipped" && sample.flip)) &&
    (!filters.reason || sample.reason === filters.reason) &&
    (!filters.form || sample[filters.form] === true) &&
    (!filters.finish || sample.finish === filters.finish) &&
    (!filters.first || String(sample.first_wrong ?? "none") === filters.first) &&
    (!filters.steps || STEPS[filters.steps](sample))
  );
}

function inSlice(prompt, name) {
  return Object.entries(prompt.slices).some(([key, value]) => sliceName(key, value) === name);
}

/** Orders by a number of each prompt's matching samples; prompts without one come last, ties stay as they were. */
function by(numberOf, sign) {
  const least = (found) => {
    const numbers = found.samples.map(numberOf).filter((value) => value !== undefined);
    return numbers.length ? Math.min(...numbers.map((value) => sign * value)) : Infinity;
  };
  return (found) => {
    const keys = new Map(found.map((one) => [one, least(one)]));
    return found.sort((one, other) => {
      const [left, right] = [keys.get(one), keys.get(other)];
      return left === right ? 0 : left - right;
    });
  };
}

const ORDERS = {
  wrong: ["wrong first", (found) => found],
  file: ["as in the file", (found) => found.sort((one, other) => one.prompt.place - other.prompt.place)],
  unsure: ["least confident first", by((sample) => sample.confidence, 1)],
  sure: ["most confident first", by((sample) => sample.confidence, -1)],
  long: ["longest first", by((sample) => sample.tokens, -1)],
  short: ["shortest first", by((sample) => sample.tokens, 1)],
};

/** The prompts that have a sample which fits all filters, each with those samples, in the order that is asked for. */
function select(prompts, filters, order) {
  const words = filters.text.toLowerCase();
  const found = [];
  for (const prompt of prompts) {
    if (filters.slice && !inSlice(prompt, filters.slice)) continue;
    const samples = prompt.samples.filter((sample) => fits(sample, filters));
    if (samples.length && (!words || textOf(prompt).includes(words))) found.push({ prompt, samples });
  }
  return ORDERS[order][1](found);
}
