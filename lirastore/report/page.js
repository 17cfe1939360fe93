// Starts every part of the page; each works without the others, and the page without any.

import { byId } from "./dom.js";
import { startClasses } from "./classes.js";
import { startRoc } from "./roc.js";
import { startSearch } from "./search.js";
import { startSorting } from "./sorting.js";
import { startTheme } from "./theme.js";
import { Columns } from "./unpack.js";

async function start() {
  startTheme();
  startSorting();
  const report = JSON.parse(byId("report-data").textContent);
  startClasses(report);
  // An old browser, which cannot inflate, shows what one without script does.
  if (typeof DecompressionStream === "undefined") document.documentElement.classList.remove("scripting");
  else await startReading(report);
  document.documentElement.dataset.ready = "true";
}

async function startReading(report) {
  const columns = new Columns(report.columns, report.bodies);
  if (byId("roc")) await startRoc(report, columns);
  if (byId("lookup")) await startSearch(report, columns);
}

start();
