"use strict";
// A digit x and noise ε give z = μ(x) + τ σ(x) ε, and the decoder's layers give the mean of
// p(y|x,z): 28 by 28 numbers from 0 (paper) to 1 (ink). All of it is computed in the page.

const LIMIT = 10; // digits
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
