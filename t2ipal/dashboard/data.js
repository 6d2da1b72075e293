/** The trials in columns, as they came, and which of them a filter lets through. */

const COLUMNS = ["number", "status", "reason", "validation_mAP", "spread", "loss", "images",
  "seconds", "started_s", "ended_s"];

/** What becomes of trials, and what the page calls it; an unfinished one is run again. */
export const STATES = ["ok", "running", "stopped", "failed", "unfinished"];
export const STATE_NAMES = { ok: "finished", running: "running", stopped: "stopped early", failed: "failed", unfinished: "unfinished" };

/** All trials of one search. */
export class Trials {
  constructor() {
    this.head = null;
    this.importance = null;
    this.version = 0;
    this.curvesVersion = 0;
    this.clear();
  }

  clear() {
    for (const name of COLUMNS) this[name] = [];
    this.values = [];
    this.scores = [];
    this.losses = [];
    this.position = new Map();
    this.texts = [];
  }

  get size() {
    return this.number.length;
  }

  /** Takes a reply of `state.json`; whether anything came that is to be drawn. */
  apply(reply) {
    const { columns } = reply;
    if (reply.since === 0) this.clear();
    while (this.values.length < columns.values.length) this.values.push([]);
    const fresh = this.size === 0;
    columns.number.forEach((number, row) => {
      let at = this.position.get(number);
      if (at === undefined) this.position.set(number, at = this.position.size);
      if (fresh) return;
      for (const name of COLUMNS) this[name][at] = columns[name][row];
      columns.values.forEach((column, index) => { this.values[index][at] = column[row]; });
      delete this.texts[at];
    });
    if (fresh) {
      for (const name of COLUMNS) this[name] = columns[name];
      this.values = columns.values;
    }
    const told = (part) => JSON.stringify([part.head, part.importance]);
    const changed = columns.number.length > 0 || reply.since === 0 || told(reply) !== told(this);
    this.head = reply.head;
    this.importance = reply.importance;
    this.origin = reply.origin_s;
    this.version = reply.version;
    return changed;
  }

  /** Takes a reply of `curves.json`. */
  applyCurves(reply) {
    let score = 0;
    let loss = 0;
    reply.number.forEach((number, row) => {
      const at = this.position.get(number);
      const ends = [score + reply.num_scores[row], loss + reply.num_losses[row]];
      if (at !== undefined) {
        const values = reply.scores.slice(score, ends[0]);
        this.scores[at] = reply.epochs.slice(score, ends[0]).map((epoch, index) => [epoch, values[index]]);
        this.losses[at] = reply.losses.slice(loss, ends[1]);
      }
      [score, loss] = ends;
    });
    this.curvesVersion = reply.version;
  }

  get dimensions() {
    return this.head.dimensions;
  }

  /** The column that a search is about. */
  get metric() {
    return this[this.head.metric];
  }

  /** 1 where more is better, -1 where less is. */
  get sign() {
    return this.head.mode === "max" ? 1 : -1;
  }

  /** A column by the name that the page gives it: of an outcome, or of a dimension's place. */
  column(key) {
    const index = this.dimensions.findIndex((dimension) => dimension.path === key);
    return index >= 0 ? this.values[index] : this[key];
  }

  /** Places of the trials that came to their end: those whose scores compare. */
  finished(places) {
    return places.filter((at) => this.status[at] === "ok" && this.metric[at] !== null);
  }

  /** Low and high of the scores for colors: a few that diverged must not fade the others. */
  scoreRange(places) {
    const scores = places.map((at) => this.metric[at]).filter((score) => score !== null);
    if (scores.length === 0) return [0, 1];
    scores.sort((a, b) => a - b);
    const cut = Math.floor(scores.length * 0.1);
    const [low, high] = this.sign > 0
      ? [scores[cut], scores.at(-1)] : [scores[0], scores.at(-1 - cut)];
    return low < high ? [low, high] : [low - 0.5, high + 0.5];
  }

  text(at) {
    const { dimensions } = this;
    this.texts[at] ??= [`#${this.number[at]}`, this.status[at], this.reason[at],
      ...dimensions.map(({ path }, index) => `${path}=${this.values[index][at]}`)]
      .join(" ").toLowerCase();
    return this.texts[at];
  }

  /** The configuration of a trial, by the names of its dimensions. */
  settings(at) {
    return Object.fromEntries(this.dimensions.map(({ path }, index) => [path, this.values[index][at]]));
  }
}

/** Where a value of a dimension lies: itself, or the number of its place in the list. */
export function places(dimension, column) {
  if (!isListed(dimension)) return (at) => column[at];
  const known = new Map(dimension.values.map((value, index) => [JSON.stringify(value), index]));
  return (at) => known.get(JSON.stringify(column[at])) ?? null;
}

/** Whether a dimension is a list of values, not a range. */
export function isListed(dimension) {
  return dimension.kind === "grid" || dimension.kind === "choice";
}

const OPERATORS = {
  ">": (a, b) => a > b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, "<=": (a, b) => a <= b,
  "=": (a, b) => a === b || String(a) === String(b),
};

/** What a person looks for: words, states, and ranges that were drawn on axes. */
export class Filter {
  constructor() {
    this.text = "";
    this.states = new Set(STATES);
    /** Column -> intervals; of a list of values: in numbers of places. */
    this.ranges = new Map();
  }

  get isEmpty() {
    return this.text.trim() === "" && this.states.size === STATES.length && this.ranges.size === 0;
  }

  /** Places of the trials that it lets through, and what it does not understand. */
  apply(trials, withRanges = true) {
    const { tests, unknown } = this.tests(trials);
    if (withRanges) {
      for (const [key, intervals] of this.ranges) {
        const place = axisPlace(trials, key);
        if (place) tests.push((at) => {
          const value = place(at);
          return value !== null && intervals.some(([low, high]) => value >= low && value <= high);
        });
      }
    }
    const found = [];
    for (let at = 0; at < trials.size; at += 1) {
      if (this.states.has(trials.status[at]) && tests.every((test) => test(at))) found.push(at);
    }
    return { found, unknown };
  }

  tests(trials) {
    const tests = [];
    let unknown = "";
    for (const word of this.text.trim().split(/\s+/).filter(Boolean)) {
      const parts = /^([\w.]+?)(>=|<=|>|<|=)(.+)$/.exec(word);
      if (!parts) {
        const wanted = word.toLowerCase();
        tests.push((at) => trials.text(at).includes(wanted));
        continue;
      }
      const column = namedColumn(trials, parts[1]);
      if (!column) {
        unknown = `There is no column ${parts[1]}.`;
        continue;
      }
      const holds = OPERATORS[parts[2]];
      const bound = Number.isNaN(Number(parts[3])) ? parts[3] : Number(parts[3]);
      tests.push((at) => column[at] !== null && holds(column[at], bound));
    }
    return { tests, unknown };
  }
}

/** Where a trial lies on the axis of a column. */
export function axisPlace(trials, key) {
  const dimension = trials.dimensions.find(({ path }) => path === key);
  const column = trials.column(key);
  if (!column) return null;
  return dimension ? places(dimension, column) : (at) => column[at];
}

function namedColumn(trials, name) {
  if (name === "score") return trials.metric;
  const dimension = trials.dimensions.find(({ path }) => path === name || path.endsWith(`.${name}`));
  const outcome = COLUMNS.find((column) => column.toLowerCase() === name.toLowerCase());
  return dimension ? trials.column(dimension.path) : outcome && trials[outcome];
}
