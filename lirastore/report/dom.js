// Elements and numbers, written as the rest of the page writes them. Text is only ever set as text.

export const NOTHING = "–";

export const byId = (id) => document.getElementById(id);

export const make = (tag, attributes, ...content) => fill(document.createElement(tag), attributes, content);

export const draw = (tag, attributes, ...content) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, content);

function fill(element, attributes, content) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...content.filter((part) => part !== null && part !== undefined));
  return element;
}

// A share as percent, without the sign: 45.1, 8.83, 0.0017.
export function points(share) {
  const value = 100 * share;
  if (value === 0 || value === 100) return String(value);
  if (value >= 0.1) return fixed(value, value >= 10 ? 1 : 2);
  return fixed(value, Math.min(20, 1 - Math.floor(Math.log10(value))));
}

// As Python rounds it: a tie to the even digit.
function fixed(value, decimals) {
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return value.toLocaleString("en", { ...digits, roundingMode: "halfEven", useGrouping: false });
}

export const known = (value) => typeof value === "number" && Number.isFinite(value);

export const percent = (share) => (known(share) ? `${points(share)}%` : NOTHING);

// Three significant digits; what only rounding tells from nothing is 0.
export function digits(value) {
  if (!known(value)) return NOTHING;
  return Math.abs(value) < 1e-12 ? "0" : String(Number(value.toPrecision(3))).replace("-", "−");
}

export const three = (value) => (known(value) ? value.toFixed(3) : NOTHING);

export const grouped = (count) => count.toLocaleString("en");

// A name that may be broken after an underscore.
export function breakable(name) {
  const parts = name.split("_").flatMap((part, number) => (number ? ["_", make("wbr"), part] : [part]));
  return make("b", {}, ...parts);
}
