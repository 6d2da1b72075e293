/** ECharts in the page's colors: every chart is shown through here. */

const COLORS = ["page", "surface", "text", "muted", "line", "grid", "accent", "accent-soft", "good",
  "bad", "warn", "track", "bar"];
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
let colors = null;

/** The page's colors by their names in the style sheet, those of series, and the ramp of scores. */
export function palette() {
  if (colors) return colors;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  colors = Object.fromEntries(COLORS.map((name) => [name, read(name)]));
  colors.series = Array.from({ length: 8 }, (_, index) => read(`series-${index}`));
  colors.ramp = Array.from({ length: 5 }, (_, index) => read(`ramp-${index}`));
  return colors;
}

/** Whoever draws next reads the colors anew. */
export function forgetColors() {
  colors = null;
}

/** Shows a chart in an element that has a height; what it showed before is replaced. */
export function show(element, option) {
  const ink = palette();
  let chart = echarts.getInstanceByDom(element);
  if (!chart) {
    chart = echarts.init(element);
    new ResizeObserver(() => chart.resize()).observe(element);
  }
  const whole = {
    animation: false,
    color: ink.series.slice(1),
    textStyle: { fontFamily: FONT, color: ink.muted, fontSize: 12 },
    ...option,
  };
  if (option.tooltip) whole.tooltip = { ...tooltip(ink), ...option.tooltip };
  chart.setOption(whole, { notMerge: true, lazyUpdate: false });
  return chart;
}

function tooltip(ink) {
  return {
    backgroundColor: ink.surface,
    borderColor: ink.line,
    textStyle: { color: ink.text, fontFamily: FONT, fontSize: 12.5 },
    confine: true,
    transitionDuration: 0,
    extraCssText: "box-shadow: 0 4px 16px rgb(0 0 0 / 0.16); border-radius: 8px; max-width: 420px; white-space: normal; overflow-wrap: anywhere;",
  };
}

/** An axis in the page's look; `more` is what is particular about it. */
export function axis(more = {}) {
  const ink = palette();
  const { axisLabel = {}, ...others } = more;
  return {
    nameLocation: "middle",
    nameTextStyle: { color: ink.muted, fontSize: 12 },
    axisLine: { lineStyle: { color: ink.line } },
    axisTick: { lineStyle: { color: ink.line } },
    axisLabel: { color: ink.muted, fontSize: 11.5, hideOverlap: true, ...axisLabel },
    splitLine: { lineStyle: { color: ink.grid } },
    ...others,
  };
}

/** The content of a tooltip: a title, and rows of a name and a value; all of it is text. */
export function tip(title, rows) {
  const box = document.createElement("div");
  const head = box.appendChild(document.createElement("strong"));
  head.textContent = title;
  for (const [name, value] of rows) {
    const line = box.appendChild(document.createElement("div"));
    const label = line.appendChild(document.createElement("span"));
    label.className = "muted";
    label.textContent = `${name} `;
    line.append(String(value));
  }
  return box;
}

export const charts = { show, axis, palette, tip };
