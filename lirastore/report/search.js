// Finds examples by number or class, lists them, and shows the one that is chosen. The address remembers it.

import { byId, grouped, make } from "./dom.js";
import { card, classOf, example } from "./card.js";

const AT_ONCE = 40;

export async function startSearch(report, columns) {
  const { examples } = report;
  const names = ["id", "label", ...["detected", "held"].map((part) => `${examples.attacks[0].columns}.${part}`)];
  const [ids, labels, detected, held] = await columns.columns(names);
  const lookup = new Lookup(examples, columns, { ids, labels, detected, held }, await pictures(examples.sheet));
  lookup.listen();
  lookup.list();
  if (!lookup.follow()) await lookup.open(0);
}

class Lookup {
  #query = byId("lookup-query");
  #results = byId("lookup-results");
  #more = byId("lookup-more");
  #found = [];
  #chosen = null;

  // A place is where an example stands among all: the most exposed at 0.
  constructor(examples, columns, rows, picture) {
    Object.assign(this, { examples, columns, rows, picture });
    this.places = new Map(Array.from(rows.ids, (id, place) => [id, place]));
  }

  listen() {
    this.#query.addEventListener("input", () => this.list());
    this.#query.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.#found.length) this.choose(this.#found[0]);
      if (event.key === "ArrowDown") step(this.#results.querySelector("button"), event);
    });
    this.#results.addEventListener("keydown", (event) => {
      const item = event.target.closest("li");
      if (event.key === "ArrowDown") step(item.nextElementSibling?.firstElementChild, event);
      if (event.key === "ArrowUp") step(item.previousElementSibling?.firstElementChild ?? this.#query, event);
    });
    this.#results.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.choose(Number(button.dataset.place));
    });
    this.#more.addEventListener("click", () => this.#extend());
    document.addEventListener("click", (event) => this.#lead(event));
    addEventListener("hashchange", () => this.follow());
  }

  list() {
    const { ids, labels } = this.rows;
    const { places, says } = search(this.#query.value, ids, labels, this.places);
    this.#found = places;
    byId("lookup-count").textContent = says;
    this.#results.replaceChildren();
    this.#extend();
  }

  #extend() {
    const from = this.#results.childElementCount;
    this.#results.append(...this.#found.slice(from, from + AT_ONCE).map((place) => this.#entry(place)));
    this.#more.hidden = this.#results.childElementCount >= this.#found.length;
  }

  #entry(place) {
    const { ids, labels, detected, held } = this.rows;
    const share = held[place] ? `${detected[place]} of ${held[place]}` : "not scored";
    const text = make("span", {}, make("b", {}, `#${ids[place]}`), ` ${classOf(labels[place])}`);
    const content = [this.picture(place), text, make("small", {}, share)];
    const current = place === this.#chosen ? "true" : null;
    return make("li", {}, make("button", { type: "button", "data-place": place, "aria-current": current }, ...content));
  }

  // Links elsewhere in the page to an example or to a class.
  #lead(event) {
    const { example: number, class: label } = event.target.closest("a[href='#lookup']")?.dataset ?? {};
    if (number !== undefined) {
      event.preventDefault();
      this.choose(this.places.get(Number(number)));
    } else if (label !== undefined) {
      this.#query.value = `class ${label}`;
      this.list();
      if (this.#found.length) this.open(this.#found[0]);
    }
  }

  choose(place) {
    const address = `#example-${this.rows.ids[place]}`;
    if (location.hash === address) this.open(place, { focus: true });
    else location.hash = address;
  }

  // Shows the example that the address names; whether it names one.
  follow() {
    const number = /^#example-(\d+)$/.exec(location.hash)?.[1];
    const place = this.places.get(Number(number));
    if (place !== undefined) this.open(place, { focus: true });
    else if (number !== undefined) byId("lookup-count").textContent = missing(number);
    return place !== undefined;
  }

  async open(place, { focus = false } = {}) {
    this.#chosen = place;
    for (const button of this.#results.querySelectorAll("button")) {
      if (Number(button.dataset.place) === place) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    const parts = card(this.examples, await example(this.examples, this.columns, place), this.picture(place));
    if (this.#chosen !== place) return; // another was chosen meanwhile
    const shown = byId("lookup-card");
    shown.replaceChildren(...parts);
    if (!focus) return;
    shown.focus({ preventScroll: true });
    const { top } = shown.getBoundingClientRect();
    if (top < 0 || top > 0.6 * innerHeight) shown.closest("article").scrollIntoView();
  }
}

function step(to, event) {
  if (!to) return;
  event.preventDefault();
  to.focus();
}

const missing = (number) => `Example ${number} is not here.`;

// What a text asks for: an example's number, a class, or nothing yet; most exposed first.
function search(text, ids, labels, places) {
  const parts = /^\s*(class|label|#)?\s*(-?\d+)\s*$/i.exec(text);
  if (!text.trim()) {
    return { places: Array.from(ids.keys()), says: `${grouped(ids.length)} examples, the most exposed first` };
  }
  if (!parts) return { places: [], says: "Type an example’s number, such as 17, or a class, such as class 3." };
  const number = Number(parts[2]);
  const asked = { example: !/[a-z]/i.test(parts[1] ?? ""), class: parts[1] !== "#" };
  const one = asked.example ? places.get(number) : undefined;
  const inClass = (place) => labels[place] === number && place !== one;
  const members = asked.class ? Array.from(ids.keys()).filter(inClass) : [];
  const says = [
    one === undefined ? null : `example ${number}`,
    members.length ? `${grouped(members.length)} of class ${number}, the most exposed first` : null,
  ].filter(Boolean);
  const nothing = asked.example ? missing(number) : `No example of class ${number} here.`;
  return { places: one === undefined ? members : [one, ...members], says: says.join("; ") || nothing };
}

// Cuts single pictures out of the sheet; a function of the place that gives a canvas, or null without a picture.
async function pictures(sheet) {
  if (!sheet) return () => null;
  const image = new Image();
  image.src = sheet.uri;
  await image.decode();
  const box = [sheet.width, sheet.height];
  return (place) => {
    if (place >= sheet.count) return null;
    const canvas = make("canvas", { width: box[0], height: box[1], class: "picture", "aria-hidden": "true" });
    const [column, line] = [place % sheet.columns, Math.floor(place / sheet.columns)];
    canvas.getContext("2d").drawImage(image, column * box[0], line * box[1], ...box, 0, 0, ...box);
    return canvas;
  };
}
