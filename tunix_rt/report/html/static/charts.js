"use strict";
// Charts are drawn when they come into sight; the plot library is unpacked for the first of them.

let library = null;

/** Unpack and run Vega. The policy of the page lists the hash of the very text that is inserted here. */
function loadVega() {
  library ??= inflated("vega").then((source) => {
    document.head.append(element("script", { textContent: source }));
  });
  return library;
}

/** Colours are variables of the styles, which the browser resolves: dark and light need no second drawing. */
const CONFIG = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: "transparent" },
  axis: {
    domainColor: "var(--line-strong)",
    tickColor: "var(--line-strong)",
    gridColor: "var(--line)",
    labelColor: "var(--muted)",
    titleColor: "var(--muted)",
    labelFontSize: 11,
    titleFontSize: 11,
    titleFontWeight: "normal",
    titlePadding: 8,
  },
  legend: { labelColor: "var(--text)", labelFontSize: 12, symbolType: "circle", symbolOpacity: 1, offset: 4, labelLimit: 260 },
  line: { color: "var(--this)" },
  point: { color: "var(--this)" },
};

const OPTIONS = {
  mode: "vega-lite",
  renderer: "svg",
  actions: false,
  ast: true, // an interpreter of expressions: the policy forbids `eval`
  defaultStyle: false,
  tooltip: { theme: "custom", disableDefaultStyle: true },
};

async function draw(figure, chart) {
  await loadVega();
  const plot = figure.querySelector(".plot");
  await window.vegaEmbed(plot, chart.spec, { ...OPTIONS, config: CONFIG });
  plot.querySelector("svg")?.setAttribute("aria-label", `${chart.title}: ${chart.note}`);
}

/** Every row of a chart's data; of a layered chart the largest set. */
function rowsOf(spec) {
  const sets = [spec, ...(spec.layer ?? [])].map((part) => part.data?.values ?? []);
  return sets.reduce((most, rows) => (rows.length > most.length ? rows : most), []);
}

function cell(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? String(Number(value.toPrecision(5))) : String(value);
}

/** The numbers of a chart as a table, for those who cannot see it and those who want them. */
function numbers(chart) {
  const rows = rowsOf(chart.spec);
  const columns = Object.keys(rows[0] ?? {});
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...columns.map((name) => element("td", {}, cell(row[name])))));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": `Numbers of ${chart.title}` },
    table,
  );
}

function showCharts(charts) {
  const figures = [...document.querySelectorAll("figure.chart")];
  const waiting = new Map(figures.map((figure) => [figure, charts[Number(figure.dataset.chart)]]));
  const drawNow = (figure) => {
    const chart = waiting.get(figure);
    waiting.delete(figure);
    return chart ? draw(figure, chart) : null;
  };
  const observer = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawNow(entry.target)),
    { rootMargin: "400px" },
  );
  for (const figure of figures) {
    const chart = waiting.get(figure);
    observer.observe(figure);
    const details = figure.querySelector("details");
    details.addEventListener("toggle", () => details.append(numbers(chart)), { once: true });
  }
  window.addEventListener("beforeprint", () => figures.forEach(drawNow));
}
