/** Learning curves of the trials, and how much each dimension matters. */

import { axis, palette, show } from "./charts.js";
import { choices, count, last, metricName, short } from "./format.js";
import { rampColor } from "./parallel.js";
import { bandSeries, trialTip } from "./progress.js";

const MAX_CURVES = 120;
const BEST_CURVES = 40;

/** Draws the best ones, the running ones and a sample of the others over a band of all. */
export function drawCurves(view) {
  const { trials } = view;
  const ofLoss = view.curvesKind === "loss";
  choices(document.getElementById("curves-kind"), [["score", "validation mAP"], ["loss", "training loss"]],
    (key) => (key === "loss") === ofLoss, (key) => {
      view.curvesKind = key;
      drawCurves(view);
    });
  const points = (at) => (ofLoss ? (trials.losses[at] ?? []).map((loss, epoch) => [epoch + 1, loss])
    : trials.scores[at] ?? []);
  const withCurve = view.visible.filter((at) => points(at).length > 0);
  document.querySelector("#curves .chart").hidden = withCurve.length === 0;
  const chosen = sampleOfCurves(trials, withCurve, view.selected);
  const ink = palette();
  const [low, high] = trials.scoreRange(withCurve);
  const lines = chosen.map((at) => {
    const isSelected = trials.number[at] === view.selected;
    const isRunning = trials.status[at] === "running";
    const score = trials.metric[at];
    const color = isSelected ? ink.series[1] : score === null ? ink.bad
      : rampColor(ink.ramp, (score - low) / (high - low), trials.sign);
    return { type: "line", name: String(at), data: points(at), symbol: "circle", symbolSize: isSelected ? 6 : 3,
      showSymbol: isSelected || points(at).length === 1, lineStyle: { color, width: isSelected ? 3 : 1.3, opacity: isSelected ? 1 : 0.7, type: isRunning ? "dashed" : "solid" },
      itemStyle: { color }, z: isSelected ? 9 : 3, emphasis: { disabled: true }, triggerLineEvent: true };
  });
  const { band, middle } = spreadOf(withCurve.map(points));
  const range = scoresShown(chosen.flatMap((at) => points(at).map(([, value]) => value)), ofLoss);
  document.getElementById("curves-lead").textContent = curvesLead(trials, view.visible, withCurve, chosen);
  const chart = show(document.querySelector("#curves .chart"), {
    grid: { left: 54, right: 16, top: 12, bottom: 40 },
    tooltip: { trigger: "item", formatter: ({ seriesName }) => (seriesName === "median" ? "median of all" : trialTip(view, Number(seriesName))) },
    xAxis: axis({ type: "value", name: "epochs", nameGap: 24, splitLine: { show: false }, min: "dataMin", max: "dataMax", minInterval: 1 }),
    yAxis: axis({ type: "value", scale: true, min: range[0], max: range[1], axisLabel: { showMinLabel: false, showMaxLabel: false, formatter: (value) => short(Number(value.toPrecision(4))) } }),
    series: [...(withCurve.length > 20 ? [...bandSeries(band, ink.bar, false),
      { type: "line", name: "median", data: middle, symbol: "none", lineStyle: { color: ink.muted, width: 1.5, type: "dotted" }, z: 4 }] : []), ...lines],
  });
  chart.off("click");
  chart.on("click", ({ seriesName }) => seriesName !== "median" && view.select(trials.number[Number(seriesName)]));
}

function curvesLead(trials, visible, withCurve, chosen) {
  if (withCurve.length === 0) return visible.length === 0 ? "" : "No trial has been scored yet, or the search is of a version that kept no curves.";
  const part = chosen.length < withCurve.length ? `${chosen.length} of ${short(withCurve.length)} trials: the best ${BEST_CURVES}, running ones and an even sample.` : `${count(chosen.length, "trial")}.`;
  const band = withCurve.length > 20 ? " The band holds 80% of all, the dots their median." : "";
  return `${part}${band} Running ones are dashed. Nothing is smoothed.`;
}

function sampleOfCurves(trials, found, selected) {
  if (found.length <= MAX_CURVES) return found;
  const order = [...found].sort((a, b) => trials.sign * ((trials.metric[b] ?? -Infinity) - (trials.metric[a] ?? -Infinity)));
  const running = order.filter((at) => trials.status[at] === "running").slice(0, 30);
  const kept = new Set([...order.slice(0, BEST_CURVES), ...running]);
  if (trials.position.has(selected)) kept.add(trials.position.get(selected));
  const step = Math.max(order.length / (MAX_CURVES - kept.size), 1);
  for (let place = 0; place < order.length && kept.size < MAX_CURVES; place += step) kept.add(order[Math.floor(place)]);
  return [...kept].filter((at) => found.includes(at)).reverse();
}

/** The middle 80% and the median of the curves at each epoch. */
function spreadOf(curves) {
  const values = new Map();
  for (const curve of curves) {
    for (const [epoch, value] of curve) {
      if (value === null) continue;
      if (!values.has(epoch)) values.set(epoch, []);
      values.get(epoch).push(value);
    }
  }
  const band = { x: [], low: [], height: [] };
  const middle = [];
  for (const epoch of [...values.keys()].sort((a, b) => a - b)) {
    const sorted = Float64Array.from(values.get(epoch)).sort();
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    band.x.push(epoch);
    band.low.push(at(0.1));
    band.height.push(at(0.9) - at(0.1));
    middle.push([epoch, at(0.5)]);
  }
  return { band, middle };
}

/** Ends of the axis: a curve that ran away must not press the others flat. */
function scoresShown(values, ofLoss) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (known.length === 0) return [undefined, undefined];
  const at = (share) => known[Math.round(share * (known.length - 1))];
  const low = ofLoss ? known[0] : at(0.02);
  const high = ofLoss ? at(0.98) : known.at(-1);
  const pad = (high - low || 1) * 0.05;
  return [low - pad, high + pad];
}

/** Draws the shares of fANOVA. */
export function drawImportance(view) {
  const { importance, head } = view.trials;
  const { shares, num_trials: used, num_finished: finished, note } = importance;
  const place = document.querySelector("#importance .chart");
  place.hidden = !shares;
  const lead = document.getElementById("importance-lead");
  if (!shares) {
    lead.textContent = note || "Being computed.";
    return;
  }
  const ink = palette();
  const rows = Object.entries(shares).sort(([, a], [, b]) => a - b);
  const whole = rows.reduce((sum, [, share]) => sum + share, 0);
  lead.textContent = `Share of the variance of the ${metricName(head.metric)} that each dimension explains alone (fANOVA), `
    + `over ${used < finished ? `${short(used)} of ` : ""}${short(finished)} finished trials. Together ${Math.round(whole * 100)}%; the rest lies in combinations and chance.`;
  place.style.height = `${Math.max(rows.length * 26 + 34, 90)}px`;
  show(place, {
    grid: { left: 132, right: 44, top: 4, bottom: 22 },
    xAxis: axis({ type: "value", min: 0, splitNumber: 3, axisLabel: { formatter: (value) => `${Number((value * 100).toFixed(1))}%` } }),
    yAxis: axis({ type: "category", data: rows.map(([path]) => last(path)), axisTick: { show: false }, axisLine: { show: false },
      axisLabel: { width: 124, overflow: "truncate", hideOverlap: false, interval: 0 } }),
    series: [{ type: "bar", data: rows.map(([, share]) => share), barMaxWidth: 14, itemStyle: { color: ink.series[3], borderRadius: [0, 3, 3, 0] },
      label: { show: true, position: "right", color: ink.text, fontSize: 11.5, formatter: ({ value }) => `${(value * 100).toFixed(value < 0.1 ? 1 : 0)}%` } }],
  });
}
