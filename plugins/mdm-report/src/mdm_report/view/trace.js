"use strict";
// One example under one sampler is a list of frames (trace lines). Frame f is the canvas after f lines.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const MODES = ["step", "entropy", "confidence"];
const SERIES = ["#3b82f6", "#e07b1f", "#1fa46b", "#c93a7b", "#8b5cf6", "#a3851a", "#0e9aa7", "#d1493f", "#6b7280"];
// Colour scales, low to high, readable under black or white text; see ink().
const SCALES = {
  step: { light: [[253, 246, 178], [126, 203, 161], [44, 114, 142], [68, 30, 110]], dark: [[74, 40, 118], [44, 114, 142], [94, 190, 140], [250, 230, 90]] },
  entropy: { light: [[240, 246, 252], [253, 208, 140], [240, 110, 60], [150, 20, 40]], dark: [[34, 44, 58], [120, 70, 40], [215, 95, 50], [255, 205, 120]] },
  confidence: { light: [[150, 20, 40], [250, 200, 130], [205, 232, 185], [60, 150, 90]], dark: [[190, 60, 60], [150, 110, 50], [60, 100, 80], [60, 170, 110]] },
};
// What a trace line does to its positions, and by how many tokens more are decoded after it, for each of them.
const KINDS = {
  commit: ["a mask gets a token", 1], bypass: ["a mask gets a token that needed no lookahead", 1],
  edit: ["another token replaces one that stood there", 0], remask: ["a token is masked again", -1],
  fill: ["an end token, behind another one", 1],
};
const PAID = ["commit", "bypass"]; // these add to the cumulative entropy
const view = { sample: 0, variant: 0, frame: 0, mode: 0, playing: false };
let now; // the decoding shown, with what prepare() adds

const dark = () => document.documentElement.dataset.theme === "dark";

function colour(mode, value) {
  const stops = SCALES[mode][dark() ? "dark" : "light"], at = Math.min(1, Math.max(0, value)) * (stops.length - 1);
  const i = Math.min(stops.length - 2, Math.floor(at));
  return stops[i].map((low, c) => Math.round(low + (stops[i + 1][c] - low) * (at - i)));
}

/** A number with so many decimals; null stands for one that is not finite. */
const decimals = (value, digits) => (value === null ? "–" : value.toFixed(digits));
const css = ([r, g, b]) => `rgb(${r},${g},${b})`;
const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#111" : "#fff");

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** What is drawn again and again, computed once: every position's commits, and the entropy paid after each frame. */
function prepare(decoding) {
  if (decoding.paid) return decoding;
  decoding.paid = [0];
  decoding.count = [0];
  decoding.commits = decoding.canvas.map(() => []);
  let most = 0;
  decoding.frames.forEach((frame, f) => {
    let paid = 0;
    frame.p.forEach((position, i) => {
      decoding.commits[position].push({ frame: f + 1, text: frame.t[i], entropy: frame.e[i], confidence: frame.c ? frame.c[i] : null, kind: frame.k });
      if (PAID.includes(frame.k)) { paid += frame.e[i]; most = Math.max(most, frame.e[i]); }
    });
    decoding.paid.push(decoding.paid[f] + paid);
    decoding.count.push(decoding.count[f] + KINDS[frame.k][1] * frame.p.length);
  });
  decoding.most = most || 1;
  const open = decoding.canvas.map((_, i) => i).filter((i) => decoding.commits[i].length);
  decoding.from = open.length ? open[0] : 0;
  decoding.to = open.length ? open[open.length - 1] + 1 : decoding.canvas.length;
  if (decoding.grid) prepareGrid(decoding);
  else prepareHalves(decoding);
  return decoding;
}

/** What was last done to a position at a frame, a masking too; null where nothing was. */
function latest(position, frame) {
  let found = null;
  for (const commit of now.commits[position]) {
    if (commit.frame > frame) break;
    found = commit;
  }
  return found;
}

/** The commit that position shows at a frame, or null where it is masked (or the prompt's). */
function shown(position, frame) {
  const found = latest(position, frame);
  return found && found.text !== null ? found : null;
}

function tint(commit) {
  const mode = MODES[view.mode];
  if (mode === "step") return colour(mode, commit.frame / Math.max(1, now.frames.length));
  if (mode === "entropy") return colour(mode, commit.entropy / now.most);
  return colour(mode, commit.confidence === null ? 1 : commit.confidence);
}

// --- the heat map -----------------------------------------------------------------------------------------------
let picture; // position × frame, one pixel each

function buildHeat() {
  const width = Math.max(1, now.to - now.from), height = Math.max(1, now.frames.length);
  picture = document.createElement("canvas");
  picture.width = width;
  picture.height = height;
  const context = picture.getContext("2d"), image = context.createImageData(width, height);
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--mask");
  const masked = context.fillStyle.match(/[0-9a-f]{2}/g).map((hex) => parseInt(hex, 16)); // normalised to #rrggbb
  const put = (x, frame, rgb, share) => {
    const at = 4 * ((frame - 1) * width + x);
    for (let i = 0; i < 3; i++) image.data[at + i] = Math.round(masked[i] + (rgb[i] - masked[i]) * share);
    image.data[at + 3] = 255;
  };
  for (let x = 0; x < width; x++) {
    const commits = now.commits[now.from + x];
    if (!commits.length) continue; // the prompt's
    for (let frame = 1; frame <= height; frame++) put(x, frame, masked, 1);
    commits.forEach((commit, n) => {
      if (commit.text === null) return;
      const rgb = tint(commit), end = n + 1 < commits.length ? commits[n + 1].frame : height + 1;
      for (let frame = commit.frame; frame < end; frame++) put(x, frame, rgb, frame === commit.frame ? 1 : 0.45);
    });
  }
  context.putImageData(image, 0, 0);
}

const MARGIN = { left: 34, bottom: 18 };

function drawHeat() {
  const canvas = $("heat"), ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
  const c = canvas.getContext("2d"), w = width - MARGIN.left, h = height - MARGIN.bottom;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.imageSmoothingEnabled = false;
  c.drawImage(picture, MARGIN.left, 0, w, h);
  const y = (view.frame / Math.max(1, now.frames.length)) * h;
  c.fillStyle = style.getPropertyValue("--ink");
  c.fillRect(MARGIN.left, Math.min(h - 1.5, Math.max(0, y - 0.75)), w, 1.5);
  c.fillStyle = style.getPropertyValue("--soft");
  c.font = "11px system-ui, sans-serif";
  c.textAlign = "right";
  c.fillText("1", MARGIN.left - 5, 10);
  c.fillText(now.frames.length, MARGIN.left - 5, h);
  c.textAlign = "left";
  c.fillText(now.from, MARGIN.left, height - 4);
  c.textAlign = "right";
  c.fillText(now.to - 1, width, height - 4);
}

// --- cumulative entropy -----------------------------------------------------------------------------------------
const NS = "http://www.w3.org/2000/svg";
let cursor;

function draw(tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  if (text !== undefined) element.textContent = text;
  return element;
}

let across; // tokens decoded -> x

function buildChart() {
  const decodings = data.samples[view.sample].variants.map((d) => d && prepare(d));
  const width = Math.max(200, $("chart").clientWidth), height = 210, left = 44, foot = 20;
  const most = Math.max(1e-9, ...decodings.filter(Boolean).map((d) => d.paid[d.paid.length - 1]));
  const tokens = Math.max(1, ...decodings.filter(Boolean).map((d) => d.count[d.count.length - 1]));
  across = (n) => left + (n / tokens) * (width - left - 6);
  const up = (v) => 6 + (1 - v / most) * (height - foot - 6);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Cumulative entropy" });
  for (const share of [0, 0.5, 1]) {
    svg.append(draw("line", { x1: left, x2: width - 6, y1: up(share * most), y2: up(share * most) }));
    svg.append(draw("text", { x: left - 5, y: up(share * most) + 4, "text-anchor": "end" }, (share * most).toPrecision(3)));
  }
  svg.append(draw("text", { x: left, y: height - 4 }, "0"), draw("text", { x: width - 6, y: height - 4, "text-anchor": "end" }, tokens));
  const series = $("series");
  series.replaceChildren();
  decodings.forEach((d, a) => {
    const paint = SERIES[a % SERIES.length], entry = make("span");
    const swatch = make("b");
    swatch.style.background = paint;
    entry.append(swatch, d ? `${data.variants[a]}: ${decimals(d.entropy, 3)} nats, ${d.forwards} forwards, ${d.rows} rows` : `${data.variants[a]}: not decoded`);
    series.append(entry);
    if (!d) return;
    const points = d.paid.map((v, f) => `${across(d.count[f]).toFixed(1)},${up(v).toFixed(1)}`).join(" ");
    svg.append(draw("polyline", { points, stroke: paint, class: a === view.variant ? "chosen" : "" }));
  });
  cursor = draw("line", { class: "cursor", y1: 6, y2: height - foot });
  svg.append(cursor);
  $("chart").replaceChildren(svg);
}

function drawChart() {
  const x = across(now.count[view.frame]);
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
}

// --- the candidates ---------------------------------------------------------------------------------------------
const ROWS = 24;
const COLUMNS = [
  ["positions", "what the candidate would commit"], ["J", "what the sampler maximises"], ["", ""],
  ["C", "entropy paid by the commit, in nats"], ["H", "uncertainty of the state after it, in nats"],
];

/** The candidates of the next step, best first: [positions, J, C, H]. */
const candidates = () => [...((now.frames[view.frame] || {}).w || [])].sort((a, b) => b[1] - a[1]);
const inOrder = (positions) => String([...positions].sort((a, b) => a - b));
const isCommitted = ([positions]) => inOrder(positions) === inOrder(now.frames[view.frame].p);

function drawWeighed() {
  const frame = now.frames[view.frame], box = $("weighed"), note = $("weighednote");
  if (!frame || !frame.w || !frame.w.length) {
    note.textContent = "";
    const why = !now.frames.length ? "Nothing was decoded." : !frame ? "Everything is decoded." : now.frames.some((f) => f.w) ? "Nothing was compared: this step commits without looking ahead." : "This trace is plain: run with --trace full to see the candidates.";
    box.replaceChildren(make("p", why, "facts"));
    return;
  }
  const sorted = candidates();
  const high = sorted[0][1], low = sorted[sorted.length - 1][1];
  note.textContent = `${sorted.length} candidates${sorted.length > ROWS ? `, the best ${ROWS} shown` : ""}`;
  const table = make("table"), head = make("tr");
  for (const [name, meaning] of COLUMNS) {
    const cell = make("th", name);
    cell.title = meaning;
    head.append(cell);
  }
  table.append(head);
  for (const candidate of sorted.slice(0, ROWS)) {
    const [positions, value, cost, left] = candidate;
    const row = make("tr", undefined, isCommitted(candidate) ? "best" : "");
    const bars = make("td", undefined, "bars"), bar = make("span", undefined, "bar");
    bar.style.width = `${(100 * (value - low)) / (high - low || 1)}%`;
    bars.append(bar);
    row.append(make("td", now.grid ? places(positions) : positions.join(", ")), make("td", decimals(value, 4)), bars, make("td", decimals(cost, 4)), make("td", decimals(left, 4)));
    table.append(row);
    if (now.grid) wireCandidate(row, candidate);
  }
  box.replaceChildren(table);
}

// --- all together -----------------------------------------------------------------------------------------------
function go(frame) {
  view.frame = Math.min(now.frames.length, Math.max(0, frame));
  $("step").value = view.frame;
  const last = now.frames[view.frame - 1];
  $("where").textContent = `${view.frame} / ${now.frames.length}${last ? ` · ${last.k}` : ""}`;
  $("where").title = last ? `${last.k}: ${KINDS[last.k][0]}` : "";
  if (!now.grid) {
    drawText(false);
    follow();
  }
  drawHeat();
  drawChart();
  drawWeighed();
  if (now.grid) hold(null); // after the table, and draws the boards
}

/** What the ends of the colour scale stand for. */
const scaleEnds = () => ({ step: ["first", "last"], entropy: ["0", `${now.most.toPrecision(2)} nats`], confidence: ["0", "1"] })[MODES[view.mode]];

function legend() {
  const mode = MODES[view.mode], scale = make("i"), ends = scaleEnds();
  const stops = [0, 0.25, 0.5, 0.75, 1].map((v) => css(colour(mode, v)));
  scale.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  $("legend").replaceChildren(make("span", ends[0]), scale, make("span", ends[1]));
}

function choose(group, index) {
  [...$(group).children].forEach((button, i) => button.setAttribute("aria-checked", i === index));
}

/** What stands above the decoding. */
function tell(sample) {
  const about = data.about[view.variant], [kind, said] = now.verdict;
  const rows = { question: now.grid ? null : now.prompt, reference: sample.reference, answer: now.answer ?? now.completion };
  for (const name in rows) {
    $(name).parentNode.hidden = !rows[name];
    $(name).textContent = (rows[name] || "").trim();
  }
  $("answer").previousElementSibling.textContent = now.answer === null ? "Completion" : "Answer";
  $("verdict").textContent = said;
  $("verdict").className = `verdict ${kind}`;
  $("state").textContent = about.state;
  const masks = now.canvas.filter((text) => text === null).length, steps = new Set(now.frames.map((frame) => frame.s)).size;
  $("settings").replaceChildren(...about.settings.flatMap(([name, value]) => [`${name} `, make("b", value), " · "]), `${masks} tokens in ${steps} steps`);
  sample.variants.forEach((decoding, a) => {
    const button = $("variants").children[a];
    button.disabled = !decoding;
    button.title = decoding ? `Key ${a + 1}` : ["not decoded, or not traced", data.about[a].state].filter(Boolean).join("; ");
  });
}

function show(keep) {
  const sample = data.samples[view.sample];
  if (!sample.variants[view.variant]) view.variant = sample.variants.findIndex(Boolean);
  now = prepare(sample.variants[view.variant]);
  $("sample").value = view.sample;
  $("step").max = now.frames.length;
  choose("variants", view.variant);
  choose("mode", view.mode);
  const grades = Object.entries(now.metrics).map(([name, value]) => `${name} ${value === null ? "–" : +value.toFixed(3)}`);
  $("facts").textContent = `${data.variants[view.variant]} · ${grades.length ? `${grades.join(", ")} · ` : ""}${decimals(now.entropy, 3)} nats · ${now.forwards} forwards · ${now.rows} rows`;
  const kinds = Object.keys(KINDS).filter((kind) => now.frames.some((frame) => frame.k === kind && frame.p.length));
  $("kinds").textContent = kinds.map((kind) => `${kind}: ${KINDS[kind][0]}`).join(" · ");
  if (!keep) view.frame = 0;
  tell(sample);
  showBoards(Boolean(now.grid));
  if (now.grid) buildBoards();
  else buildText();
  buildStrip();
  repaint();
  go(keep ? view.frame : 0);
}

function repaint() {
  legend();
  buildHeat();
  buildChart();
  if (!now.grid) drawText(true);
}

let began = 0, from = 0;

function tick(time) {
  if (!view.playing) return;
  if (!began) { began = time; from = view.frame; }
  const frame = from + Math.floor(((time - began) / 1000) * +$("speed").value);
  if (frame !== view.frame) go(frame);
  if (view.frame >= now.frames.length) play(false);
  else requestAnimationFrame(tick);
}

function play(on) {
  view.playing = on;
  began = 0;
  $("play").textContent = on ? "‖ pause" : "▶ play";
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (!on) return;
  if (view.frame >= now.frames.length) go(0);
  requestAnimationFrame(tick);
}

const step = (by) => { play(false); go(view.frame + by); };
const pick = (by) => { play(false); view.sample = Math.min(data.samples.length - 1, Math.max(0, view.sample + by)); show(false); };
const pickVariant = (v) => { if (data.samples[view.sample].variants[v]) { play(false); view.variant = v; show(true); } };
const paint = (mode) => { view.mode = mode; choose("mode", mode); repaint(); go(view.frame); };

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  if (now) { repaint(); go(view.frame); }
}

const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), Home: () => step(-1e9), End: () => step(1e9),
  ArrowDown: () => pick(1), ArrowUp: () => pick(-1), " ": () => play(!view.playing),
  c: () => paint((view.mode + 1) % MODES.length), d: () => theme(!dark()), s: save,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^[1-9]$/.test(event.key) ? () => pickVariant(+event.key - 1) : null;
  const act = KEYS[event.key] || digit;
  // A menu keeps its own arrows, a focused button its own space.
  const target = event.target.tagName;
  if (!act || (target === "SELECT" && event.key.startsWith("Arrow")) || (target === "BUTTON" && event.key === " ")) return;
  event.preventDefault();
  act();
});

function start() {
  data.samples.forEach((sample, i) => { const option = make("option", sample.id); option.value = i; $("sample").append(option); });
  const radio = (group, text, act, title) => {
    const button = make("button", text);
    button.setAttribute("role", "radio");
    button.title = title;
    button.addEventListener("click", act);
    $(group).append(button);
  };
  data.variants.forEach((label, a) => radio("variants", label, () => pickVariant(a), `Key ${a + 1}`));
  MODES.forEach((mode, m) => radio("mode", mode, () => paint(m), "Colour by (c)"));
  const full = data.samples.some((s) => s.variants.some((d) => d && d.frames.some((f) => f.c)));
  if (!full) { const last = $("mode").lastChild; last.disabled = true; last.title = "Run with --trace full"; MODES.pop(); }
  const wire = { first: () => step(-1e9), back: () => step(-1), forward: () => step(1), last: () => step(1e9), play: () => play(!view.playing), previous: () => pick(-1), next: () => pick(1), theme: () => theme(!dark()) };
  for (const id in wire) $(id).addEventListener("click", wire[id]);
  wireBoards();
  wireShare();
  $("step").addEventListener("input", (event) => { play(false); go(+event.target.value); });
  $("sample").addEventListener("change", (event) => { play(false); view.sample = +event.target.value; show(false); });
  $("speed").addEventListener("change", () => { began = 0; });
  $("heat").addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect();
    play(false);
    go(Math.ceil(((event.clientY - box.top) / (box.height - MARGIN.bottom)) * now.frames.length));
  });
  window.addEventListener("resize", () => { buildChart(); go(view.frame); });
  if (data.fault) $("unread").textContent = `References and answers could not be read: ${data.fault}`;
  if (data.left_out) $("left").textContent = `· ${data.left_out} more examples are not in this file`;
  theme(window.matchMedia("(prefers-color-scheme: dark)").matches);
  show(false);
}

start();
