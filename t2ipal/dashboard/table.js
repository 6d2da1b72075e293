/** The table of trials: only the rows in view are elements, so that 10,000 are as quick as ten. */

import { STATES, STATE_NAMES } from "./data.js";
import { showRanges } from "./parallel.js";
import { choices, element, fixed, last, metricName, save, short, shownValue } from "./format.js";

const ROW_PX = 28;
const MARGIN_ROWS = 6;
let order = [];
let cursor = 0;

/** The columns, from left to right: what is shown, what it sorts by, how wide it is. */
function columns(trials) {
  const { head } = trials;
  const outcome = (key, name, text, width = "74px") => ({ key, name, text, width, value: (at) => trials[key][at] });
  const digits = head.metric === "loss" ? 4 : 2;
  return [
    outcome("number", "trial", (at) => String(trials.number[at]), "64px"),
    { ...outcome("status", "state", (at) => STATE_NAMES[trials.status[at]].split(" ")[0], "84px"), isText: true },
    outcome(head.metric, metricName(head.metric), (at) => fixed(trials.metric[at], digits), "126px"),
    outcome("spread", "±", (at) => fixed(trials.spread[at], digits), "58px"),
    ...trials.dimensions.map(({ path }, index) => ({ key: path, name: last(path), title: path,
      width: `${Math.min(Math.max(last(path).length * 7.4 + 26, 92), 190)}px`, value: (at) => trials.values[index][at],
      text: (at) => shownValue(trials.values[index][at]) })),
    ...(head.metric === "loss" ? [] : [outcome("loss", "loss", (at) => short(trials.loss[at]))]),
    outcome("images", "images", (at) => short(trials.images[at])),
    outcome("seconds", "seconds", (at) => short(trials.seconds[at])),
    { ...outcome("reason", "reason", (at) => trials.reason[at], "minmax(180px, 1fr)"), isText: true },
  ];
}

/** Draws the tools above it, its head, and the rows in view. */
export function drawTable(view) {
  const { trials } = view;
  drawTools(view);
  const shownColumns = columns(trials);
  order = sorted(view, shownColumns);
  cursor = Math.min(cursor, Math.max(order.length - 1, 0));
  const holder = document.getElementById("table");
  const template = shownColumns.map(({ width }) => width).join(" ");
  if (holder.dataset.template !== template) build(view, holder, template);
  holder.setAttribute("aria-rowcount", order.length + 1);
  holder.setAttribute("aria-colcount", shownColumns.length);
  const heads = shownColumns.map((column) => headCell(view, column));
  const focused = document.activeElement?.dataset?.column;
  holder.querySelector(".heads").replaceChildren(...heads);
  if (focused) heads.find((cell) => cell.firstChild.dataset.column === focused)?.firstChild.focus();
  holder.querySelector(".space").style.height = `${order.length * ROW_PX}px`;
  drawRows(view);
}

function build(view, holder, template) {
  holder.dataset.template = template;
  const heads = element("div", { className: "heads", role: "row" });
  const space = element("div", { className: "space" });
  holder.replaceChildren(heads, space);
  heads.style.gridTemplateColumns = template;
  holder.onscroll = () => drawRows(view);
  holder.onkeydown = (event) => moveCursor(view, holder, event);
  space.onclick = (event) => {
    const row = event.target.closest("[data-place]");
    if (!row) return;
    cursor = Number(row.dataset.place);
    view.select(view.trials.number[order[cursor]]);
  };
}

function headCell(view, { key, name, title, isText }) {
  const isSorted = view.sort?.column === key;
  const button = element("button", { type: "button", title: title ?? name, tabIndex: 0 }, name, isSorted ? (view.sort.descending ? " ↓" : " ↑") : "");
  button.dataset.column = key;
  button.addEventListener("click", () => {
    view.sort = { column: key, descending: isSorted ? !view.sort.descending : key === view.trials.head.metric && view.trials.sign > 0 };
    document.getElementById("table").scrollTop = 0;
    view.filterChanged(["table"]);
  });
  const cell = element("span", { role: "columnheader", className: isText ? "text" : "" }, button);
  cell.setAttribute("aria-sort", isSorted ? (view.sort.descending ? "descending" : "ascending") : "none");
  return cell;
}

/** Empty cells last, whichever way it goes. */
function sorted(view, shownColumns) {
  const { trials } = view;
  const { column, descending } = view.sort ?? { column: trials.head.metric, descending: trials.sign > 0 };
  const { value } = shownColumns.find(({ key }) => key === column) ?? shownColumns[0];
  const way = descending ? -1 : 1;
  const compare = (a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === right) return trials.number[a] - trials.number[b];
    if (left === null || left === "") return 1;
    if (right === null || right === "") return -1;
    if (typeof left === "number" && typeof right === "number") return way * (left - right);
    return way * String(left).localeCompare(String(right));
  };
  return [...view.visible].sort(compare);
}

function drawRows(view) {
  const holder = document.getElementById("table");
  const space = holder.querySelector(".space");
  const { trials } = view;
  const first = Math.max(Math.floor(holder.scrollTop / ROW_PX) - MARGIN_ROWS, 0);
  const end = Math.min(first + Math.ceil(holder.clientHeight / ROW_PX) + 2 * MARGIN_ROWS, order.length);
  const shownColumns = columns(trials);
  const rows = [];
  for (let place = first; place < end; place += 1) {
    const at = order[place];
    const row = element("div", { className: `row ${trials.status[at]}`, role: "row", id: `row-${place}` },
      ...shownColumns.map((column) => element("span", { role: "gridcell", className: column.isText ? "text" : "", title: column.key === "reason" ? trials.reason[at] : "" }, column.text(at))));
    row.dataset.place = place;
    row.style.top = `${place * ROW_PX}px`;
    row.style.gridTemplateColumns = holder.dataset.template;
    row.setAttribute("aria-rowindex", place + 2);
    row.setAttribute("aria-selected", String(trials.number[at] === view.selected));
    row.classList.toggle("best", trials.number[at] === trials.head.best);
    row.classList.toggle("cursor", place === cursor);
    rows.push(row);
  }
  space.replaceChildren(...rows);
  if (order.length) holder.setAttribute("aria-activedescendant", `row-${cursor}`);
}

function moveCursor(view, holder, event) {
  if (event.target !== holder || order.length === 0) return;
  const page = Math.max(Math.floor(holder.clientHeight / ROW_PX) - 2, 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -order.length, End: order.length };
  if (event.key === "Enter" || event.key === " ") view.select(view.trials.number[order[cursor]]);
  else if (!(event.key in steps)) return;
  event.preventDefault();
  cursor = Math.min(Math.max(cursor + (steps[event.key] ?? 0), 0), order.length - 1);
  const top = cursor * ROW_PX;
  if (top < holder.scrollTop) holder.scrollTop = top;
  const below = top + 3 * ROW_PX - holder.clientHeight;
  if (below > holder.scrollTop) holder.scrollTop = below;
  drawRows(view);
}

function drawTools(view) {
  const { trials, filter } = view;
  const text = document.getElementById("filter");
  if (document.activeElement !== text) text.value = filter.text;
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const status of trials.status) counts[status] += 1;
  const states = STATES.filter((state) => counts[state] > 0);
  choices(document.getElementById("states"), states.map((state) => [state, STATE_NAMES[state]]),
    (state) => filter.states.has(state), (state) => {
      if (!filter.states.delete(state)) filter.states.add(state);
      view.filterChanged();
    });
  const chips = [...filter.ranges].map(([key, intervals]) => chip(rangeText(trials, key, intervals), () => {
    filter.ranges.delete(key);
    view.filterChanged();
    showRanges(view);
  }));
  if (!filter.isEmpty) chips.push(chip("clear all", () => view.clearFilter()));
  document.getElementById("chips").replaceChildren(...chips);
  document.getElementById("count").textContent = view.unknown || (filter.isEmpty ? short(trials.size)
    : `${short(view.visible.length)} of ${short(trials.size)}`);
}

function chip(text, take) {
  const button = element("button", { type: "button", textContent: text === "clear all" ? text : `${text} ×` });
  button.setAttribute("aria-label", text === "clear all" ? "Clear the filter" : `Take away ${text}`);
  button.addEventListener("click", take);
  return button;
}

function rangeText(trials, key, intervals) {
  const dimension = trials.dimensions.find(({ path }) => path === key);
  const listed = dimension && (dimension.kind === "grid" || dimension.kind === "choice");
  const told = ([low, high]) => {
    if (!listed) return `${short(Number(low.toPrecision(3)))} to ${short(Number(high.toPrecision(3)))}`;
    return dimension.values.filter((_, index) => index >= low && index <= high).map(short).join(", ") || "none";
  };
  return `${last(key)}: ${intervals.map(told).join("; ")}`;
}

/** The trials in view, in the table's order, for a spreadsheet. */
export function exportCsv(view) {
  const { trials } = view;
  const cells = columns(trials);
  const head = cells.map(({ key }) => key);
  const rows = order.map((at) => cells.map(({ value }) => value(at)));
  save(`${view.searchName}-trials.csv`, "text/csv", [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\n"));
}

/** A cell of a spreadsheet; a text that would be taken for a formula is marked as text. */
function csvCell(value) {
  if (value === null || value === undefined) return "";
  let text = typeof value === "object" ? JSON.stringify(value) : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The same trials with their curves, for a program. */
export function exportJson(view) {
  const { trials } = view;
  const names = ["number", "status", "reason", "validation_mAP", "spread", "loss", "images", "seconds"];
  const rows = order.map((at) => ({ ...Object.fromEntries(names.map((name) => [name, trials[name][at]])),
    values: trials.settings(at), scores: trials.scores[at] ?? [], losses: trials.losses[at] ?? [] }));
  save(`${view.searchName}-trials.json`, "application/json", JSON.stringify({ run: view.run, search: view.searchName, trials: rows }));
}
