// A pane: settings, the canvas that is decoded under them, and what it cost.
import { Canvas, decimals, make, quoted, visible } from "./canvas.js";
import { Decoding, KINDS } from "./decoding.js";
import { Settings } from "./settings.js";
import { decode } from "./stream.js";

const ROWS = 16;
const COLUMNS = [
  ["positions", "On the canvas"], ["J", "What the sampler makes as large as it can"], ["", ""],
  ["C", "Entropy paid, in nats"], ["H", "Uncertainty left, in nats"],
];
const FINISHED = { stop: "done: the answer has ended", length: "done: as long as asked", cancelled: "cancelled", timeout: "out of time" };
const inOrder = (positions) => String([...positions].sort((a, b) => a - b));
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

export class Pane {
  decoding = new Decoding();
  frame = 0;
  abort = null; // of the request that runs

  /** `changed` is called whenever there is more to show; `frame` is drawn by `go`. */
  constructor(about, name, changed) {
    this.about = about;
    this.changed = changed;
    this.root = document.getElementById("pane").content.cloneNode(true).firstElementChild;
    this.root.setAttribute("aria-label", `Pane ${name}`);
    this.$ = (selector) => this.root.querySelector(selector);
    this.$("h2").textContent = name;
    this.settings = new Settings(this.$(".fields"), about);
    this.canvas = new Canvas(this.$(".canvas"), () => this.explain());
    this.canvas.show(this.decoding);
    this.$(".fields").addEventListener("input", () => this.summarize());
    this.$(".fields").addEventListener("change", () => this.summarize());
    this.summarize();
    this.go(0);
  }

  get running() {
    return this.abort !== null;
  }

  /** Set a menu as a user would. */
  choose(key, value) {
    const menu = this.settings.fields.get(key);
    menu.value = value;
    menu.dispatchEvent(new Event("change", { bubbles: true }));
  }

  summarize() {
    this.$(".settings small").textContent = this.settings.summary();
  }

  /** Say what goes on, to the ear too. */
  say(text, fault = false) {
    const state = this.$(".state");
    state.textContent = text;
    state.classList.toggle("fault", fault);
  }

  /** Decode what `ask` is, a path and a body, under these settings; nothing may run. Resolves to the fault, or to nothing. */
  async run({ path, body }, key) {
    this.answer("");
    this.begin(new Decoding());
    let asked;
    try {
      asked = { ...body, ...this.settings.body() };
    } catch (error) {
      return this.fail(error);
    }
    const abort = new AbortController(), began = performance.now();
    this.abort = abort;
    this.changed();
    this.say("waiting for the server …");
    let finish = null, text = "";
    try {
      await decode(path, asked, key, abort.signal, {
        canvas: (said) => {
          const decoding = new Decoding();
          decoding.begin(said);
          this.begin(decoding);
          this.makeRoom();
          this.say("decoding …");
        },
        draft: (said) => {
          this.decoding.add(said.lines, (performance.now() - began) / 1000);
          this.changed();
        },
        message: (chunk) => {
          for (const choice of chunk.choices || []) {
            text += (choice.delta ? choice.delta.content : choice.text) || "";
            finish = choice.finish_reason || finish;
          }
          this.answer(text);
        },
      });
      this.say(FINISHED[finish] || "done");
    } catch (error) {
      if (abort !== this.abort) return undefined; // another run has begun, or it was stopped
      return this.fail(error);
    } finally {
      if (abort === this.abort) this.abort = null;
      this.changed();
    }
    return undefined;
  }

  fail(error) {
    this.say(visible(error.message), true);
    return error;
  }

  /** Fold the settings where they keep the canvas or its totals out of sight, unless one is being set. */
  makeRoom() {
    const settings = this.$(".settings"), below = this.$(".totals").getBoundingClientRect().bottom > window.innerHeight;
    if (below && !settings.contains(document.activeElement)) settings.open = false;
  }

  stop() {
    if (!this.abort) return;
    this.abort.abort();
    this.abort = null;
    this.say(`stopped after ${plural(this.decoding.length, "step")}`);
    this.changed();
  }

  begin(decoding) {
    this.decoding = decoding;
    this.frame = 0;
    this.canvas.show(decoding);
    this.changed();
  }

  answer(text) {
    this.$(".answer pre").textContent = visible(text);
  }

  go(frame) {
    this.frame = Math.min(frame, this.decoding.length);
    this.canvas.go(this.frame);
    this.total();
    this.explain();
  }

  /** What it has cost up to the frame shown. */
  total() {
    const now = this.decoding.frames[this.frame], masks = this.decoding.texts.filter((text) => text === null).length;
    const totals = [
      ["tokens", masks ? `${now.tokens} / ${masks}` : "–"],
      ["forwards", now.forwards],
      ["tokens per forward", now.forwards ? decimals(now.tokens / now.forwards, 2) : "–"],
      ["rows", now.rows],
      ["cumulative entropy", `${decimals(now.entropy, 3)} nats`],
      ["time", `${decimals(now.seconds, 2)} s`],
    ];
    const list = this.$(".totals");
    if (!list.children.length) {
      for (const [name] of totals) {
        const item = make("div");
        item.append(make("dt", name), make("dd"));
        list.append(item);
      }
    }
    totals.forEach(([, value], i) => { list.children[i].lastChild.textContent = value; });
  }

  /** The selected position, or what the step shown did. */
  explain() {
    const { decoding, canvas } = this, position = canvas.selected;
    const change = position === null ? null : decoding.latest(position, this.frame);
    const frame = decoding.frames[change && change.text !== null ? change.frame : this.frame];
    this.$(".what").textContent = position === null ? this.step(frame) : this.position(position);
    this.weighed(frame);
  }

  position(position) {
    const text = this.canvas.describe(position);
    return text.charAt(0).toUpperCase() + text.slice(1);
  }

  step(frame) {
    if (frame.step < 0) return this.decoding.texts.length ? "Before the first step. Point at a token to see more of it." : "";
    const kinds = Object.keys(KINDS).map((kind) => [kind, frame.changes.filter((change) => change.kind === kind)]);
    const done = kinds.filter(([, changes]) => changes.length).map(([kind, changes]) => {
      const few = changes.slice(0, 6).map((change) => (change.text === null ? `position ${change.position}` : quoted(change.text)));
      return `${kind} ${few.join(" ")}${changes.length > few.length ? ` and ${changes.length - few.length} more` : ""}`;
    });
    return `Step ${frame.step + 1}: ${done.join(", ") || "nothing"} · ${plural(frame.at.forwards, "forward")}, ${plural(frame.at.rows, "row")}`;
  }

  /** The candidates that were compared in a step, best first. */
  weighed(frame) {
    const table = this.$("table"), all = frame.weighed;
    table.hidden = !all.length;
    if (!all.length) return;
    const sorted = [...all].sort((a, b) => b.J - a.J), taken = frame.changes.filter((change) => change.kind === "commit");
    const committed = inOrder(taken.map((change) => change.position));
    const high = sorted[0].J, low = sorted.at(-1).J;
    const caption = make("caption", `${plural(all.length, "candidate")} weighed in step ${frame.step + 1}${all.length > ROWS ? `, the best ${ROWS} shown` : ""}`);
    const head = make("tr");
    for (const [name, title] of COLUMNS) {
      const cell = make("th", name);
      cell.title = title;
      head.append(cell);
    }
    const rows = sorted.slice(0, ROWS).map(({ positions, J, C, H }) => {
      const row = make("tr", undefined, inOrder(positions) === committed ? "best" : positions.includes(this.canvas.selected) ? "held" : ""), bar = make("td", undefined, "bars");
      bar.append(make("span", undefined, "bar"));
      bar.firstChild.style.width = `${(100 * (J - low)) / (high - low || 1)}%`;
      row.append(make("td", positions.join(", ")), make("td", decimals(J, 4)), bar, make("td", decimals(C, 4)), make("td", decimals(H, 4)));
      return row;
    });
    table.replaceChildren(caption, head, ...rows);
  }
}
