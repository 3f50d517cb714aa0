"use strict";
// Elements and text. What a model wrote becomes text nodes only: no function here takes markup.

/** Characters that nobody sees, or that reorder what is seen; the same as `visible` in terminal.py shows. */
const INVISIBLE = /[\p{C}\p{Z}]/gu;
const KEPT = " \n\t";

/** An element with properties and children; a string child becomes a text node. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && !name.startsWith("aria")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** `\u202e` for a character that cannot be seen, by UTF-16 units. */
function escaped(character) {
  return character
    .split("")
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");
}

/** Text as nodes, every invisible character written as its escape in an element of its own. */
function shown(text) {
  const parts = document.createDocumentFragment();
  let end = 0;
  for (const found of text.matchAll(INVISIBLE)) {
    if (KEPT.includes(found[0])) continue;
    parts.append(text.slice(end, found.index));
    parts.append(element("span", { className: "escape" }, escaped(found[0])));
    end = found.index + found[0].length;
  }
  parts.append(text.slice(end));
  return parts;
}

/** One line of text for a list: white space as single spaces, invisible characters as escapes. */
function line(text, longest = 160) {
  const cut = text.length > longest ? `${text.slice(0, longest)}…` : text;
  return cut.replace(/\s+/g, " ").replace(INVISIBLE, (character) => (character === " " ? " " : escaped(character)));
}

function percent(share) {
  if (share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share > 0.999 && share < 1 ? 2 : 1)} %`;
}

function number(value) {
  return value.toLocaleString("en");
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return bytes;
}

/** The text of a block of data: base64 of gzip. */
async function inflated(id) {
  const bytes = fromBase64(document.getElementById(`data-${id}`).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
