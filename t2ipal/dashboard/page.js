/** The page: what is known, what is chosen, and when which part is drawn. */

import { readAddress, writeAddress } from "./address.js";
import { charts, forgetColors } from "./charts.js";
import { drawConfiguration, drawFailures } from "./configuration.js";
import { Connection, embedded } from "./connection.js";
import { drawCurves, drawImportance } from "./curves.js";
import { Filter, STATES, Trials } from "./data.js";
import { element } from "./format.js";
import { drawMaps } from "./maps.js";
import { drawObjectives } from "./objectives.js";
import { drawOverview } from "./overview.js";
import { drawParallel, showRanges } from "./parallel.js";
import { drawProgress } from "./progress.js";
import { drawResponses } from "./responses.js";
import { drawTable, exportCsv, exportJson } from "./table.js";
import { drawTiles } from "./tiles.js";

const byId = (id) => document.getElementById(id);
const whole = embedded();
const PANELS = {
  tiles: ["tiles", drawTiles], progress: ["progress", drawProgress], configuration: ["configuration", drawConfiguration],
  parallel: ["parallel", drawParallel], table: ["trials", drawTable], responses: ["responses", drawResponses],
  maps: ["maps", drawMaps], importance: ["importance", drawImportance], curves: ["curves", drawCurves],
  objectives: ["objectives", drawObjectives], failures: ["failures", drawFailures],
};
/** Those whose content a filter changes; the parallel lines take its words alone. */
const FILTERED = ["table", "responses", "maps", "curves", "objectives"];
/** After which panels out of sight are drawn: a range that is being drawn changes faster. */
const AFTER_MS = 120;
/** Of drawing at a time, so that what is drawn is seen at once. */
const FRAME_MS = 30;
/** Charts take at most one part in so many of the time while a search goes on. */
const REST = 12;
/** In which curves follow the charts that were drawn without them. */
const JUST_NOW_MS = 3000;
/** Those that are drawn at each news. */
const AT_ONCE = ["tiles", "configuration", "table", "failures"];
const dirty = new Set();
let frame = null;
let later = null;
let costMs = 0;
let chartsAt = -Infinity;
let chartsLater = null;

const view = {
  trials: new Trials(), filter: new Filter(), visible: [], unknown: "", run: "", instance: null, tab: "search", searchName: null, sort: null,
  selected: null, pair: [0, 1], progressAxis: "time", curvesKind: "score", cost: null,
  select(number) {
    view.selected = number === view.selected ? null : number;
    writeAddress(view);
    redraw(["configuration", "table", "curves"]);
  },
  filterChanged(panels = FILTERED) {
    ({ found: view.visible, unknown: view.unknown } = view.filter.apply(view.trials));
    writeAddress(view);
    redraw(panels);
  },
  clearFilter() {
    Object.assign(view.filter, { text: "", states: new Set(STATES), ranges: new Map() });
    byId("filter").value = "";
    view.filterChanged([...FILTERED, "parallel"]);
    showRanges(view);
  },
  showFailures(reason) {
    view.filter.states = new Set(["failed", "unfinished"]);
    const words = reason.toLowerCase().split(/\s+/).filter((word) => /^[a-z]+$/.test(word));
    view.filter.text = words.slice(0, 4).join(" ");
    byId("filter").value = view.filter.text;
    view.filterChanged([...FILTERED, "parallel"]);
    byId("trials").scrollIntoView({ block: "start" });
  },
};

/** Draws panels in the next frames: first those in sight, the others when there is time. */
function redraw(panels) {
  for (const panel of panels) dirty.add(panel);
  document.documentElement.dataset.drawn = "no";
  frame ??= requestAnimationFrame(drawInSight);
  clearTimeout(later);
  later = null;
}

function isInSight(panel) {
  const box = byId(PANELS[panel][0]).getBoundingClientRect();
  return box.top < innerHeight && (box.bottom > 0 || panel === "failures");
}

/** As many as a frame has time for, so that what is drawn is seen at once. */
function drawInSight() {
  frame = null;
  if (byId("panels").hidden || byId("search").hidden) return;
  const end = performance.now() + FRAME_MS;
  const wanted = Object.keys(PANELS).filter((panel) => dirty.has(panel) && isInSight(panel));
  while (wanted.length && performance.now() < end) draw(wanted.shift());
  if (wanted.length) {
    frame = requestAnimationFrame(drawInSight);
    return;
  }
  document.documentElement.dataset.drawn = dirty.size ? "in sight" : "yes";
  if (dirty.size) later = setTimeout(drawNext, AFTER_MS);
}

/** One a turn, so that a click or a key comes in between. */
function drawNext() {
  if (byId("panels").hidden || byId("search").hidden) return;
  const panel = Object.keys(PANELS).find((each) => dirty.has(each));
  if (panel) draw(panel);
  if (dirty.size) later = setTimeout(drawNext, 0);
  else document.documentElement.dataset.drawn = "yes";
}

function draw(panel) {
  dirty.delete(panel);
  const start = performance.now();
  PANELS[panel][1](view);
  if (!AT_ONCE.includes(panel)) costMs += performance.now() - start;
}

/** Draws what came while a search goes on; a chart that is being looked at waits for the pointer to leave. */
function redrawNews() {
  redraw(AT_ONCE);
  clearTimeout(chartsLater);
  const wait = chartsAt + REST * costMs - performance.now();
  if (wait > 0) {
    chartsLater = setTimeout(redrawNews, wait);
    return;
  }
  [costMs, chartsAt] = [0, performance.now()];
  for (const panel of Object.keys(PANELS).filter((each) => !AT_ONCE.includes(each))) {
    const section = byId(PANELS[panel][0]);
    if (section.matches(":hover")) section.addEventListener("pointerleave", () => redraw([panel]), { once: true });
    else redraw([panel]);
  }
}

function takeState(state) {
  if (!state.search && view.instance === null && !view.isTabChosen) showTab("run");
  const isOther = state.search !== view.searchName || state.instance !== view.instance;
  Object.assign(view, { run: state.run, instance: state.instance });
  showSearches(state);
  if (!state.search || !state.head?.status) {
    view.searchName = state.search ?? view.searchName;
    showEmpty(state);
    return false;
  }
  if (isOther) view.trials = new Trials();
  view.searchName = state.search;
  const changed = view.trials.apply(state);
  const hasTrials = view.trials.size > 0;
  byId("panels").hidden = !hasTrials;
  byId("empty").hidden = hasTrials;
  if (!hasTrials) showEmpty(state);
  else if (changed || isOther) {
    ({ found: view.visible, unknown: view.unknown } = view.filter.apply(view.trials));
    if (isOther || state.since === 0) redraw(Object.keys(PANELS));
    else redrawNews();
  }
  return changed || isOther;
}

function takeCurves(curves) {
  const isFirst = view.trials.curvesVersion === 0;
  view.trials.applyCurves(curves);
  if (curves.number.length && (isFirst || performance.now() - chartsAt < JUST_NOW_MS)) redraw(["curves"]);
}

function takeOverview(overview) {
  view.overview = overview;
  drawOverview(byId("run"), overview, charts);
}

function showSearches({ searches, run }) {
  const name = run.split("/").filter(Boolean).at(-1) ?? "t2ipal";
  byId("title").textContent = name;
  byId("title").title = run;
  document.title = `${name} · t2ipal`;
  byId("switch").hidden = searches.length < 2;
  const box = byId("searches");
  if ([...box.options].map((option) => option.value).join("|") !== searches.join("|")) {
    box.replaceChildren(...searches.map((each) => element("option", { value: each, textContent: each })));
  }
  box.value = view.searchName ?? searches[0] ?? "";
}

function showEmpty(state) {
  byId("panels").hidden = true;
  byId("empty").hidden = false;
  const status = state.head?.status ?? "waiting";
  byId("status").textContent = state.search ? status : "";
  byId("status").className = `badge ${status}`;
  const words = state.search
    ? [status === "running" ? "The search has begun" : "No trial yet",
      `The first trials appear here as soon as their population has started, each as a running one: best score over time, all dimensions at once, responses, a table. ${state.head?.num_trials ? `There are to be ${state.head.num_trials} trials.` : ""}`]
    : ["No search in this run yet", "A search tries many settings on the run's captions and images. Start one with jobs/tune.py, and it appears here by itself:"];
  const parts = [element("h2", { textContent: words[0] }), element("p", { textContent: words[1] })];
  if (!state.search) parts.push(element("pre", {}, element("code", { textContent: `python jobs/tune.py --run ${state.run} --space tune_spaces/paper.yaml` })));
  byId("empty").replaceChildren(...parts);
}

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = text === "";
}

function showTab(name) {
  view.tab = name;
  for (const each of ["search", "run"]) {
    byId(each).hidden = each !== name;
    byId(`tab-${each}`).setAttribute("aria-selected", String(each === name));
    byId(`tab-${each}`).tabIndex = each === name ? 0 : -1;
  }
  writeAddress(view);
  if (name === "search") redraw([]);
  else if (whole) takeOverview(whole.overview);
  else connection.overview();
}

function chooseTab(name) {
  view.isTabChosen = true;
  showTab(name);
}

function setTheme(isDark) {
  document.documentElement.classList.toggle("dark", isDark);
  forgetColors();
  if (view.trials.size) redraw(Object.keys(PANELS));
  if (view.tab === "run" && view.overview) takeOverview(view.overview);
}

const system = matchMedia("(prefers-color-scheme: dark)");

/** The theme that was chosen before; null where none was, or where the browser keeps nothing. */
function keptTheme() {
  try { return localStorage.getItem("t2ipal-theme"); } catch { return null; }
}

setTheme(keptTheme() ? keptTheme() === "dark" : system.matches);
system.addEventListener("change", () => { if (!keptTheme()) setTheme(system.matches); });
byId("theme").addEventListener("click", () => {
  const isDark = !document.documentElement.classList.contains("dark");
  try { localStorage.setItem("t2ipal-theme", isDark ? "dark" : "light"); } catch { /* then for now alone */ }
  setTheme(isDark);
});

const connection = new Connection(view, { takeState, takeCurves, takeOverview, notice });
readAddress(view);
byId("filter").value = view.filter.text;
byId("filter").addEventListener("input", (event) => {
  view.filter.text = event.target.value;
  view.filterChanged([...FILTERED, "parallel"]);
});
byId("export-csv").addEventListener("click", () => exportCsv(view));
byId("export-json").addEventListener("click", () => exportJson(view));
byId("searches").addEventListener("change", (event) => {
  Object.assign(view, { searchName: event.target.value, instance: null, selected: null, sort: null, trials: new Trials() });
  Object.assign(view.filter, { text: "", states: new Set(STATES), ranges: new Map() });
  byId("filter").value = "";
  writeAddress(view);
  connection.now();
});
for (const name of ["search", "run"]) {
  byId(`tab-${name}`).addEventListener("click", () => chooseTab(name));
  byId(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "search" ? "run" : "search";
    chooseTab(other);
    byId(`tab-${other}`).focus();
  });
}
window.addEventListener("hashchange", () => {
  readAddress(view);
  if (!view.trials.size) return;
  view.filterChanged(Object.keys(PANELS));
  showRanges(view);
});
if (whole) {
  takeState(whole.state);
  takeCurves(whole.curves);
  byId("age").textContent = `as of ${new Date(whole.written_s * 1000).toLocaleString()}`;
  showTab(view.tab);
} else {
  showTab(view.tab);
  connection.now();
}
