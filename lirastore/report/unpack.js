// Reads the columns that packing.py writes; each is inflated when it is asked for, once.

export class Columns {
  #header;
  #bodies;
  #read = new Map();

  constructor(header, bodies) {
    this.#header = header;
    this.#bodies = bodies;
  }

  // A promise of the column's values; NaN where one is missing.
  column(name) {
    if (!this.#read.has(name)) this.#read.set(name, this.#unpack(this.#header[name]));
    return this.#read.get(name);
  }

  columns(names) {
    return Promise.all(names.map((name) => this.column(name)));
  }

  async #unpack({ body, count, width, ...entry }) {
    const planes = await inflated(this.#bodies[body]);
    if (entry.float) return floats(planes, count, width);
    const codes = new Float64Array(count);
    for (let plane = width - 1; plane >= 0; plane--) {
      for (let row = 0; row < count; row++) codes[row] = codes[row] * 256 + planes[plane * count + row];
    }
    if (entry.step === undefined) return codes.map((code) => code + entry.low);
    return codes.map((code) => (code ? entry.scale * Math.sinh(entry.step * (code - entry.centre)) : NaN));
  }
}

function floats(planes, count, width) {
  const bytes = new Uint8Array(count * width);
  for (let plane = 0; plane < width; plane++) {
    for (let row = 0; row < count; row++) bytes[row * width + plane] = planes[plane * count + row];
  }
  return new Float64Array(bytes.buffer);
}

async function inflated(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
