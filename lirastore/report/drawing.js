// Figures that are drawn when somebody asks: as histogram.py and parts.py draw those that are there from the start.

import { draw, known } from "./dom.js";

const tenth = (value) => Number(value.toFixed(1));

// --- one example's scaled logits ------------------------------------------------------------------

const WIDTH = 260;
const HEIGHT = 132;
const [LEFT, RIGHT, TOP, BOTTOM] = [6, 254, 8, 98];
const SIDES = ["member", "non-member"];

// phi: low, high, and for both sides (IN, OUT) counts, mean and std.
export function histogram(phi, description) {
  const [low, high] = span(phi.low, phi.high);
  const bins = phi.counts[0].length;
  const width = (phi.high - phi.low) / bins || (high - low) / bins;
  const densities = phi.counts.map((counts) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return counts.map((count) => count / Math.max(1, total) / width);
  });
  const highest = 1.25 * Math.max(...densities.flat()) || 1;
  const x = (value) => tenth(LEFT + ((value - low) / (high - low)) * (RIGHT - LEFT));
  const y = (value) => tenth(BOTTOM - (Math.min(value, highest) / highest) * (BOTTOM - TOP));
  const figure = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": description });
  for (const side of [1, 0]) {
    const bars = densities[side].map((density, bin) =>
      density ? `M${x(phi.low + bin * width)} ${BOTTOM}V${y(density)}H${x(phi.low + (bin + 1) * width)}V${BOTTOM}Z` : "",
    );
    figure.append(draw("path", { d: bars.join(""), class: `bars ${SIDES[side]}` }));
    if (phi.std[side] > 0) figure.append(gaussian(phi.mean[side], phi.std[side], low, high, x, y, SIDES[side]));
  }
  figure.append(axis(low, high, x));
  return figure;
}

function span(low, high) {
  if (!(low <= high)) return [-1, 1];
  const margin = 0.08 * (high - low) || Math.max(1, 0.05 * Math.abs(high));
  return [low - margin, high + margin];
}

function gaussian(mean, std, low, high, x, y, side) {
  const [first, last] = [Math.max(low, mean - 4 * std), Math.min(high, mean + 4 * std)];
  const places = Array.from({ length: 61 }, (_, number) => first + (number / 60) * (last - first));
  const height = (value) => Math.exp(-0.5 * ((value - mean) / std) ** 2) / (std * Math.sqrt(2 * Math.PI));
  const d = places.map((value) => `${x(value)} ${y(height(value))}`).join("L");
  return draw("path", { d: `M${d}`, class: `fit ${side}` });
}

function axis(low, high, x) {
  const ticks = round(low, high).map((value) =>
    draw("text", { x: x(value), y: BOTTOM + 14, class: "tick middle" }, String(value).replace("-", "−")),
  );
  const name = draw("text", { x: WIDTH / 2, y: BOTTOM + 30, class: "name middle" }, "scaled logit φ");
  const base = draw("line", { x1: LEFT, y1: BOTTOM, x2: RIGHT, y2: BOTTOM, class: "axis" });
  return draw("g", { "aria-hidden": "true" }, base, ...ticks, name);
}

// Three to six round numbers within [low, high].
function round(low, high) {
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, number) => Number(((first + number) * step).toPrecision(6)));
}

// --- rates on one scale ---------------------------------------------------------------------------

// A rate, its interval and a false positive rate on a logarithmic scale from `floor` to 1.
export function strip(floor, value, low, high, fpr) {
  const [width, height] = [210, 34];
  const x = (rate) => tenth(6 + (1 - Math.log10(Math.min(1, Math.max(floor, rate))) / Math.log10(floor)) * (width - 12));
  const vertical = (rate, looks) => draw("line", { x1: x(rate), y1: 0, x2: x(rate), y2: height, class: looks });
  const figure = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (let rate = floor; rate < 1.5; rate *= 10) figure.append(vertical(rate, "grid"));
  if (floor < 0.001) figure.append(vertical(0.001, "chance"));
  if (known(low) && known(high)) {
    figure.append(draw("line", { x1: x(low), y1: height / 2, x2: x(high), y2: height / 2, class: "whisker" }));
  }
  if (known(fpr)) figure.append(draw("circle", { cx: x(fpr), cy: height / 2, r: 3.5, class: "ring" }));
  if (known(value)) {
    const looks = value < floor ? "dot hollow" : "dot";
    figure.append(draw("circle", { cx: x(value), cy: height / 2, r: 4, class: looks }));
  }
  return figure;
}

// A share as a bar.
export function bar(share) {
  return draw(
    "svg",
    { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" },
    draw("rect", { width: 100, height: 8, class: "bar-rest" }),
    draw("rect", { width: tenth(100 * share), height: 8, class: "bar-share" }),
  );
}
