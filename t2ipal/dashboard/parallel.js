/** Parallel coordinates: a line for each trial; a range drawn on an axis filters the whole page. */

import { palette, show, tip } from "./charts.js";
import { isListed, places } from "./data.js";
import { count, last, metricName, short } from "./format.js";

const MAX_LINES = 500;
const BEST_LINES = 150;
let shownAxes = "";
let isDragged = false;
window.addEventListener("pointerup", () => { isDragged = false; });

/** The axes, from left to right: dimensions, further objectives, the metric. */
function axes(trials) {
  const { head } = trials;
  return [
    ...trials.dimensions.map((dimension, index) => ({
      key: dimension.path, name: last(dimension.path), dimension, place: places(dimension, trials.values[index]) })),
    ...head.minimize.map((name) => ({ key: name, name, place: (at) => trials[name][at] })),
    { key: head.metric, name: metricName(head.metric), place: (at) => trials.metric[at] },
  ];
}

function axisOption({ key, name, dimension }, index, total) {
  const ink = palette();
  const option = { id: key, dim: index, name, nameTextStyle: { color: ink.text, fontSize: 12 }, nameGap: 12,
    axisLine: { lineStyle: { color: ink.bar } }, axisTick: { lineStyle: { color: ink.bar } },
    axisLabel: { color: ink.text, fontSize: 11, backgroundColor: ink.surface, padding: [1, 3], borderRadius: 3 },
    areaSelectStyle: { width: 18, borderColor: ink.accent, color: ink.accent, opacity: 0.25 } };
  if (dimension && isListed(dimension)) {
    return { ...option, type: "category", data: dimension.values.map((value) => cut(short(value))) };
  }
  option.axisLabel.formatter = (value) => short(Number(value.toPrecision(4)));
  if (dimension) {
    const [min, max] = dimension.values;
    return { ...option, type: dimension.kind === "loguniform" ? "log" : "value", min, max,
      minInterval: dimension.kind === "randint" ? 1 : 0 };
  }
  return { ...option, type: "value", scale: true, nameTextStyle: { ...option.nameTextStyle,
    fontWeight: index === total - 1 ? 600 : 400 } };
}

function cut(text) {
  return text.length > 14 ? `${text.slice(0, 13)}…` : text;
}

/** Those that are drawn: the best ones, and an even sample of the others. */
function sampleOfLines(trials, found) {
  const whole = found.filter((at) => trials.metric[at] !== null || trials.status[at] === "running");
  if (whole.length <= MAX_LINES) return whole;
  const order = [...whole].sort((a, b) => trials.sign * ((trials.metric[b] ?? -Infinity) - (trials.metric[a] ?? -Infinity)));
  const others = order.slice(BEST_LINES);
  const step = others.length / (MAX_LINES - BEST_LINES);
  const even = Array.from({ length: MAX_LINES - BEST_LINES }, (_, index) => others[Math.floor(index * step)]);
  return [...order.slice(0, BEST_LINES), ...even];
}

/** Draws the lines anew; ranges that are drawn on the axes stay. */
export function drawParallel(view) {
  const { trials } = view;
  if (isDragged) return;
  const { found } = view.filter.apply(trials, false);
  const lines = sampleOfLines(trials, found);
  const all = axes(trials);
  const ink = palette();
  const [low, high] = trials.scoreRange(found);
  const rank = trials.sign > 0 ? 1 : -1;
  lines.sort((a, b) => rank * ((trials.metric[a] ?? -Infinity) - (trials.metric[b] ?? -Infinity)));
  const data = lines.map((at) => ({ value: all.map(({ place }) => place(at) ?? "-"), at,
    lineStyle: { color: trials.metric[at] === null ? ink.track : rampColor(ink.ramp, (trials.metric[at] - low) / (high - low), trials.sign) } }));
  const few = lines.length < 200;
  const series = { id: "trials", type: "parallel", data, progressive: 0, smooth: false, inactiveOpacity: 0.02,
    activeOpacity: few ? 0.75 : 0.35, lineStyle: { width: few ? 1.4 : 1, opacity: few ? 0.7 : 0.3 }, emphasis: { lineStyle: { width: 2.6, opacity: 1 } } };
  document.getElementById("parallel-lead").textContent = [
    "Draw along an axis to keep the trials that pass there; a click on the axis lets all pass again.",
    lines.length === MAX_LINES ? `${count(lines.length, "line")} of ${short(found.length)} trials: the best ${BEST_LINES} and an even sample of the others; ranges filter all.` : "",
    "The more color, the better the score.",
  ].join(" ");
  const place = document.querySelector("#parallel .chart");
  const isTall = place.clientWidth / all.length < 62;
  place.style.minHeight = isTall ? `${all.length * 46 + 40}px` : "";
  const signature = JSON.stringify([all.map((axis) => [axis.key, axis.dimension]), ink.text, isTall]);
  const known = echarts.getInstanceByDom(place);
  if (known && shownAxes === signature) {
    known.setOption({ series: [series] });
    return;
  }
  shownAxes = signature;
  const chart = show(place, {
    parallel: isTall ? { layout: "vertical", left: 116, right: 24, top: 12, bottom: 34 } : { left: 60, right: 76, top: 34, bottom: 22 },
    parallelAxis: all.map((axis, index) => ({ ...axisOption(axis, index, all.length), ...(isTall ? { nameLocation: "start",
      nameTruncate: { maxWidth: 100, ellipsis: "…" } } : {}) })),
    tooltip: { trigger: "item", formatter: ({ data: { at } }) => tip(`Trial ${trials.number[at]}`,
      all.map(({ key, name }) => [name, short(trials.column(key)[at])])) },
    series: [series],
  });
  for (const [key, intervals] of view.filter.ranges) {
    chart.dispatchAction({ type: "axisAreaSelect", parallelAxisId: key, intervals });
  }
  chart.off("axisareaselected");
  chart.on("axisareaselected", (event) => {
    for (const { parallelAxisId, intervals } of event.batch ?? [event]) {
      if (!parallelAxisId) continue;
      if (intervals && intervals.length) view.filter.ranges.set(parallelAxisId, intervals);
      else view.filter.ranges.delete(parallelAxisId);
    }
    view.filterChanged();
  });
  chart.off("click");
  chart.on("click", ({ data: line }) => line && view.select(trials.number[line.at]));
  place.onpointerdown = () => { isDragged = true; };
}

/** Takes the ranges from the axes of which the filter knows none any more. */
export function showRanges(view) {
  const chart = echarts.getInstanceByDom(document.querySelector("#parallel .chart"));
  if (!chart) return;
  for (const { key } of axes(view.trials)) {
    chart.dispatchAction({ type: "axisAreaSelect", parallelAxisId: key, intervals: view.filter.ranges.get(key) ?? [] }, { silent: true });
  }
}

/** The color of a share of the range of scores. */
export function rampColor(ramp, share, sign = 1) {
  const good = sign > 0 ? share : 1 - share;
  const place = Math.min(Math.max(good, 0), 1) * (ramp.length - 1);
  const index = Math.min(Math.floor(place), ramp.length - 2);
  return echarts.color.lerp(place - index, [ramp[index], ramp[index + 1]]);
}
