// The page: one prompt, one or two panes that decode it, and a player over the steps of both.
import { Pane } from "./pane.js";
import { describe } from "./stream.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const COLOURS = ["order", "entropy", "confidence"];
const view = { frame: 0, live: true, playing: null, compare: false };
let about, panes = [];

const visiblePanes = () => panes.slice(0, view.compare ? 2 : 1);
const steps = () => Math.max(0, ...visiblePanes().map((pane) => pane.decoding.length));
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const running = () => panes.some((pane) => pane.running);

// --- the player ---------------------------------------------------------------------------------------------------
function go(frame) {
  const last = steps();
  view.frame = Math.min(last, Math.max(0, frame));
  view.live = view.frame === last;
  draw();
}

function draw() {
  const last = steps(), most = Math.max(0, ...visiblePanes().map((pane) => pane.decoding.most));
  $("panes").style.setProperty("--steps", Math.max(1, last));
  $("panes").style.setProperty("--most", most || 1);
  $("step").max = last;
  $("step").value = view.frame;
  const where = last ? `step ${view.frame} of ${last}` : "no steps yet";
  $("where").textContent = where;
  $("step").setAttribute("aria-valuetext", where);
  const ends = { order: ["first", "last"], entropy: ["0", `${most.toPrecision(2)} nats`], confidence: ["0", "1"] }[chosen("colour")];
  [$("low").textContent, $("high").textContent] = ends;
  for (const pane of visiblePanes()) pane.go(view.frame);
}

let due = false;

/** Something came: draw it with the next picture, at the newest step unless an older one is looked at. */
function changed() {
  $("stop").disabled = !running();
  root.classList.toggle("running", running());
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (view.live && !view.playing) view.frame = steps();
    draw();
  });
}

function play(on) {
  clearInterval(view.playing);
  view.playing = null;
  $("play").textContent = on ? "‖ pause" : "▶ play";
  if (!on) return;
  if (view.frame >= steps()) go(0);
  view.playing = setInterval(() => {
    go(view.frame + 1);
    if (view.frame >= steps()) play(false);
  }, 1000 / $("speed").value);
}

const step = (by) => { play(false); go(view.frame + by); };

// --- running ------------------------------------------------------------------------------------------------------
const KIND = {
  chat: { label: "Message", hint: "A user's message, in the model's chat template." },
  plain: { label: "Text", hint: "The model goes on with the text." },
  infill: { label: "Before the gap", hint: "" },
};

function showKind() {
  const kind = chosen("kind");
  $("promptlabel").textContent = KIND[kind].label;
  $("suffixrow").hidden = kind !== "infill";
  $("hint").textContent = kind === "infill"
    ? `As many masks as max tokens between the two texts; or, with nothing behind the gap, a ${about.mask} in the text for each token.`
    : KIND[kind].hint;
}

/** What the prompt asks the server for, whatever the settings. */
function ask() {
  const kind = chosen("kind"), prompt = $("prompt").value, suffix = $("suffix").value;
  const body = { model: about.model, stream: true, stream_options: { include_usage: true }, mdm_trace: "full" };
  if (kind === "chat") return { path: "v1/chat/completions", body: { ...body, messages: [{ role: "user", content: prompt }] } };
  body.prompt = prompt;
  if (kind === "infill") Object.assign(body, suffix ? { suffix } : { max_tokens: 0 });
  return { path: "v1/completions", body };
}

async function run() {
  if (!about) return;
  stop();
  if (!$("prompt").value && !$("suffix").value) {
    panes[0].say("Type a prompt first.", true);
    $("prompt").focus();
    return;
  }
  play(false);
  view.frame = 0;
  view.live = true;
  const faults = await Promise.all(visiblePanes().map((pane) => pane.run(ask(), $("key").value)));
  if (faults.some((fault) => fault && fault.status === 401)) askForKey();
}

function stop() {
  for (const pane of panes) pane.stop();
}

function askForKey() {
  $("keyrow").hidden = false;
  $("key").focus();
}

// --- the rest -----------------------------------------------------------------------------------------------------
function compare(on) {
  view.compare = on;
  $("compare").setAttribute("aria-pressed", on);
  root.classList.toggle("comparing", on);
  if (!on) panes[1].stop();
  panes[1].root.hidden = !on;
  go(view.live ? Infinity : view.frame);
}

function colour(name) {
  document.querySelector(`input[name=colour][value=${name}]`).checked = true;
  root.dataset.colour = name;
  draw();
}

const theme = (name) => { root.dataset.theme = name; };
const turn = () => theme(root.dataset.theme === "dark" ? "light" : "dark");

const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), Home: () => step(-Infinity), End: () => step(Infinity),
  " ": () => play(!view.playing), d: turn, b: () => compare(!view.compare),
  c: () => colour(COLOURS[(COLOURS.indexOf(chosen("colour")) + 1) % COLOURS.length]),
};

function key(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
    return;
  }
  if (event.key === "Escape") stop();
  if (!about || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  // A focused button or summary keeps its own space.
  if (!KEYS[event.key] || (event.key === " " && event.target.closest("button, summary"))) return;
  event.preventDefault();
  KEYS[event.key]();
}

/** Ask the server what it serves, and make the page of it. */
async function begin() {
  try {
    about = await describe($("key").value);
  } catch (error) {
    $("model").textContent = error.message;
    if (error.status === 401) askForKey();
    return;
  }
  $("model").textContent = `${about.model} · ${about.family} on ${about.device}`;
  document.title = `${about.model}: mdm serve`;
  for (const input of document.querySelectorAll("input[name=kind]")) {
    const can = { chat: about.chat, plain: true, infill: about.diffusion }[input.value];
    input.disabled = !can;
    input.parentElement.title = can ? "" : "This model cannot";
  }
  document.querySelector(`input[name=kind]:enabled`).checked = true;
  showKind();
  panes = ["A", "B"].map((name) => new Pane(about, name, changed));
  $("panes").replaceChildren(...panes.map((pane) => pane.root));
  const other = about.samplers.find(({ name }) => name === "confidence" && name !== about.defaults.sampler);
  if (other) panes[1].choose("sampler", other.name);
  compare(false);
}

function start() {
  const wire = {
    first: () => step(-Infinity), back: () => step(-1), forward: () => step(1), last: () => step(Infinity),
    play: () => play(!view.playing), stop, theme: turn, compare: () => compare(!view.compare), usekey: () => (about ? run() : begin()),
  };
  for (const id in wire) $(id).addEventListener("click", wire[id]);
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  $("key").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); wire.usekey(); } });
  $("kind").addEventListener("change", showKind);
  $("colour").addEventListener("change", () => colour(chosen("colour")));
  $("step").addEventListener("input", (event) => { play(false); go(+event.target.value); });
  $("speed").addEventListener("change", () => { if (view.playing) play(true); });
  document.addEventListener("keydown", key);
  theme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  begin();
}

start();
