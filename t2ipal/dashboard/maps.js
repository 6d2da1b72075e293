/** A map of each pair of dimensions: the mean score of the trials in each field. */

import { axis, palette, show, tip } from "./charts.js";
import { fixed, last, metricName, short } from "./format.js";
import { rampColor } from "./parallel.js";
import { binned } from "./responses.js";

const SMALL = 6;
const LARGE = 8;

/** Draws the small maps of all pairs, and one of them large. */
export function drawMaps(view) {
  const { trials } = view;
  const found = trials.finished(view.visible);
  const { dimensions } = trials;
  const panel = document.getElementById("maps");
  panel.classList.toggle("single", dimensions.length < 3);
  const lead = document.getElementById("maps-lead");
  if (dimensions.length < 2) {
    lead.textContent = "A search over one dimension has no pairs.";
    panel.querySelector(".pair").hidden = true;
    return;
  }
  panel.querySelector(".pair").hidden = false;
  view.pair = view.pair.every((index) => index < dimensions.length) ? view.pair : [0, 1];
  lead.textContent = found.length === 0 ? "Shown as soon as a trial has finished."
    : `The mean ${metricName(trials.head.metric)} of the finished trials in each field. ${dimensions.length > 2 ? "A click on a small map shows it large." : ""}`;
  const scores = found.map((at) => trials.metric[at]);
  const cut = (wanted) => (dimension, index) => {
    const bins = binned(dimension, trials.values[index], wanted);
    return { ...bins, of: Int16Array.from(found, (at) => bins.bin(at) ?? -1) };
  };
  const small = dimensions.map(cut(SMALL));
  const large = dimensions.map(cut(LARGE));
  const pairs = dimensions.flatMap((_, y) => dimensions.slice(0, y).map((__, x) => [x, y]));
  const maps = pairs.map(([x, y]) => fields(scores, small[x], small[y]));
  const shown = fields(scores, large[view.pair[0]], large[view.pair[1]]);
  const range = ends([...maps.flat(), ...shown].map(([, , mean]) => mean), trials.sign);
  if (dimensions.length > 2) matrix(view, pairs, maps, small, range);
  single(view, shown, large, range);
}

/** [x, y, mean, number] of each field that holds a trial. */
function fields(scores, across, up) {
  const width = across.labels.length;
  const sums = new Float64Array(width * up.labels.length);
  const counts = new Int32Array(sums.length);
  scores.forEach((score, index) => {
    const [x, y] = [across.of[index], up.of[index]];
    if (x < 0 || y < 0) return;
    sums[y * width + x] += score;
    counts[y * width + x] += 1;
  });
  const found = [];
  counts.forEach((number, field) => {
    if (number) found.push([field % width, Math.floor(field / width), sums[field] / number, number]);
  });
  return found;
}

function ends(means, sign) {
  if (means.length === 0) return [0, 1];
  const sorted = [...means].sort((a, b) => a - b);
  const cut = Math.floor(sorted.length * 0.1);
  const [low, high] = sign > 0 ? [sorted[cut], sorted.at(-1)] : [sorted[0], sorted.at(-1 - cut)];
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

function scale(view, [min, max], more) {
  const { ramp } = palette();
  return { min, max, dimension: 2, calculable: false, inRange: { color: view.trials.sign > 0 ? ramp : [...ramp].reverse() }, ...more };
}

function matrix(view, pairs, maps, bins, range) {
  const { trials } = view;
  const { dimensions } = trials;
  const ink = palette();
  const place = document.querySelector("#maps .matrix");
  const rows = dimensions.length - 1;
  const [left, top, gap] = [92, 20, 4];
  const width = (place.clientWidth - left - 60) / rows;
  const height = (place.clientHeight - top - 4) / rows;
  const box = ([x, y]) => ({ left: left + x * width, top: top + (y - 1) * height, width: width - gap, height: height - gap });
  const isShown = ([x, y]) => x === view.pair[0] && y === view.pair[1];
  const side = (name) => (name.length > 13 ? `${name.slice(0, 12)}…` : name);
  const hidden = { axisLine: { show: false }, axisTick: { show: false }, axisLabel: { show: false }, splitLine: { show: false } };
  const named = { nameTextStyle: { color: ink.muted, fontSize: 11 } };
  const chart = show(place, {
    grid: pairs.map((pair) => ({ ...box(pair), show: true, backgroundColor: "transparent",
      borderColor: isShown(pair) ? ink.accent : ink.grid, borderWidth: isShown(pair) ? 2 : 1, z: isShown(pair) ? 9 : 0 })),
    xAxis: pairs.map(([x], index) => ({ type: "category", gridIndex: index, data: bins[x].labels, ...hidden })),
    title: dimensions.slice(0, -1).map(({ path }, x) => ({ text: last(path), left: left + x * width - 5, top: top + x * height - 21,
      textStyle: { color: ink.muted, fontSize: 11, fontWeight: 400, width: place.clientWidth - left - x * width, overflow: "truncate" } })),  // above its column, over the half that is empty
    yAxis: pairs.map(([x, y], index) => ({ type: "category", gridIndex: index, data: bins[y].labels, ...hidden, ...named,
      nameLocation: "middle", nameRotate: 0, nameGap: 6, nameTextStyle: { ...named.nameTextStyle, align: "right" },
      name: x === 0 ? side(last(dimensions[y].path)) : "" })),
    visualMap: scale(view, range, { show: false, seriesIndex: pairs.map((_, index) => index) }),
    tooltip: { trigger: "item", formatter: ({ seriesIndex, data }) => fieldTip(view, pairs[seriesIndex], bins, data) },
    series: maps.map((data, index) => ({ type: "heatmap", xAxisIndex: index, yAxisIndex: index, data, progressive: 0,
      emphasis: { disabled: true }, cursor: "pointer" })),
  });
  chart.getZr().off("click");
  chart.getZr().on("click", ({ offsetX, offsetY }) => {
    const pair = pairs.find((each) => {
      const { left: from, top: upper, width: wide, height: tall } = box(each);
      return offsetX >= from && offsetX <= from + wide && offsetY >= upper && offsetY <= upper + tall;
    });
    if (!pair) return;
    view.pair = pair;
    drawMaps(view);
  });
}

function single(view, data, bins, range) {
  const { trials } = view;
  const ink = palette();
  const [x, y] = view.pair;
  const few = data.length <= 40;
  const label = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);
  const line = (index, more) => axis({ type: "category", data: bins[index].marks.map(label), splitLine: { show: false },
    axisTick: { show: false }, name: last(trials.dimensions[index].path), ...more });
  show(document.querySelector("#maps .map"), {
    grid: { left: 92, right: 66, top: 26, bottom: 56 },
    xAxis: line(x, { nameGap: 36, axisLabel: { hideOverlap: true, rotate: bins[x].marks.join("").length > 48 ? 20 : 0 } }),
    yAxis: line(y, { nameLocation: "end", nameGap: 10, nameTextStyle: { color: ink.muted, align: "left", padding: [0, 0, 0, -86] } }),
    visualMap: scale(view, range, { orient: "vertical", right: 0, top: "middle", itemHeight: 150, itemWidth: 10, precision: 1,
      textStyle: { color: ink.muted, fontSize: 11 }, text: range.map((end) => fixed(end, 1)).reverse() }),
    tooltip: { trigger: "item", formatter: ({ value }) => fieldTip(view, view.pair, bins, value) },
    series: [{ type: "heatmap", data: few ? data.map((field) => ({ value: field, label: { color: inkOn(share(field[2], range, trials.sign)) } })) : data, emphasis: { disabled: true }, itemStyle: { borderColor: ink.surface, borderWidth: 1 },
      label: { show: few, formatter: ({ value }) => fixed(value[2], 1), fontSize: 11 } }],
  });
}

function share(mean, [low, high], sign) {
  return sign > 0 ? (mean - low) / (high - low) : (high - mean) / (high - low);
}

/** What reads on a color of the ramp, whose one end is light in either theme. */
function inkOn(part) {
  const [red, green, blue] = echarts.color.parse(rampColor(palette().ramp, part));
  return 0.3 * red + 0.6 * green + 0.1 * blue > 140 ? "#14161c" : "#ffffff";
}

function fieldTip(view, [x, y], bins, data) {
  if (!data) return "";
  const { dimensions } = view.trials;
  return tip(`${metricName(view.trials.head.metric)} ${fixed(data[2])}`, [[last(dimensions[x].path), bins[x].labels[data[0]]],
    [last(dimensions[y].path), bins[y].labels[data[1]]], ["trials", short(data[3])]]);
}
