// Pictures of 28 by 28 numbers as ink on a canvas, at once or as a pen writes.

const SIDE = 28;
const ZOOM = 5; // odd, so that each pixel's middle is a canvas pixel's middle
const INK = 0x522b1c; // blue, green, red
const STROKE = 420; // milliseconds that a digit takes to be written
const STAGGER = 110; // and after which the next begins
const EDGE = 0.15; // of a stroke, while a pixel's ink sinks in

// Catmull and Rom's cubic through the pixels' middles: for each canvas row up to four
// pixels, each followed by its weight
const taps = Array.from({ length: SIDE * ZOOM }, (_, at) => {
  const place = (at - (ZOOM - 1) / 2) / ZOOM;
  const first = Math.floor(place);
  const t = place - first;
  const weights = [
    (-t + 2 * t ** 2 - t ** 3) / 2,
    (2 - 5 * t ** 2 + 3 * t ** 3) / 2,
    (t + 4 * t ** 2 - 3 * t ** 3) / 2,
    (-(t ** 2) + t ** 3) / 2,
  ];
  const pixel = (k) => first - 1 + k;
  return weights.flatMap((w, k) => (w && pixel(k) >= 0 && pixel(k) < SIDE ? [pixel(k), w] : []));
});

// The sum of an image's rows or columns from a place on, at a stride, by a canvas row's weights
function blend(tap, values, start, stride) {
  let sum = 0;
  for (let k = 0; k < tap.length; k += 2) sum += tap[k + 1] * values[start + stride * tap[k]];
  return sum;
}

function paint(canvas, picture) {
  const size = SIDE * ZOOM;
  const wide = Float32Array.from({ length: SIDE * size }, (_, at) =>
    blend(taps[at % size], picture, Math.floor(at / size) * SIDE, 1));
  const image = new ImageData(size, size);
  const colours = new Uint32Array(image.data.buffer);
  for (let at = 0; at < colours.length; at++) {
    const ink = blend(taps[Math.floor(at / size)], wide, at % size, size);
    colours[at] = INK | (Math.round(255 * Math.min(Math.max(ink, 0), 1)) << 24);
  }
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
}

const NEIGHBOURS = [[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [1, -1], [-1, 1], [1, 1]].map(
  ([dx, dy]) => ({ dx, dy, far: Math.hypot(dx, dy) }),
);

// When a pen reaches each pixel, from 0 to 1: it starts at the top left end of the ink and moves
// fast along ink, slowly over paper.
function written(picture) {
  const inked = [...picture.keys()].filter((p) => picture[p] > 0.5);
  const height = (p) => Math.floor(p / SIDE) + 0.4 * (p % SIDE);
  const times = new Float64Array(SIDE * SIDE).fill(Infinity); // as exact as what it is compared with
  if (inked.length) times[inked.reduce((a, b) => (height(b) < height(a) ? b : a))] = 0;
  const order = [...times.keys()];
  for (let changed = inked.length > 0; changed; order.reverse()) {
    changed = false;
    for (const p of order) {
      const slow = 1 / (0.02 + Math.max(picture[p], 0));
      for (const { dx, dy, far } of NEIGHBOURS) {
        const x = (p % SIDE) + dx;
        const q = p + dx + dy * SIDE;
        if (x < 0 || x >= SIDE || q < 0 || q >= times.length) continue;
        const time = times[q] + far * slow;
        if (time >= times[p]) continue;
        times[p] = time;
        changed = true;
      }
    }
  }
  const last = Math.max(...inked.map((p) => times[p]), 1e-9);
  return times.map((time) => Math.min(time / last, 1));
}

function blank() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE * ZOOM;
  return canvas;
}

let frame = 0; // that is still to come

function stand(canvases, means) {
  cancelAnimationFrame(frame);
  means.forEach((picture, i) => paint(canvases[i], picture));
}

function unfold(canvases, means) {
  cancelAnimationFrame(frame);
  const times = means.map(written);
  const start = performance.now();
  const step = (now) => {
    means.forEach((picture, i) => {
      const pen = ((now - start - i * STAGGER) / STROKE) * (1 + EDGE);
      const sunk = picture.map((ink, p) => ink * Math.min(Math.max((pen - times[i][p]) / EDGE, 0), 1));
      paint(canvases[i], sunk);
    });
    if (now - start < STROKE + STAGGER * means.length) frame = requestAnimationFrame(step);
  };
  step(start);
}
