// Writes what is typed. For tests and the curious, window.cvae.shown is what stands on the paper:
// `digits`, `temperature`, `noise` (an ε for each digit), `means` (what was drawn of it) and
// `milliseconds` (that computing and painting them took).

const element = (id) => document.getElementById(id);
const [form, box, message, paper] = ["form", "digits", "message", "paper"].map(element);
const [temperature, value, same] = ["temperature", "value", "same"].map(element);
const still = matchMedia("(prefers-reduced-motion: reduce)");
let digits = [];
let noise = newNoise();
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
  const name = `The number ${digits.join("")}, written by hand`;
  paper.setAttribute("aria-label", name);
  if (animate) element("written").replaceChildren(name); // told again, even if it is the same
  (animate && !still.matches ? unfold : stand)(paper.children, means);
  const milliseconds = performance.now() - start;
  window.cvae.shown = { digits: digits.join(""), temperature: tau, noise: used, means, milliseconds };
}

function show() {
  value.textContent = Number(temperature.value).toFixed(2);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (read()) write(true);
});
element("again").addEventListener("click", () => {
  if (!read()) return;
  noise = newNoise();
  write(true);
});
temperature.addEventListener("input", () => {
  show();
  if (digits.length) write(false);
});
same.addEventListener("change", () => {
  if (digits.length) write(true);
});
show();
if (read()) write(true);
