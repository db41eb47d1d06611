"use strict";
// Writes what is typed. A digit x and noise ε give z = μ(x) + τ σ(x) ε, the decoder's layers give
// the mean of p(y|x,z), 28 by 28 numbers from 0 (paper) to 1 (ink). All of it happens here.
//
// For tests and the curious, window.cvae.shown is what stands on the paper: `digits`,
// `temperature`, `noise` (an ε for each digit), `means` (what was drawn of it) and
// `milliseconds` (that computing and painting them took).

const SIDE = 28;
const ZOOM = 5; // odd, so that each pixel's middle is a canvas pixel's middle
const LIMIT = 10;
const INK = [28, 43, 82];
const STROKE = 420; // milliseconds that a digit takes to be written
const STAGGER = 110; // and after which the next begins
const EDGE = 0.15; // of a stroke, while a pixel's ink sinks in

// ---- the model

const held = JSON.parse(document.getElementById("model").textContent);
const functions = {
  relu: (a) => Math.max(a, 0),
  silu: (a) => a / (1 + Math.exp(-a)),
  gelu: (a) => (a * (1 + erf(a / Math.SQRT2))) / 2,
  tanh: Math.tanh,
  identity: (a) => a,
  sigmoid: (a) => 1 / (1 + Math.exp(-a)),
  continuousBernoulli: (a) => {
    const size = Math.abs(a);
    if (size < 0.1) return 0.5 + a / 12 - a ** 3 / 720;
    const upper = -1 / Math.expm1(-size) - 1 / size;
    return a > 0 ? upper : 1 - upper;
  },
};

// Abramowitz and Stegun 7.1.26, to 1.5e-7
function erf(a) {
  const t = 1 / (1 + 0.3275911 * Math.abs(a));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(a) * (1 - sum * Math.exp(-a * a));
}

function numbers(text, Type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

const mean = numbers(held.mean, Float32Array); // of the prior, ten rows
const scale = numbers(held.scale, Float32Array);
const latent = mean.length / 10;
const activation = functions[held.activation];
const output = functions[held.output];
const layers = held.layers.map((layer) => ({
  values: numbers(layer.values, Int8Array),
  scale: numbers(layer.scale, Float32Array),
  bias: numbers(layer.bias, Float32Array), // of the first layer ten rows
}));

function linear(layer, input, row) {
  const result = new Float32Array(layer.scale.length);
  const bias = row * result.length;
  for (let i = 0, at = 0; i < result.length; i++) {
    let sum = 0;
    for (let j = 0; j < input.length; j++, at++) sum += layer.values[at] * input[j];
    result[i] = layer.scale[i] * sum + layer.bias[bias + i];
  }
  return result;
}

function draw(digit, noise, temperature) {
  const row = digit * latent;
  let values = noise.map((e, i) => mean[row + i] + temperature * scale[row + i] * e);
  layers.forEach((layer, i) => {
    values = i ? linear(layer, values.map(activation), 0) : linear(layer, values, digit);
  });
  return values.map(output);
}

// Box and Muller
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

const newNoise = () => Array.from({ length: LIMIT }, () => Float32Array.from({ length: latent }, normal));

// ---- ink on paper

// Catmull and Rom's cubic through the pixels' middles: four [pixel, weight] for each canvas row
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
  return weights.map((w, k) => [first - 1 + k, w]).filter(([p, w]) => w && p >= 0 && p < SIDE);
});

function paint(canvas, picture) {
  const size = SIDE * ZOOM;
  const rows = new Float32Array(SIDE * size);
  for (let y = 0; y < SIDE; y++)
    for (let x = 0; x < size; x++) for (const [p, w] of taps[x]) rows[y * size + x] += w * picture[y * SIDE + p];
  const image = new ImageData(size, size);
  for (let y = 0, at = 0; y < size; y++)
    for (let x = 0; x < size; x++, at += 4) {
      let ink = 0;
      for (const [p, w] of taps[y]) ink += w * rows[p * size + x];
      image.data.set(INK, at);
      image.data[at + 3] = 255 * ink;
    }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// When a pen reaches each pixel, from 0 to 1: it starts at the top left end of the ink and moves
// fast along ink, slowly over paper.
function written(picture) {
  const inked = [...picture.keys()].filter((p) => picture[p] > 0.5);
  const height = (p) => Math.floor(p / SIDE) + 0.4 * (p % SIDE);
  const times = new Float32Array(SIDE * SIDE).fill(Infinity);
  if (inked.length) times[inked.reduce((a, b) => (height(b) < height(a) ? b : a))] = 0;
  for (let changed = inked.length > 0; changed; ) {
    changed = false;
    for (let p = 0; p < times.length; p++)
      for (const [dx, dy] of [[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [1, -1], [-1, 1], [1, 1]]) {
        const x = (p % SIDE) + dx;
        const q = p + dx + dy * SIDE;
        if (x < 0 || x >= SIDE || q < 0 || q >= times.length) continue;
        const time = times[q] + Math.hypot(dx, dy) / (0.02 + Math.max(picture[p], 0));
        if (time < times[p]) [times[p], changed] = [time, true];
      }
  }
  const last = Math.max(...inked.map((p) => times[p]), 1e-9);
  return times.map((time) => Math.min(time / last, 1));
}

// ---- the page

const element = (id) => document.getElementById(id);
const [form, box, message, paper] = ["form", "digits", "message", "paper"].map(element);
const [temperature, value, same] = ["temperature", "value", "same"].map(element);
const still = matchMedia("(prefers-reduced-motion: reduce)");
let digits = [];
let noise = newNoise();
let frame = 0;
window.cvae = { shown: null };

function mistake(typed) {
  const strange = typed.find((letter) => !/^[0-9]$/.test(letter));
  if (strange !== undefined) return `“${strange}” is not a digit: this page writes 0 to 9 alone.`;
  if (!typed.length) return "Nothing to write yet: type one to ten digits.";
  if (typed.length > LIMIT) return `These are ${typed.length} digits, and ${LIMIT} fit on the paper.`;
  return "";
}

function read() {
  const typed = [...box.value.replace(/\s/gu, "")];
  message.textContent = mistake(typed);
  box.setAttribute("aria-invalid", String(message.textContent !== ""));
  if (message.textContent) return false;
  digits = typed.map(Number);
  return true;
}

function write(animate) {
  const start = performance.now();
  const tau = Number(temperature.value);
  const used = digits.map((_, i) => noise[same.checked ? 0 : i]);
  const means = digits.map((digit, i) => draw(digit, used[i], tau));
  while (paper.children.length > digits.length) paper.lastChild.remove();
  while (paper.children.length < digits.length) paper.append(blank());
  paper.setAttribute("aria-label", `The number ${digits.join("")}, written by hand`);
  cancelAnimationFrame(frame);
  if (animate && !still.matches) unfold(means);
  else means.forEach((picture, i) => paint(paper.children[i], picture));
  const milliseconds = performance.now() - start;
  window.cvae.shown = { digits: digits.join(""), temperature: tau, noise: used, means, milliseconds };
}

function blank() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE * ZOOM;
  return canvas;
}

function unfold(means) {
  const times = means.map(written);
  const start = performance.now();
  const step = (now) => {
    means.forEach((picture, i) => {
      const pen = ((now - start - i * STAGGER) / STROKE) * (1 + EDGE);
      const sunk = picture.map((ink, p) => ink * Math.min(Math.max((pen - times[i][p]) / EDGE, 0), 1));
      paint(paper.children[i], sunk);
    });
    if (now - start < STROKE + STAGGER * means.length) frame = requestAnimationFrame(step);
  };
  step(start);
}

function show() {
  value.textContent = Number(temperature.value).toFixed(2);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (read()) write(true);
});
element("again").addEventListener("click", () => {
  noise = newNoise();
  if (read()) write(true);
});
temperature.addEventListener("input", () => {
  show();
  write(false);
});
same.addEventListener("change", () => write(true));
show();
if (read()) write(true);
