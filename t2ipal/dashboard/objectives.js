/** The score against what it costs, and the trials that no other one beats in both. */

import { axis, palette, show } from "./charts.js";
import { choices, metricName, short } from "./format.js";
import { trialTip } from "./progress.js";

const COSTS = { images: "synthetic images", seconds: "seconds of training", loss: "training loss" };

/** Draws finished trials over one cost. */
export function drawObjectives(view) {
  const { trials } = view;
  const { head } = trials;
  const known = Object.keys(COSTS).filter((name) => name !== head.metric && trials[name].some((value) => value !== null));
  const wanted = view.cost ?? head.minimize[0];
  const cost = known.includes(wanted) ? wanted : known.includes("seconds") ? "seconds" : known[0];
  choices(document.getElementById("objectives-axis"), known.map((name) => [name, COSTS[name]]), (key) => key === cost, (key) => {
    view.cost = key;
    drawObjectives(view);
  });
  const lead = document.getElementById("objectives-lead");
  const place = document.querySelector("#objectives .chart");
  const found = trials.finished(view.visible).filter((at) => cost && trials[cost][at] !== null);
  place.hidden = found.length === 0;
  if (found.length === 0) {
    lead.textContent = "Shown as soon as a trial has finished whose cost is known.";
    return;
  }
  const isObjective = head.minimize.includes(cost);
  const front = isObjective ? head.front.map((number) => trials.position.get(number)).filter((at) => at !== undefined) : [];
  lead.textContent = isObjective
    ? `No trial beats ${front.length === 1 ? "the one" : `the ${front.length}`} on the Pareto front in ${[...head.minimize, metricName(head.metric)].join(" and ")} at once.`
    : `There is no Pareto front: the search does not minimize ${COSTS[cost]}.`;
  const ink = palette();
  const point = (at) => [trials[cost][at], trials.metric[at], at];
  const [low, high] = trials.scoreRange(found);
  const reach = trials.sign > 0 ? { min: low - (high - low) * 0.6 } : { max: high + (high - low) * 0.6 };
  const line = front.map(point).sort((a, b) => a[0] - b[0]);
  const onlyOne = head.minimize.length === 1;
  const inside = (at) => (trials.sign > 0 ? trials.metric[at] >= reach.min : trials.metric[at] <= reach.max);
  const dots = found.filter(inside);
  const far = found.length - dots.length;
  if (far) lead.textContent += ` ${short(far)} far worse ones lie outside.`;
  const chart = show(place, {
    grid: { left: 54, right: 22, top: 14, bottom: 42 },
    tooltip: { trigger: "item", formatter: ({ data }) => trialTip(view, data[2]) },
    xAxis: axis({ type: "value", scale: true, name: COSTS[cost], nameGap: 26, splitLine: { show: false } }),
    yAxis: axis({ type: "value", scale: true, ...reach, axisLabel: { showMinLabel: false, formatter: (value) => short(Number(value.toPrecision(4))) } }),
    series: [
      { type: "scatter", data: dots.map(point), symbolSize: dots.length > 1000 ? 3 : 5, large: dots.length > 2000,
        itemStyle: { color: ink.bar, opacity: 0.45 } },
      { type: "line", data: line, step: onlyOne ? "end" : false, symbol: "circle", symbolSize: 8, z: 4, lineStyle: { color: ink.accent, width: onlyOne ? 2 : 0 },
        itemStyle: { color: ink.accent }, label: { show: line.length <= 8, position: "top", color: ink.muted, fontSize: 11, formatter: ({ data }) => `#${trials.number[data[2]]}` } },
    ],
  });
  chart.off("click");
  chart.on("click", ({ data }) => view.select(trials.number[data[2]]));
}
