// Reads all curves at one false positive rate: that of the slider, or of the place that is pointed at.

import { byId, digits, draw, known, NOTHING, percent } from "./dom.js";

export async function startRoc(report, columns) {
  const { attacks, curves } = report.roc;
  const loaded = curves.map((name, number) => Curve.load(columns, name, number, attacks[number]));
  new Reader(report.roc, await Promise.all(loaded)).listen();
}

class Reader {
  #svg = byId("roc-plot").querySelector("svg");
  #slider = byId("roc-slider");
  #field = byId("roc-fpr");
  #prior = byId("roc-prior");

  constructor({ plot, floor }, curves) {
    Object.assign(this, { plot, floor, curves });
    this.#svg.querySelector(".dots").append(...curves.map((curve) => curve.dot));
  }

  listen() {
    this.#slider.addEventListener("input", () => this.#choose(10 ** Number(this.#slider.value), this.#slider));
    this.#field.addEventListener("input", () => this.#choose(this.#chosen(), this.#field));
    this.#prior.addEventListener("input", () => this.#show(this.#chosen()));
    this.#svg.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !event.buttons) this.#show(this.#pointed(event));
      else this.#choose(this.#pointed(event));
    });
    this.#svg.addEventListener("pointerdown", (event) => this.#choose(this.#pointed(event)));
    this.#svg.addEventListener("pointerleave", () => this.#show(this.#chosen()));
    this.#choose(this.#chosen(), this.#field);
  }

  #chosen() {
    return clamp(Number(this.#field.value) / 100);
  }

  #choose(rate, from) {
    if (from !== this.#field) this.#field.value = Number((100 * rate).toPrecision(3));
    if (from !== this.#slider) this.#slider.value = Math.log10(Math.max(this.floor, rate));
    this.#slider.setAttribute("aria-valuetext", percent(rate));
    this.#show(rate);
  }

  #show(rate) {
    const { left, right, bottom, top } = this.plot;
    const x = this.#place(rate, left, right);
    const cursor = this.#svg.querySelector(".cursor");
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    for (const curve of this.curves) {
      const found = curve.at(rate);
      curve.write(found, clamp(Number(this.#prior.value) / 100));
      curve.dot.setAttribute("cx", x);
      curve.dot.setAttribute("cy", this.#place(found.tpr, bottom, top));
    }
  }

  // Where a rate lies on an axis, and which one lies under the pointer.
  #place(rate, first, last) {
    const share = 1 - Math.log10(Math.min(1, Math.max(this.floor, rate))) / Math.log10(this.floor);
    return first + share * (last - first);
  }

  #pointed(event) {
    const box = this.#svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.plot.width;
    return this.floor ** (1 - clamp((x - this.plot.left) / (this.plot.right - this.plot.left)));
  }
}

const clamp = (share) => (known(share) ? Math.min(1, Math.max(0, share)) : 0);

// One curve with its row in the table and its dot in the figure.
class Curve {
  static async load(columns, name, number, attack) {
    const values = await columns.columns(["fpr", "tpr", "threshold"].map((part) => `${name}.${part}`));
    return new Curve(values, number, attack);
  }

  constructor([fpr, tpr, threshold], number, { nonMembers }) {
    Object.assign(this, { fpr, tpr, threshold, nonMembers });
    this.cells = document.querySelectorAll(`[data-curve="${number}"] > td`);
    const looks = document.querySelector(`#roc-plot .curve.n${number}`).getAttribute("class");
    this.dot = draw("circle", { r: 3.6, class: looks.replace("curve", "point") });
  }

  // The last point with at most this false positive rate; 10 to some power may be a little less than it says.
  at(rate) {
    let [low, high] = [0, this.fpr.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.fpr[middle] <= rate * (1 + 1e-9)) low = middle;
      else high = middle;
    }
    return { tpr: this.tpr[low], fpr: this.fpr[low], threshold: this.threshold[low] };
  }

  write({ tpr, fpr, threshold }, prior) {
    const [rate, precision, limit] = this.cells;
    rate.querySelector("b").textContent = percent(tpr);
    rate.querySelector("small").textContent = `${percent(fpr)} FPR`;
    precision.textContent = this.#precision(tpr, fpr, prior);
    limit.textContent = known(threshold) ? digits(threshold) : NOTHING;
  }

  // The share of members among those called members; without a false positive, at least how much.
  #precision(tpr, fpr, prior) {
    const bound = fpr > 0 ? fpr : Math.min(1, 3 / Math.max(1, this.nonMembers));
    const called = prior * tpr + (1 - prior) * bound;
    if (!tpr || !called) return NOTHING;
    return (fpr > 0 ? "" : "≥ ") + percent((prior * tpr) / called);
  }
}
