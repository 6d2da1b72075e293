/** The best configuration, or a chosen one, as a command; and why trials failed or are unfinished. */

import { count, element, fixed, last, metricName, optionValue, quoted, shownValue } from "./format.js";

/** Draws the settings of the chosen trial, or of the best one. */
export function drawConfiguration(view) {
  const { trials } = view;
  const { head } = trials;
  const chosen = trials.position.get(view.selected);
  const at = chosen ?? trials.position.get(head.best);
  const place = document.querySelector("#configuration .content");
  if (at === undefined) {
    place.replaceChildren(element("p", { className: "lead" }, "The best configuration is shown here as soon as a trial has finished."));
    return;
  }
  const isBest = trials.number[at] === head.best;
  const spread = trials.spread[at] === null ? "" : ` ± ${fixed(trials.spread[at])}`;
  const score = trials.metric[at] === null ? trials.status[at] : `${fixed(trials.metric[at])}${spread}`;
  const title = element("p", { className: "lead" }, `${isBest ? "The best: trial" : "Trial"} ${trials.number[at]}, ${metricName(head.metric)} ${score}`,
    trials.status[at] === "ok" ? null : ` (${trials.reason[at] || trials.status[at]})`);
  const list = element("dl", { className: "settings" }, ...trials.dimensions.flatMap(({ path }, index) => [
    element("dt", { title: path }, last(path)), element("dd", {}, shownValue(trials.values[index][at]))]));
  const parts = [title, list];
  // A search may lie outside of its run; those of versions before do not say which that is.
  const run = head.run ?? view.run;
  const { endpoint_url, ...backbone } = head.options;
  const endpoint = endpoint_url && { endpoint_url };
  if (isBest && head.updated_s !== null) parts.push(command("Fit it anew on all data",
    train(run, { from_search: `${view.run}/${view.searchName}`, ...endpoint })));
  const values = Object.entries({ ...head.changes, ...trials.settings(at) });
  const taken = values.filter(([path]) => /^(method|training)\./.test(path));
  const sets = taken.map(([path, value]) => quoted(`${path}=${optionValue(value)}`)).join(" ");
  const options = { methods: head.method, ...(head.schedule && { data_set: head.schedule }), ...backbone, ...endpoint };
  parts.push(command(taken.length === values.length ? "The same values for any training" : "The same values of training; the others are of images or scores",
    `${train(run, options)}${sets && ` --set ${sets}`}`));
  if (chosen !== undefined && !isBest && head.best !== null) {
    const back = element("button", { type: "button", textContent: "Back to the best" });
    back.addEventListener("click", () => view.select(null));
    parts.push(back);
  }
  place.replaceChildren(...parts);
}

/** A command that trains on a run. */
function train(run, options) {
  const given = Object.entries({ run, ...options }).map(([name, value]) => `--${name.replaceAll("_", "-")} ${quoted(value)}`);
  return `python jobs/train.py ${given.join(" ")}`;
}

function command(title, text) {
  const copy = element("button", { type: "button", textContent: "Copy" });
  const code = element("code", { textContent: text });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {  // not allowed where the page is neither https nor of this machine
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected: press Ctrl-C";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2500);
  });
  return element("div", { className: "command" }, element("div", { className: "head" }, element("span", { className: "muted" }, title), copy),
    element("pre", { tabIndex: 0 }, code));
}

/** Draws the reasons why trials failed or are unfinished, numbers in them left out, the most frequent first. */
export function drawFailures(view) {
  const { trials } = view;
  const groups = new Map();
  trials.status.forEach((status, at) => {
    if (status !== "failed" && status !== "unfinished") return;
    const reason = trials.reason[at] || "no reason was given";
    const key = reason.replace(/\d+(\.\d+)?/g, "…");
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(at);
  });
  const panel = document.getElementById("failures");
  panel.hidden = groups.size === 0;
  const rows = [...groups.values()].sort((a, b) => b.length - a.length).map((members) => {
    const show = element("button", { type: "button", textContent: count(members.length, "trial") });
    const reason = trials.reason[members[0]] || "no reason was given";
    show.addEventListener("click", () => view.showFailures(reason));
    return element("li", {}, show, element("span", {}, reason),
      element("span", { className: "muted" }, `trial ${trials.number[members[0]]}${members.length > 1 ? " and others" : ""}`));
  });
  panel.querySelector(".content").replaceChildren(element("ul", { className: "reasons" }, ...rows));
}
