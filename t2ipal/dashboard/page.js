/** The page: what is asked for, when it is drawn, and which of its two halves is shown. */

import { charts } from "./charts.js";

const byId = (id) => document.getElementById(id);

async function poll() {
  const answer = await fetch(`overview.json`);
  if (typeof drawOverview === "function") drawOverview(byId("run"), await answer.json(), charts);
}

for (const name of ["search", "run"]) {
  byId(`tab-${name}`).addEventListener("click", () => {
    for (const other of ["search", "run"]) {
      byId(other).hidden = other !== name;
      byId(`tab-${other}`).setAttribute("aria-selected", String(other === name));
    }
  });
}
poll();
setInterval(poll, 5000);
