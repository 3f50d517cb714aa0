"use strict";
// The answers that were learned from: a slider over steps, a card for each prompt, its answers side by side.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 100;

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** At most four digits, a sign where it says something. */
function short(value, sign = false) {
  const text = String(Number(value.toPrecision(3)));
  return sign && value > 0 ? `+${text}` : text;
}

/** The reward over the steps in a band of its intervals; returns what moves the mark. */
function rewardCurve(box, curve) {
  const [first, last] = [curve[0][0], curve[curve.length - 1][0]];
  const values = curve.flatMap((point) => point.slice(1));
  const [low, high] = [Math.min(0, ...values), Math.max(...values)];
  const x = (step) => (1000 * (step - first)) / Math.max(last - first, 1);
  const y = (value) => HEIGHT - 4 - ((HEIGHT - 8) * (value - low)) / Math.max(high - low, 1e-9);
  const path = (points) => points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const whole = curve.filter((point) => point.length === 4);
  const edge = [...whole.map((p) => [p[0], p[3]]), ...whole.map((p) => [p[0], p[2]]).reverse()];
  const mark = drawn("line", { class: "at", y1: 0, y2: HEIGHT });
  box.append(
    drawn("polygon", { class: "range", points: path(edge) }),
    drawn("polyline", { class: "reward", points: path(curve) }),
    mark,
  );
  return (step) => {
    mark.setAttribute("x1", x(step));
    mark.setAttribute("x2", x(step));
  };
}

function stepFacts(step, shown) {
  const said = [];
  if (step.reward !== undefined) {
    const interval = step.low === undefined ? "" : ` [${short(step.low)}, ${short(step.high)}]`;
    said.push(`reward ${short(step.reward)}${interval}`);
  }
  if (step.dead !== undefined) said.push(`${percent(step.dead)} of the prompts teach nothing`);
  if (step.length !== undefined) said.push(`${short(step.length)} tokens per answer`);
  if (step.truncated) said.push(`${percent(step.truncated)} cut off`);
  if (step.entropy !== undefined) said.push(`entropy ${short(step.entropy)}`);
  if (step.kl !== undefined) said.push(`KL ${short(step.kl)}`);
  const left = step.prompts - step.groups.length;
  if (left > 0) said.push(`${number(shown)} of ${number(step.prompts)} prompts shown`);
  return said.join(" · ");
}

/** `best` or `worst`, where the answers to a prompt have different rewards. */
function roleOf(sample, group) {
  const rewards = group.samples.map((other) => other.reward);
  if (group.spread === 0) return "";
  return sample.reward === Math.max(...rewards) ? "best" : sample.reward === Math.min(...rewards) ? "worst" : "";
}

function rolloutCard(sample, role) {
  const sign = sample.advantage > 0 ? "up" : sample.advantage < 0 ? "down" : "level";
  const parts = Object.entries(sample.rewards).map(([name, value]) => `${line(name, 40)} ${short(value)}`);
  const head = element(
    "header",
    {},
    element("strong", {}, short(sample.reward)),
    role ? badge("plain", role) : null,
    sample.count > 1 ? badge("plain", `× ${number(sample.count)}`) : null,
    sample.cut ? badge("wrong", "cut off") : null,
    element("span", { className: "advantage", title: "advantage" }, short(sample.advantage, true)),
  );
  const text = element("pre", { className: "text", tabIndex: 0, "aria-label": "Completion" }, shown(sample.completion));
  if (!sample.completion) text.append(element("span", { className: "nothing" }, "nothing was written"));
  const foot = element("p", {}, [...parts, `${number(sample.tokens)} tokens`].join(" · "));
  return element("section", { className: `rollout ${sign}` }, head, text, foot);
}

function groupCard(group) {
  const cards = group.samples.map((sample) => rolloutCard(sample, roleOf(sample, group)));
  const facts = [`mean reward ${short(group.mean)}`];
  if (group.spread === 0) facts.push("all the same: nothing to compare");
  return element(
    "article",
    { className: "group" },
    element("pre", { className: "text" }, shown(group.prompt)),
    element(
      "p",
      { className: "group-facts" },
      "Reference ",
      element("code", {}, shown(group.reference)),
      ` · ${facts.join(" · ")}`,
    ),
    element(
      "div",
      { className: "side-by-side", tabIndex: 0, role: "group", "aria-label": `Answers to ${line(group.prompt, 80)}` },
      ...cards,
    ),
  );
}

const KINDS_OF_GROUPS = {
  "": () => true,
  mixed: (group) => group.spread > 0,
  same: (group) => group.spread === 0,
};

function showRollouts(data) {
  const slider = document.getElementById("rollout-step");
  const kind = document.getElementById("rollout-kind");
  const move = data.curve.length > 1 ? rewardCurve(document.getElementById("rollout-curve"), data.curve) : () => {};
  const draw = () => {
    const step = data.steps[Number(slider.value)];
    const groups = step.groups.filter(KINDS_OF_GROUPS[kind.value]);
    const none = element("p", { className: "nothing" }, "No prompt of this step is so.");
    document.getElementById("rollout-at").textContent = `Step ${number(step.step)}`;
    document.getElementById("rollout-facts").textContent = stepFacts(step, step.groups.length);
    slider.setAttribute("aria-valuetext", `step ${number(step.step)}`);
    document.getElementById("rollout-groups").replaceChildren(...(groups.length ? groups.map(groupCard) : [none]));
    move(step.step);
  };
  slider.max = data.steps.length - 1;
  slider.value = 0;
  slider.addEventListener("input", draw);
  kind.addEventListener("change", draw);
  for (const [id, by] of [
    ["rollout-before", -1],
    ["rollout-after", 1],
  ]) {
    document.getElementById(id).addEventListener("click", () => {
      slider.value = Number(slider.value) + by;
      draw();
    });
  }
  draw();
}
