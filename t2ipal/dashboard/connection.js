/** Asks the server again and again, and says where it does not answer. */

const BUSY_MS = 2000;
const QUIET_MS = 10000;
const HIDDEN_MS = 20000;
const OVERVIEW_MS = 5000;

/** What was given with the page, where it is a file; else null. */
export function embedded() {
  const data = document.getElementById("embedded");
  return data ? JSON.parse(data.textContent) : null;
}

async function ask(name, words) {
  const query = new URLSearchParams(words).toString();
  const answer = await fetch(query ? `${name}?${query}` : name);
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).trim()}`);
  return answer.json();
}

/** Calls `take` with each reply; `notice` with a sentence where none came, "" where it did. */
export class Connection {
  constructor(view, { takeState, takeCurves, takeOverview, notice }) {
    Object.assign(this, { view, takeState, takeCurves, takeOverview, notice });
    this.failures = 0;
    this.timer = null;
    this.round = 0;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.now(); });
  }

  /** Asks at once, and from then on. */
  async now() {
    clearTimeout(this.timer);
    const round = this.round += 1;
    let told = "";
    try {
      told = await this.look(round);
      this.failures = 0;
    } catch (error) {
      this.failures += 1;
      told = error instanceof TypeError ? "No connection to the server of this page. Trying again."
        : `The server does not answer as it should (${error.message}). Trying again.`;
    }
    if (round !== this.round) return;
    this.notice(told);
    this.timer = setTimeout(() => this.now(), this.pause());
  }

  async look(round) {
    const { view } = this;
    const words = () => ({ search: view.searchName ?? "", since: view.trials.version, instance: view.instance ?? "" });
    // The first time as the page's head has asked already, before this script was there.
    let state = await ask("state.json", view.instance ? words() : {});
    if (state.search !== view.searchName && state.searches.includes(view.searchName)) state = await ask("state.json", words());
    if (round !== this.round) return "";
    const isNew = this.takeState(state);
    const { trials } = view;  // other ones than before, where the server or the search is another
    // What is there is drawn first: curves are as much again, and are seen last.
    if (isNew && trials.curvesVersion === 0) await new Promise((then) => requestIdleCallback(then, { timeout: 400 }));
    if (state.search && (isNew || trials.curvesVersion < trials.version)) {
      const curves = await ask("curves.json", { search: state.search, since: trials.curvesVersion, instance: view.instance });
      if (round !== this.round) return "";
      if (curves.instance === view.instance) this.takeCurves(curves);
    }
    return state.error ? `The store could not be read: ${state.error} Trying again.` : "";
  }

  /** Asks for the run as a whole while that is shown. */
  async overview() {
    clearTimeout(this.overviewTimer);
    if (this.view.tab === "run" && !document.hidden) {
      try {
        this.takeOverview(await ask("overview.json", {}));
      } catch { /* the other question says so */ }
    }
    this.overviewTimer = setTimeout(() => this.overview(), OVERVIEW_MS);
  }

  pause() {
    if (this.failures) return Math.min(BUSY_MS * this.failures, QUIET_MS);
    if (document.hidden) return HIDDEN_MS;
    const { head, importance } = this.view.trials;
    const isComputed = importance && (importance.shares || importance.note);
    return isComputed && (head.status === "done" || head.status === "ended") ? QUIET_MS : BUSY_MS;
  }
}
