/** The search in numbers, and how it stands. */

import { STATES, STATE_NAMES } from "./data.js";
import { count, duration, element, fixed, metricName, short } from "./format.js";

const STATUS = {
  waiting: "not started", running: "running", interrupted: "interrupted", ended: "ended early", done: "done",
};

/** Draws the headline. */
export function drawTiles(view) {
  const { trials } = view;
  const { head } = trials;
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const status of trials.status) counts[status] += 1;
  const ended = counts.ok + counts.stopped + counts.failed;
  const place = document.getElementById("tiles");
  const bar = element("div", { className: "share" }, ...["ok", "stopped", "failed", "running"].filter((state) => counts[state]).map((state) => {
    const part = element("span", { className: state });
    part.style.flexGrow = counts[state];
    return part;
  }), element("span"));
  bar.lastChild.style.flexGrow = Math.max(head.num_trials - ended - counts.running, 0);
  const said = STATES.filter((state) => counts[state]).map((state) => `${short(counts[state])} ${STATE_NAMES[state]}`);
  place.replaceChildren(
    bestTile(view),
    tile("Trials", [short(ended), element("small", {}, ` of ${short(head.num_trials)}`)], bar, said.join(" · ")),
    tile("Per hour", [rate(head.per_hour)], null, head.per_hour ? "since the last start" : "not known yet"),
    tile("Time left", [head.status === "running" ? duration(head.seconds_left) : "–"], null,
      head.status === "running" ? "at this rate" : { done: "all is done", interrupted: "nobody is at work" }[head.status] ?? ""),
    tile("Status", [STATUS[head.status]], null, statusNote(head, counts)),
  );
  const badge = document.getElementById("status");
  badge.textContent = STATUS[head.status];
  badge.className = `badge ${head.status}`;
}

function rate(perHour) {
  return perHour === null ? "–" : short(Math.round(perHour) || Number(perHour.toPrecision(2)));
}

function statusNote(head, counts) {
  if (head.note) return head.note;
  if (head.status === "interrupted") return "the same command goes on";
  if (head.status === "running") return `${count(counts.running, "trial")} at work`;
  return `${head.searcher}${head.scheduler === "none" ? "" : `, ${head.scheduler}`}`;
}

function bestTile(view) {
  const { trials } = view;
  const { head } = trials;
  const at = trials.position.get(head.best);
  const name = `Best ${metricName(head.metric)}`;
  if (at === undefined) return tile(name, ["–"], null, "no trial has finished yet", true);
  const spread = trials.spread[at];
  const digits = head.metric === "loss" ? 4 : 2;
  const value = [fixed(trials.metric[at], digits)];
  if (spread !== null) value.push(element("small", {}, ` ± ${fixed(spread, digits)}`));
  let about = `trial ${head.best}`;
  if (spread !== null) {
    const near = trials.finished([...trials.number.keys()]).filter(
      (other) => trials.sign * (trials.metric[at] - trials.metric[other]) <= spread).length - 1;
    about += `, ${count(head.num_seeds, "seed")}; ${count(near, "other")} within its spread`;
  } else about += ", one seed: luck is not told apart";
  return tile(name, value, null, about, true);
}

/** A number with its name, and a few words about it. */
export function tile(name, value, extra, about, first = false) {
  return element("dl", { className: first ? "tile first" : "tile" }, element("dt", {}, name),
    element("dd", {}, ...value), extra, element("dd", { className: "about", title: about }, about));
}
