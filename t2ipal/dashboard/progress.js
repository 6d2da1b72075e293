/** The best score so far, and every trial as a dot. */

import { axis, palette, show, tip } from "./charts.js";
import { STATES, STATE_NAMES } from "./data.js";
import { choices, duration, fixed, last, metricName, short, timeStep } from "./format.js";

/** Of dots that ECharts fills as squares, ten times as fast as circles. */
const SMALL_PX = 3;

/** Draws it over time or over trials. */
export function drawProgress(view) {
  const { trials } = view;
  const hasTimes = trials.ended_s.some((time) => time !== null) || trials.status.includes("running");
  const overTrials = view.progressAxis === "trials" || !hasTimes;
  choices(document.getElementById("progress-axis"), [...(hasTimes ? [["time", "over time"]] : []), ["trials", "over trials"]],
    (key) => (key === "trials") === overTrials, (key) => {
      view.progressAxis = key;
      drawProgress(view);
    });
  const { dots, record, band } = historyOf(view, overTrials);
  const ink = palette();
  const scores = trials.scoreRange([...trials.number.keys()]);
  const floor = trials.sign > 0 ? lowEnd(trials, scores) : undefined;
  const ceiling = trials.sign < 0 ? highEnd(trials, scores) : undefined;
  const looks = {
    ok: { color: ink.series[2], opacity: 0.45, symbolSize: 5 },
    stopped: { color: ink.bar, opacity: 0.45, symbolSize: 4 },
    running: { color: "transparent", borderColor: ink.series[1], borderWidth: 1.5, symbolSize: 8 },
    unfinished: { color: ink.bar, opacity: 0.8, symbolSize: 6, symbol: "triangle" },
    failed: { color: ink.bad, opacity: 0.8, symbolSize: 7, symbol: "diamond" },
  };
  const series = STATES.filter((state) => dots[state].length).map((state) => {
    const { symbolSize, symbol = "circle", ...itemStyle } = looks[state];
    const isLarge = dots[state].length > 2000;
    return { id: state, name: STATE_NAMES[state], type: "scatter", symbol, symbolSize: isLarge ? SMALL_PX : symbolSize, itemStyle,
      data: dots[state], large: isLarge, z: state === "running" ? 5 : 2, clip: false };
  });
  if (band.low.length) series.push(...bandSeries(band, ink.accent));
  series.push({ id: "best", name: "best so far", type: "line", step: "end", data: record, symbol: "none",
    lineStyle: { width: 2.2, color: ink.accent }, itemStyle: { color: ink.accent }, z: 6, silent: true });
  const off = dots.hidden ? ` ${short(dots.hidden)} far below are drawn at the edge.` : "";
  document.getElementById("progress-lead").textContent = trials.size === 0 ? "" :
    `Each dot is a trial at its end${band.low.length ? "; the band is the best one's spread over its seeds" : ""}.${off}`;
  const place = document.querySelector("#progress .chart");
  const longest = Math.max(...record.map(([x]) => x), ...dots.running.map(([x]) => x), 1);
  const chart = show(place, {
    grid: { left: 54, right: 18, top: place.clientWidth < 520 ? 52 : 30, bottom: 42 },
    legend: { top: 0, right: 0, itemWidth: 12, itemHeight: 9, textStyle: { color: ink.muted }, icon: "circle",
      data: series.filter((each) => each.name).map((each) => each.name) },
    tooltip: { trigger: "item", formatter: ({ data }) => (data ? trialTip(view, data[2]) : "") },
    xAxis: axis({ type: "value", name: overTrials ? "trials that ended" : "time since the first trial began", nameGap: 26,
      splitLine: { show: false }, min: 0, max: "dataMax", ...(overTrials ? { minInterval: 1 } : { interval: timeStep(longest) }),
      axisLabel: { formatter: (value) => (overTrials ? short(value) : duration(value)), showMaxLabel: overTrials } }),
    yAxis: axis({ type: "value", scale: true, min: floor, max: ceiling,
      axisLabel: { showMinLabel: floor === undefined, showMaxLabel: ceiling === undefined, formatter: (value) => short(Number(value.toPrecision(6))) } }),
    series,
  });
  chart.off("click");
  chart.on("click", ({ data }) => data && view.select(trials.number[data[2]]));
}

/** Dots, and the steps of the best; what lies far off is drawn at the edge. */
function historyOf(view, overTrials) {
  const { trials } = view;
  const now = trials.head.updated_s === null ? 0 : trials.head.updated_s - trials.origin;
  const order = [...trials.number.keys()].sort((a, b) => (trials.ended_s[a] ?? Infinity) - (trials.ended_s[b] ?? Infinity)
    || trials.number[a] - trials.number[b]);
  const range = trials.scoreRange(order);
  const low = lowEnd(trials, range);
  const high = highEnd(trials, range);
  const dots = { ok: [], stopped: [], running: [], failed: [], unfinished: [], hidden: 0 };
  const record = [];
  const band = { x: [], low: [], height: [] };
  const keep = (x, at) => {
    record.push([x, trials.metric[at]]);
    const spread = trials.spread[at];
    if (spread === null) return;
    band.x.push(x);
    band.low.push(trials.metric[at] - spread);
    band.height.push(2 * spread);
  };
  let best = null;
  let ended = 0;
  let end = 0;
  for (const at of order) {
    const status = trials.status[at];
    const score = trials.metric[at];
    if (status !== "running" && status !== "unfinished") ended += 1;
    const x = overTrials ? ended : trials.ended_s[at] ?? (trials.origin ? now : ended);
    end = Math.max(end, x);
    const edge = trials.sign > 0 ? low : high;
    if (score === null) {
      if (status === "failed") dots.failed.push([x, edge, at]);
      continue;
    }
    const shown = trials.sign > 0 ? Math.max(score, low) : Math.min(score, high);
    if (shown !== score) dots.hidden += 1;
    dots[status].push([x, shown, at]);
    if (status === "ok" && (best === null || trials.sign * (score - trials.metric[best]) > 0)) {
      best = at;
      keep(x, at);
    }
  }
  if (best !== null) keep(end, best);
  return { dots, record, band };
}

function lowEnd(trials, [low, high]) {
  const least = trials.metric.reduce((least, score) => (score === null ? least : Math.min(least, score)), Infinity);
  const end = Math.max(least, low - (high - low));
  return Number.isFinite(end) ? end - (high - low) * 0.06 : undefined;
}

function highEnd(trials, [low, high]) {
  const most = trials.metric.reduce((most, score) => (score === null ? most : Math.max(most, score)), -Infinity);
  const end = Math.min(most, high + (high - low));
  return Number.isFinite(end) ? end + (high - low) * 0.06 : undefined;
}

/** A band as the area between two stacked lines. */
export function bandSeries({ x, low, height }, color, step = "end") {
  const common = { type: "line", stack: `band${color}`, stackStrategy: "all", symbol: "none", silent: true, step,
    lineStyle: { opacity: 0 }, z: 1, tooltip: { show: false } };
  return [
    { ...common, data: x.map((value, index) => [value, low[index]]) },
    { ...common, data: x.map((value, index) => [value, height[index]]), areaStyle: { color, opacity: 0.16 } },
  ];
}

/** What a chart says of a trial. */
export function trialTip(view, at) {
  const { trials } = view;
  const { head } = trials;
  const rows = [["", trials.reason[at] || STATE_NAMES[trials.status[at]]]];
  const spread = trials.spread[at] === null ? "" : ` ± ${fixed(trials.spread[at])}`;
  if (trials.metric[at] !== null) rows.push([metricName(head.metric), `${fixed(trials.metric[at])}${spread}`]);
  trials.dimensions.forEach(({ path }, index) => rows.push([last(path), short(trials.values[index][at])]));
  return tip(`Trial ${trials.number[at]}`, rows);
}
