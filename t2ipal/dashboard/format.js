/** Numbers, names and elements as the page writes them. */

const WHOLE = new Intl.NumberFormat("en-US");

/** A number to four digits, for people; a dash where there is none. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? WHOLE.format(value) : value.toExponential(2);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
}

/** A value of a dimension, whatever it is. */
export function shownValue(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : short(value);
}

/** A score with two digits behind the point, so that they stand below one another. */
export function fixed(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** The last part of a dotted name. */
export function last(path) {
  return path.slice(path.lastIndexOf(".") + 1);
}

/** Seconds as a person says them. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 60 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Number((seconds / 3600).toFixed(1))} h`;
  return `${Number((seconds / 86400).toFixed(1))} days`;
}

/** Seconds between the marks of an axis that is so long: minutes and hours that people count in. */
export function timeStep(seconds) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  return steps.find((step) => seconds / step <= 7) ?? 86400 * Math.ceil(seconds / 86400 / 7);
}

/** "1 trial", "2 trials". */
export function count(number, noun) {
  return `${WHOLE.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** What a metric is called on the page. */
export function metricName(name) {
  return { validation_mAP: "validation mAP", loss: "training loss" }[name] ?? name;
}

/** A word as a shell takes it. */
export function quoted(word) {
  const text = String(word);
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

/** A value as `--set` takes it. */
export function optionValue(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** An element with properties and children; texts are texts, never markup. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Lets a person save a text as a file. */
export function save(name, kind, text) {
  const url = URL.createObjectURL(new Blob([text], { type: kind }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** A row of buttons of which one, or any number of them, is pressed. */
export function choices(place, options, isPressed, choose) {
  const known = options.map(([key, text]) => `${key}|${text}`).join();
  if (place.dataset.known !== known) {
    place.dataset.known = known;
    place.replaceChildren(...options.map(([key, text]) => {
      const button = element("button", { type: "button", textContent: text });
      button.addEventListener("click", () => choose(key));
      button.dataset.key = key;
      return button;
    }));
  }
  for (const button of place.children) {
    button.setAttribute("aria-pressed", String(isPressed(button.dataset.key)));
  }
}
