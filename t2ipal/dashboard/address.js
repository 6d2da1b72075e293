/** What a person has chosen, kept behind the # of the address: it survives a reload. */

import { STATES } from "./data.js";

/** Reads the choices into `view`; what makes no sense is left out. */
export function readAddress(view) {
  const words = new URLSearchParams(location.hash.slice(1));
  view.tab = words.get("tab") === "run" ? "run" : "search";
  view.isTabChosen = words.has("tab");
  view.searchName = words.get("search");
  view.filter.text = words.get("text") ?? "";
  const states = (words.get("states") ?? "").split(",").filter((state) => STATES.includes(state));
  view.filter.states = new Set(words.has("states") ? states : STATES);
  const [column, direction] = (words.get("sort") ?? "").split(":");
  view.sort = column ? { column, descending: direction !== "up" } : null;
  const number = words.get("trial");
  view.selected = /^\d+$/.test(number ?? "") ? Number(number) : null;
  view.filter.ranges = new Map();
  for (const range of words.getAll("range")) {
    const [key, ...intervals] = range.split("|");
    const numbers = intervals.map((interval) => interval.split("~").map(Number));
    if (numbers.length && numbers.every((ends) => ends.length === 2 && ends.every(Number.isFinite))) {
      view.filter.ranges.set(key, numbers);
    }
  }
}

/** Writes them, without a new entry in the browser's history. */
export function writeAddress(view) {
  const words = new URLSearchParams();
  if (view.isTabChosen) words.set("tab", view.tab);
  if (view.searchName) words.set("search", view.searchName);
  if (view.filter.text.trim()) words.set("text", view.filter.text);
  if (view.filter.states.size < STATES.length) words.set("states", [...view.filter.states].join());
  if (view.sort) words.set("sort", `${view.sort.column}:${view.sort.descending ? "down" : "up"}`);
  if (view.selected !== null) words.set("trial", view.selected);
  for (const [key, intervals] of view.filter.ranges) {
    const ends = intervals.map((interval) => interval.map((end) => Number(end.toPrecision(6))).join("~"));
    words.append("range", [key, ...ends].join("|"));
  }
  const text = words.toString();
  if (text !== location.hash.slice(1)) {
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }
}
