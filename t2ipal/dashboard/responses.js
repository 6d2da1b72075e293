/** The response of the score to each dimension: its mean and spread, for each value or range. */

import { axis, palette, show, tip } from "./charts.js";
import { isListed, places } from "./data.js";
import { element, fixed, last, metricName, short } from "./format.js";
import { bandSeries, trialTip } from "./progress.js";

const BINS = 12;
const MAX_DOTS = 1500;

/** Values of a dimension put together: each value of a list, or ranges of equal width. */
export function binned(dimension, column, wanted = BINS) {
  if (isListed(dimension)) {
    const place = places(dimension, column);
    const labels = dimension.values.map((value) => short(value));
    return { bin: place, centers: labels.map((_, index) => index), labels, marks: labels };
  }
  const [low, high] = dimension.values;
  if (dimension.kind === "randint" && high - low < 2 * wanted) {
    const whole = Array.from({ length: high - low + 1 }, (_, index) => low + index);
    const labels = whole.map(short);
    return { bin: (at) => column[at] - low, centers: whole, labels, marks: labels };
  }
  const isLog = dimension.kind === "loguniform";
  const to = isLog ? Math.log : (value) => value;
  const from = isLog ? Math.exp : (value) => value;
  const width = (to(high) - to(low)) / wanted;
  const ends = (index) => [from(to(low) + index * width), from(to(low) + (index + 1) * width)];
  const bins = Array.from({ length: wanted }, (_, index) => index);
  const centers = bins.map((index) => from(to(low) + (index + 0.5) * width));
  return {
    bin: (at) => (column[at] === null ? null : Math.min(Math.max(Math.floor((to(column[at]) - to(low)) / width), 0), wanted - 1)),
    centers,
    marks: centers.map((center) => short(Number(center.toPrecision(2)))),
    labels: bins.map((index) => ends(index).map((end) => short(Number(end.toPrecision(2)))).join(" to ")),
  };
}

/** Mean, sample standard deviation and number of scores in each bin. */
export function moments(bins, bin, metric, found) {
  const sums = Array.from({ length: bins }, () => ({ count: 0, mean: 0, squares: 0 }));
  for (const at of found) {
    const sum = sums[bin(at)];
    if (!sum) continue;
    sum.count += 1;
    const off = metric[at] - sum.mean;
    sum.mean += off / sum.count;
    sum.squares += off * (metric[at] - sum.mean);
  }
  return sums.map(({ count, mean, squares }) => ({
    count, mean: count ? mean : null, spread: count > 1 ? Math.sqrt(squares / (count - 1)) : 0 }));
}

/** Draws a chart for each dimension, all over the same scores. */
export function drawResponses(view) {
  const { trials } = view;
  const found = trials.finished(view.visible);
  document.getElementById("responses-lead").textContent = found.length === 0
    ? "Shown as soon as a trial has finished."
    : `Mean ${metricName(trials.head.metric)} and one standard deviation over the ${short(found.length)} finished trials${view.filter.isEmpty ? "" : " that the filter keeps"}, whatever their other settings are. ${found.length > MAX_DOTS ? `Dots are ${short(MAX_DOTS)} of them.` : "Dots are trials."}`;
  const holder = document.querySelector("#responses .many");
  const [low, high] = trials.scoreRange(found);
  const reach = trials.sign > 0 ? [low - (high - low) * 0.5, high] : [low, high + (high - low) * 0.5];
  while (holder.children.length > trials.dimensions.length) holder.lastChild.remove();
  while (holder.children.length < trials.dimensions.length) {
    holder.append(element("figure", {}, element("figcaption"), element("div", { className: "chart" })));
  }
  trials.dimensions.forEach((dimension, index) => {
    const figure = holder.children[index];
    figure.firstChild.textContent = last(dimension.path);
    figure.firstChild.title = dimension.path;
    response(view, figure.lastChild, dimension, trials.values[index], found, reach);
  });
}

function response(view, place, dimension, column, found, [low, high]) {
  const { trials } = view;
  const ink = palette();
  const color = ink.series[2];
  const { bin, centers, labels } = binned(dimension, column);
  const means = moments(centers.length, bin, trials.metric, found);
  const listed = isListed(dimension);
  const ordered = !listed || dimension.values.every((value) => typeof value === "number");
  const at = (each) => (listed ? bin(each) + (each * 0.618034 % 1 - 0.5) * 0.3 : column[each]);
  const step = Math.max(found.length / MAX_DOTS, 1);
  const few = Array.from({ length: Math.ceil(found.length / step) }, (_, index) => found[Math.floor(index * step)]);
  const dots = few.filter((each) => bin(each) !== null)
    .map((each) => [at(each), Math.min(Math.max(trials.metric[each], low), high), each]);
  const known = centers.map((x, index) => ({ x, ...means[index] })).filter(({ count }) => count > 0);
  const series = [{ type: "scatter", data: dots, symbolSize: dots.length > 1000 ? 2.5 : 4, large: dots.length > 300, largeThreshold: 300, itemStyle: { color: ink.bar, opacity: dots.length > 1000 ? 0.25 : 0.4 }, z: 1 }];
  if (ordered) {
    series.push(...bandSeries({ x: known.map(({ x }) => x), low: known.map(({ mean, spread }) => mean - spread),
      height: known.map(({ spread }) => 2 * spread) }, color, false));
  } else series.push(errorBars(known, color));
  series.push({ type: "line", data: known.map(({ x, mean, spread, count }) => [x, mean, spread, count]), z: 4,
    symbol: "circle", symbolSize: 6, lineStyle: { color, width: ordered ? 2 : 0 }, itemStyle: { color } });
  const best = trials.position.get(trials.head.best);
  if (best !== undefined && bin(best) !== null) {
    series.push({ type: "scatter", data: [[listed ? bin(best) : column[best], trials.metric[best], best]], symbol: "diamond",
      symbolSize: 11, z: 6, itemStyle: { color: ink.series[1], borderColor: ink.surface, borderWidth: 1 } });
  }
  const xAxis = { type: dimension.kind === "loguniform" ? "log" : "value", splitLine: { show: false },
    axisLabel: { formatter: (value) => short(Number(value.toPrecision(3))) } };
  if (listed) {
    Object.assign(xAxis, { min: -0.5, max: labels.length - 0.5, interval: 1, axisTick: { show: false },
      axisLabel: { customValues: centers, formatter: (value) => { const text = labels[value] ?? ""; return text.length > 12 ? `${text.slice(0, 11)}…` : text; } } });
  } else Object.assign(xAxis, { min: dimension.values[0], max: dimension.values[1] },
    dimension.kind === "randint" ? { minInterval: 1, min: dimension.values[0] - 0.3, max: dimension.values[1] + 0.3,
      axisLabel: { customValues: centers, formatter: (value) => short(value) } } : {});
  const chart = show(place, {
    grid: { left: 42, right: 12, top: 10, bottom: 26 },
    tooltip: { trigger: "item", formatter: ({ seriesType, data }) => (seriesType === "scatter" ? trialTip(view, data[2])
      : tip(nameOfBin(labels, centers, data[0]), [["mean", fixed(data[1])], ["standard deviation", fixed(data[2])], ["trials", short(data[3])]])) },
    xAxis: axis(xAxis),
    yAxis: axis({ type: "value", min: low, max: high + (high - low) * 0.06, splitNumber: 4,
      axisLabel: { showMaxLabel: false, showMinLabel: false, formatter: (value) => short(Number(value.toPrecision(4))) } }),
    series,
  });
  chart.off("click");
  chart.on("click", ({ seriesType, data }) => seriesType === "scatter" && view.select(trials.number[data[2]]));
}

function nameOfBin(labels, centers, x) {
  return labels[centers.findIndex((center) => Math.abs(center - x) < 1e-9 * Math.abs(center) + 1e-12)] ?? short(x);
}

/** One standard deviation to both sides, where no line may join unlike values. */
function errorBars(known, color) {
  return { type: "custom", z: 3, silent: true, data: known.map(({ x, mean, spread }) => [x, mean - spread, mean + spread]),
    renderItem: (_, api) => {
      const [x, low] = api.coord([api.value(0), api.value(1)]);
      const [, high] = api.coord([api.value(0), api.value(2)]);
      const style = { stroke: color, lineWidth: 2, opacity: 0.6 };
      const lines = [[x, low, x, high], [x - 5, low, x + 5, low], [x - 5, high, x + 5, high]];
      return { type: "group", children: lines.map(([x1, y1, x2, y2]) => ({ type: "line", shape: { x1, y1, x2, y2 }, style })) };
    } };
}
