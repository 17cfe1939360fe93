// One example: its picture, its outputs with and without it in training, and how every attack sees it.

import { breakable, digits, grouped, known, make, NOTHING, percent } from "./dom.js";
import { bar, histogram } from "./drawing.js";

const WAYS = ["in", "out"];

// Gathers what there is to say of the example at `place`, the most exposed at 0.
export async function example(examples, columns, place) {
  const at = async (name) => (await columns.column(name))[place];
  const pair = async (names) => Promise.all(names.map(at));
  const counts = async (side) => {
    const all = await columns.column(`phi.counts.${side}`);
    return Array.from(all.subarray(place * examples.bins, (place + 1) * examples.bins));
  };
  return {
    place,
    id: await at("id"),
    label: await at("label"),
    phi: {
      low: await at("phi.low"),
      high: await at("phi.high"),
      mean: await pair(WAYS.map((side) => `phi.mean.${side}`)),
      std: await pair(WAYS.map((side) => `phi.std.${side}`)),
      counts: await Promise.all(WAYS.map(counts)),
    },
    seen: await Promise.all(
      examples.attacks.map(async ({ name, preset, columns: prefix }) => {
        const [scoreIn, scoreOut, detected, held] = await pair(
          ["in", "out", "detected", "held"].map((column) => `${prefix}.${column}`),
        );
        return { name, preset, scoreIn, scoreOut, detected, held };
      }),
    ),
    correct: examples.correct ? await pair(["correct.in", "correct.out"]) : null,
    above: examples.above ? await pair(["above.mean", "above.std"]) : null,
  };
}

export const classOf = (label) => (label < 0 ? "without a label" : `labelled ${label}`);

export function card(examples, found, picture) {
  const lead = examples.attacks[0].name;
  const [inside, outside] = found.phi.counts.map((counts) => counts.reduce((sum, count) => sum + count, 0));
  const title = make(
    "header",
    {},
    picture,
    make(
      "div",
      {},
      make("h3", {}, `Example ${found.id}`),
      make("p", {}, classOf(found.label)),
      make("p", {}, `no. ${grouped(found.place + 1)} of ${grouped(examples.total)} by exposure to `, make("code", {}, lead)),
    ),
  );
  const outputs = `Scaled logit of example ${found.id}: ${inside} models trained on it, ${outside} not`;
  return [
    title,
    make(
      "div",
      { class: "halves" },
      make("div", { class: "plot" }, histogram(found.phi, outputs)),
      make("dl", {}, ...facts(found, inside, outside)),
    ),
    attacksTable(found),
    make(
      "p",
      { class: "hint" },
      "Was it used to train one model, and how sure is that? ",
      make("code", {}, `lirastore query STORE "from was_member(MODEL, ${found.id})"`),
    ),
  ];
}

function facts(found, inside, outside) {
  const side = (number, count) =>
    `${digits(found.phi.mean[number])} ± ${digits(found.phi.std[number])} over ${count} models`;
  const listed = { "φ trained on it": side(0, inside), "φ without it": side(1, outside) };
  if (found.above && known(found.above[0])) {
    const [mean, std] = found.above;
    const wide = known(std) ? ` (± ${percent(std)} from model to model)` : "";
    listed["Rank within a model"] = `${percent(mean)} of its scores are higher, on average${wide}`;
  }
  if (found.correct && known(found.correct[0]) && known(found.correct[1])) {
    const [withIt, without] = found.correct;
    listed["Memorization"] =
      `${digits(withIt - without)}: ${percent(withIt)} of the models with it predict its label, ${percent(without)} of those without`;
  }
  return Object.entries(listed).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
}

function attacksTable(found) {
  const headings = ["Attack", "Detected", "Mean score in", "out"].map((name, number) =>
    make("th", { scope: "col", class: number ? null : "first" }, name),
  );
  const rows = found.seen.map((seen) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, breakable(seen.name), make("small", {}, seen.preset)),
      detected(seen),
      make("td", {}, digits(seen.scoreIn)),
      make("td", {}, digits(seen.scoreOut)),
    ),
  );
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...headings)), make("tbody", {}, ...rows));
  const label = "How the attacks see this example";
  return make("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, table);
}

function detected({ detected: count, held }) {
  if (!held) return make("td", {}, NOTHING);
  return make("td", {}, `${count} of ${held}`, bar(count / held));
}
