/** The run from its first caption to its report. */

import { axis, palette, tip } from "./charts.js";
import { choices, count, duration, element, fixed, quoted, short } from "./format.js";
import { tile } from "./tiles.js";

/** Sections in the order of the page: name, title, width, and who fills it. */
const SECTIONS = [
  ["images", "Images", "wide8", fillImages],
  ["captions", "Captions", "wide4", fillCaptions],
  ["newest", "Newest images", "wide12", fillNewest],
  ["training", "Training", "wide8", fillTraining],
  ["features", "Features", "wide4", fillFeatures],
  ["evaluation", "Evaluation", "wide4", fillEvaluation],
  ["classes", "Each class", "wide8", fillClasses],
  ["report", "Report", "wide12", fillReport],
];
const MAX_LOSSES = 60;
const WIDE_CLASSES = 30;

/** Shows what is told of a run in a container; what has not changed stays as it is. */
export function drawOverview(container, data, charts) {
  if (data.error) {
    const title = data.error.startsWith("No run in") ? "Nothing is here yet" : "The run could not be read";
    container.replaceChildren(element("section", { className: "empty" }, element("h2", { textContent: title }),
      element("p", { textContent: data.error })));
    return;
  }
  if (!container.querySelector(".sections")) buildOverview(container);
  const problems = container.querySelector(".problems");
  problems.hidden = data.problems.length === 0;
  problems.replaceChildren(...data.problems.map((text) => element("li", { textContent: text })));
  const theme = palette().page;
  changed(container.querySelector(".tiles"), [data.synthesis, data.training, data.evaluation], theme, (place) => place.replaceChildren(...runTiles(data)));
  for (const [name, , , fill] of SECTIONS) {
    const section = container.querySelector(`.run-${name}`);
    changed(section, shownIn(name, data), theme, () => fill(section, data, charts));
  }
}

function buildOverview(container) {
  const sections = SECTIONS.map(([name, title, width]) => element("section", { className: `panel ${width} run-${name}` },
    element("h2", {}, title, element("span", { className: "choices", role: "group", ariaLabel: `${title}: what is shown` })),
    element("p", { className: "lead" }), element("div", { className: "content" }), element("div", { className: "chart tall" })));
  container.replaceChildren(element("ul", { className: "problems notice", role: "alert", hidden: true }),
    element("div", { className: "sections" }, element("section", { className: "tiles", ariaLabel: "The run in numbers" }), ...sections));
}

/** The part of the data that a section is made of. */
function shownIn(name, data) {
  const { looked_s: looked, ...rest } = data;
  const parts = { images: rest.synthesis, captions: rest.captions, newest: rest.newest, features: [rest.features, rest.choices],
    training: rest.training, evaluation: rest.evaluation, classes: rest.evaluation, report: rest.report };
  return [parts[name], rest.run];
}

function changed(place, part, theme, draw) {
  const state = `${theme} ${JSON.stringify(part)}`;
  if (place.drawnState === state) return;
  place.drawnState = state;
  draw(place);
}

/** Sets a section's sentence, and the command that fills it where it is empty. */
function say(section, text, command = "") {
  section.querySelector(".lead").textContent = text;
  const parts = command ? [element("pre", { className: "next" }, element("code", { textContent: command }))] : [];
  section.querySelector(".content").replaceChildren(...parts);
  section.querySelector(".chart").hidden = command !== "";
  section.querySelector("h2 .choices").replaceChildren();
}

/* ---- numbers ---- */

function runTiles({ synthesis, training, evaluation }) {
  const found = [];
  if (synthesis) {
    const { num_samples: asked, num_images: images, num_failed: failed, num_missing: missing } = synthesis;
    const bar = element("div", { className: "share" }, ...[["ok", images], ["failed", failed], ["", missing]].map(([name, number]) => {
      const part = element("span", { className: name });
      part.style.flexGrow = number;
      return part;
    }));
    const about = missing ? `${short(missing)} to come` : "all are done";
    found.push(tile("Images", [short(images), element("small", {}, ` of ${short(asked)}`)], bar, failed ? `${about} · ${short(failed)} failed` : about, true));
    found.push(tile("Images a second", [short(synthesis.images_per_second)], null, synthesis.images_per_second === null ? "known after the first shard" : missing ? "in the last ten minutes of work" : "when they were made"));
    found.push(tile("Time left", [missing ? duration(synthesis.seconds_left) : "–"], null, missing ? "at this rate, if it is at work" : "nothing is missing"));
    const { cost, cost_in_the_end: end } = synthesis;
    found.push(cost === null ? tile("Work", [duration(synthesis.worker_hours * 3600)], null, "of devices, while they made images")
      : tile("Cost", [cost.toFixed(2), ...(missing && end !== null ? [element("small", {}, ` of ${end.toFixed(2)}`)] : [])], null, `${duration(synthesis.worker_hours * 3600)} of devices`));
  }
  if (training?.length) {
    const done = training.filter((each) => each.status === "done").length;
    const others = training.length - done;
    found.push(tile("Recognizers", [short(done), ...(others ? [element("small", {}, ` of ${training.length}`)] : [])], null, others ? `${others} not finished` : `of ${count(new Set(training.map((each) => each.method)).size, "method")}`));
  }
  const best = evaluation?.methods.at(-1);
  if (best) {
    found.push(tile(`Best ${evaluation.measure}`, [fixed(best.mean), ...(best.seeds.length > 1 ? [element("small", {}, ` ± ${fixed(best.std)}`)] : [])], null, `${best.title} on ${evaluation.test_set}`));
  }
  return found;
}

/* ---- captions and images ---- */

function fillImages(section, { synthesis, run }, charts) {
  if (!synthesis) {
    say(section, "No image was asked for yet. Synthesis fills this run:", `python jobs/synthesize.py --captions captions.json --vocabulary voc2007 --output ${quoted(run)}`);
    return;
  }
  const { num_shards_done: done, num_shards: asked, progress } = synthesis;
  const words = `${synthesis.pipeline ?? "unnamed pipeline"}. ${short(done)} of ${count(asked, "shard")}, ${bytes(synthesis.size_bytes)}.`;
  say(section, progress.length ? words : `${words} The first shard is still to come.`);
  if (synthesis.failed_by_reason.length) {
    section.querySelector(".content").replaceChildren(element("ul", { className: "reasons" }, ...synthesis.failed_by_reason.map(([reason, number]) =>
      element("li", {}, element("strong", {}, `${short(number)} failed`), element("span", {}, reason)))),
    element("p", { className: "lead", textContent: "Remove the cause, then run jobs/synthesize.py again with --retry-failed." }));
  }
  const place = section.querySelector(".chart");
  place.hidden = progress.length < 2 || progress.at(-1)[0] === progress[0][0];
  if (place.hidden) return;
  const ink = palette();
  charts.show(place, {
    grid: { left: 60, right: 18, top: 14, bottom: 34 },
    tooltip: { trigger: "axis", formatter: ([point]) => tip(new Date(point.value[0]).toLocaleString(), [["images", short(point.value[1])]]) },
    xAxis: axis({ type: "time", min: "dataMin", max: "dataMax", splitLine: { show: false } }),
    yAxis: axis({ type: "value", min: 0, max: ({ max }) => (synthesis.num_missing ? Math.max(max, synthesis.num_samples * 1.05) : null), minInterval: 1,
      axisLabel: { formatter: (value) => short(Math.round(value)), showMaxLabel: !synthesis.num_missing } }),
    series: [{ type: "line", step: "end", symbol: "none", data: progress.map(([seconds, images]) => [seconds * 1000, images]),
      lineStyle: { color: ink.accent, width: 2 }, areaStyle: { color: ink.accent, opacity: 0.1 },
      markLine: synthesis.num_missing ? { silent: true, symbol: "none", lineStyle: { color: ink.muted, type: "dashed" },
        label: { formatter: "asked for", color: ink.muted, position: "insideStartTop" }, data: [{ yAxis: synthesis.num_samples }] } : undefined }],
  });
}

function fillCaptions(section, { captions }, charts) {
  if (!captions) {
    say(section, "Captions are read when synthesis begins.");
    section.querySelector(".chart").hidden = true;
    return;
  }
  const { num_read: read, num_kept: kept, num_used: used, rejected } = captions;
  say(section, `${short(read)} read, ${short(kept)} kept, ${short(read - kept)} rejected.`);
  const spare = kept > used ? [["not needed", kept - used, "bar"]] : [];
  const rows = [...rejected.map(([reason, number]) => [reason, number, "bad"]).reverse(), ...spare, ["used", used, "accent"]];
  countBars(section, rows, charts);
}

/** Horizontal bars of counts, with the numbers behind them. */
function countBars(section, rows, charts) {
  const place = section.querySelector(".chart");
  const ink = palette();
  place.hidden = rows.length === 0;
  Object.assign(place.style, { minHeight: "0", height: `${rows.length * 32 + 8}px`, flex: "none" });
  charts.show(place, {
    grid: { left: 8, right: 64, top: 4, bottom: 4, containLabel: true },
    xAxis: axis({ type: "value", show: false }),
    yAxis: axis({ type: "category", data: rows.map(([name]) => name), axisTick: { show: false }, axisLine: { show: false },
      axisLabel: { width: 150, overflow: "truncate", interval: 0, hideOverlap: false } }),
    series: [{ type: "bar", barMaxWidth: 16, data: rows.map(([, value, color]) => ({ value, itemStyle: { color: ink[color], borderRadius: [0, 3, 3, 0] } })),
      label: { show: true, position: "right", color: ink.text, fontSize: 12, formatter: ({ value }) => short(value) } }],
  });
}

function fillNewest(section, { newest }) {
  section.hidden = !newest?.length;
  if (section.hidden) return;
  say(section, "Of the shard that was finished last, one for each caption.");
  section.querySelector(".chart").hidden = true;
  section.querySelector(".content").replaceChildren(element("div", { className: "pictures" }, ...newest.map(({ key, caption, labels, image }) =>
    element("figure", { title: `${caption}\n${labels.join(", ")}\n${key}` }, element("img", { src: image, alt: caption, loading: "lazy" }),
      element("figcaption", { textContent: caption })))));
}

/* ---- features and training ---- */

function fillFeatures(section, { features, choices: chosen, run }) {
  if (!features?.length) {
    say(section, "No backbone has looked at the images yet. Training begins with that:", `python jobs/train.py --run ${quoted(run)}`);
    return;
  }
  say(section, "What each backbone has seen.");
  section.querySelector(".chart").hidden = true;
  const rows = features.flatMap((each) => [
    [each.model ?? "a backbone", bytes(each.size_bytes), null, each.folder],
    ["image shards", `${short(each.shards)} of ${short(each.num_shards)}`, each.shards / (each.num_shards || 1)],
    ["captions", `${short(each.captions)} of ${short(each.num_captions)}`, each.captions / (each.num_captions || 1)],
  ]);
  for (const { name, num_kept: kept, num_images: images } of chosen ?? []) rows.push([`choice “${name}”`, `${short(kept)} of ${count(images, "image")}`, kept / (images || 1)]);
  section.querySelector(".content").replaceChildren(...rows.map(([name, number, share, title]) => element("div", { className: share === null ? "amount head" : "amount", title: title ?? "" },
    element("span", {}, name), element("span", {}, number), share === null ? null : shareBar(share))));
}

function shareBar(share) {
  const parts = [["ok", share], ["", 1 - share]].map(([className, size]) => {
    const part = element("span", { className });
    part.style.flexGrow = Math.max(size, 0);
    return part;
  });
  return element("div", { className: "share" }, ...parts);
}

function fillTraining(section, { training, run }, charts) {
  if (!training?.length) {
    say(section, "No recognizer has been trained yet:", `python jobs/train.py --run ${quoted(run)} --methods tai_dpt t2ipal --seeds 0 1 2`);
    return;
  }
  const methods = [...new Set(training.map((each) => each.method))];
  const unfinished = training.filter((each) => each.status !== "done");
  const seconds = training.reduce((sum, each) => sum + (each.seconds ?? 0), 0);
  say(section, `${count(training.length - unfinished.length, "recognizer")} in ${duration(seconds)}. One line for each seed; dashed where training is not finished.`);
  section.querySelector(".content").replaceChildren(...unfinished.map((each) => element("div", { className: "amount" },
    element("span", {}, `${each.title}, seed ${each.seed}: ${each.status}`), element("span", {}, `epoch ${each.losses.length} of ${each.num_epochs ?? "?"}`),
    shareBar(each.losses.length / (each.num_epochs || 1)))));
  const curves = training.filter((each) => each.losses.length).slice(0, MAX_LOSSES);
  const place = section.querySelector(".chart");
  place.hidden = curves.length === 0;
  if (place.hidden) {
    section.querySelector(".lead").textContent += " None of these methods has epochs.";
    return;
  }
  const ink = palette();
  const colorOf = (method) => ink.series[1 + methods.indexOf(method) % 7];
  const withCurve = methods.filter((method) => curves.some((each) => each.method === method));
  const titles = new Map(training.map((each) => [each.method, each.title]));
  charts.show(place, {
    legend: { data: withCurve.map((method) => titles.get(method)), top: 0, right: 4, icon: "roundRect", itemWidth: 14, itemHeight: 4, textStyle: { color: ink.text }, inactiveColor: ink.line },
    grid: { left: 54, right: 18, top: 30, bottom: 40 },
    tooltip: { trigger: "item", formatter: ({ data, seriesId }) => tip(seriesId.replace("-seed", ", seed "), [["epoch", data[0]], ["loss", short(data[1])]]) },
    xAxis: axis({ type: "value", name: "epochs", nameGap: 24, min: 0, max: "dataMax", minInterval: 1, splitLine: { show: false } }),
    yAxis: axis({ type: "value", name: "loss", nameGap: 36, scale: true, axisLabel: { formatter: short } }),
    series: curves.map((each) => ({ type: "line", id: `${each.method}-seed${each.seed}`, name: each.title, data: each.losses.map((loss, epoch) => [epoch + 1, loss]),
      symbol: "circle", symbolSize: 5, showSymbol: each.losses.length < 3, color: colorOf(each.method),
      lineStyle: { width: 1.6, type: each.status === "done" ? "solid" : "dashed", opacity: 0.85 }, emphasis: { focus: "series" } })),
  });
}

/* ---- evaluation ---- */

function fillEvaluation(section, { evaluation, training, synthesis, run }, charts) {
  section.classList.toggle("wide12", !evaluation);
  if (!evaluation) {
    const first = training?.length ? "The recognizers were not measured yet:" : "Recognizers are measured on a test set once they are trained:";
    const isDrawn = ["pictovoc", "rendered"].includes(synthesis?.pipeline);
    say(section, first, `python jobs/evaluate.py --run ${quoted(run)} --test-set ${isDrawn ? "pictovoc" : "voc2007 --test-root VOCdevkit"}`);
    return;
  }
  say(section, `${evaluation.measure} in percent on ${short(evaluation.num_images)} images of ${evaluation.test_set}; ${evaluation.definition}. The bar is the mean, the line its standard deviation, a dot one seed.`);
  const { methods } = evaluation;
  const ink = palette();
  const place = section.querySelector(".chart");
  place.hidden = methods.length === 0;
  place.style.minHeight = `${Math.max(methods.length * 44 + 50, 200)}px`;
  const spread = methods.map(({ mean, std, seeds }, at) => (seeds.length > 1 ? [at, mean - std, mean + std] : null)).filter(Boolean);
  charts.show(place, {
    grid: { left: 8, right: 58, top: 6, bottom: 24, containLabel: true },
    tooltip: { trigger: "item", formatter: ({ dataIndex, seriesName, data }) => {
      const method = methods[seriesName === "mAP" ? dataIndex : data[seriesName === "spread" ? 0 : 1]];
      return tip(method.title, [[evaluation.measure, `${fixed(method.mean)}${method.seeds.length > 1 ? ` ± ${fixed(method.std)}` : ""}`], ...method.seeds.map((seed, at) => [`seed ${seed}`, fixed(method.mAPs[at])])]);
    } },
    xAxis: axis({ type: "value", min: 0, axisLabel: { formatter: short } }),
    yAxis: axis({ type: "category", data: methods.map(({ title }) => title), axisTick: { show: false }, axisLine: { show: false }, axisLabel: { width: 140, overflow: "truncate", interval: 0, hideOverlap: false, color: ink.text } }),
    series: [
      { type: "bar", name: "mAP", barMaxWidth: 22, data: methods.map(({ mean, name }, at) => ({ value: mean, itemStyle: { color: colorOfMethod(methods, name), opacity: 0.75, borderRadius: [0, 3, 3, 0] },
        label: { show: true, position: "insideLeft", color: ink.surface, fontWeight: 600, formatter: fixed(mean) }, at })) },
      { type: "custom", name: "spread", data: spread, z: 5, renderItem: (_, api) => {
        const [left, right] = [api.coord([api.value(1), api.value(0)]), api.coord([api.value(2), api.value(0)])];
        return { type: "line", shape: { x1: left[0], y1: left[1], x2: right[0], y2: right[1] }, style: { stroke: ink.text, lineWidth: 2 } };
      }, encode: { x: [1, 2], y: 0 } },
      { type: "scatter", name: "seeds", symbolSize: 6, z: 6, itemStyle: { color: ink.surface, borderColor: ink.text, borderWidth: 1.2 },
        data: methods.flatMap(({ mAPs, seeds }, at) => (seeds.length > 1 ? mAPs.map((value) => [value, at]) : [])) },
    ],
  });
}

function colorOfMethod(methods, name) {
  const names = methods.map((method) => method.name).sort();
  return palette().series[1 + names.indexOf(name) % 7];
}

function fillClasses(section, { evaluation }, charts) {
  section.hidden = !evaluation?.methods.length;
  if (section.hidden) return;
  const { methods, class_names: names } = evaluation;
  const best = methods.at(-1);
  section.sortedBy ??= "best";
  say(section, `Average precision of each class in percent, mean over seeds${names.length > WIDE_CLASSES ? "; drag the bar below to see more" : ""}.`);
  choices(section.querySelector("h2 .choices"), [["best", `by ${best.title}`], ["gain", "by gain over the lowest"], ["name", "by name"]], (key) => key === section.sortedBy, (key) => {
    section.sortedBy = key;
    fillClasses(section, { evaluation }, charts);
  });
  const value = (at) => ({ best: best.per_class[at] ?? -1, gain: (best.per_class[at] ?? -1) - (methods[0].per_class[at] ?? 0), name: -at })[section.sortedBy];
  const order = [...names.keys()].sort((a, b) => value(b) - value(a));
  const ink = palette();
  const isWide = names.length > WIDE_CLASSES;
  charts.show(section.querySelector(".chart"), {
    legend: { top: 0, right: 4, icon: "roundRect", itemWidth: 12, itemHeight: 8, textStyle: { color: ink.text }, inactiveColor: ink.line },
    grid: { left: 40, right: 12, top: 32, bottom: isWide ? 124 : 84 },
    tooltip: { trigger: "axis", axisPointer: { type: "shadow" }, formatter: (points) => tip(names[order[points[0].dataIndex]], points.map(({ seriesName, value: score }) => [seriesName, fixed(score, 1)])) },
    dataZoom: isWide ? [{ type: "slider", startValue: 0, endValue: WIDE_CLASSES - 1, height: 18, bottom: 6, borderColor: ink.line, textStyle: { color: ink.muted } }] : [],
    xAxis: axis({ type: "category", data: order.map((at) => names[at]), axisLabel: { rotate: 45, interval: 0, hideOverlap: false, width: 84, overflow: "truncate" } }),
    yAxis: axis({ type: "value", min: 0, max: 100 }),
    series: methods.map(({ name, title, per_class: scores }) => ({ type: "bar", name: title, color: colorOfMethod(methods, name), barGap: "10%", barCategoryGap: "28%", data: order.map((at) => scores[at]) })),
  });
}

/* ---- report ---- */

function fillReport(section, { report, run }) {
  if (!report) {
    say(section, "The report puts all of this into one page for others:", `python jobs/report.py --run ${quoted(run)}`);
    return;
  }
  say(section, `Written ${new Date(report.written_s * 1000).toLocaleString()}: ${report.uri}`);
  section.querySelector(".chart").hidden = true;
  const isFile = document.getElementById("embedded") !== null;
  section.querySelector(".content").replaceChildren(element("p", {}, element("a", { href: isFile ? "../report.html" : "report.html", target: "_blank", rel: "noopener", textContent: "Open the report" })));
}

function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const at = size > 0 ? Math.min(Math.floor(Math.log10(size) / 3), 4) : 0;
  return `${Number((size / 1000 ** at).toPrecision(3))} ${units[at]}`;
}
