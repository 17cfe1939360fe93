// The table of classes, as whichever attack sees them.

import { byId, grouped, known, make, NOTHING, percent, points, three } from "./dom.js";
import { strip } from "./drawing.js";
import { sortAgain } from "./sorting.js";

export function startClasses(report) {
  const select = byId("class-attack");
  if (!select) return;
  const body = byId("class-rows");
  select.addEventListener("change", () => {
    const { preset, rows } = report.classes.attacks[select.value];
    body.replaceChildren(...rows.map((row) => classRow(row, report.classes.floor)));
    byId("class-caption").replaceChildren("As ", make("code", {}, select.value), ` (${preset}) sees them.`);
    sortAgain(body.closest("table"));
  });
}

function classRow([label, tpr, low, high, fpr, auc, members, nonMembers], floor) {
  const cell = (text, value, ...more) => make("td", { "data-value": value ?? "" }, text, ...more);
  const link = make("a", { href: "#lookup", "data-class": label }, label < 0 ? "none" : String(label));
  const ends = known(low) && known(high) ? `${points(low)}–${points(high)}` : "no interval";
  return make(
    "tr",
    {},
    make("th", { scope: "row", "data-value": label }, link),
    known(tpr) ? cell(percent(tpr), tpr, make("small", {}, ends)) : cell(NOTHING, null),
    make("td", { class: "strip" }, strip(floor, tpr, low, high, fpr)),
    cell(percent(fpr), fpr),
    cell(three(auc), auc),
    cell(grouped(members), members),
    cell(grouped(nonMembers), nonMembers),
  );
}
