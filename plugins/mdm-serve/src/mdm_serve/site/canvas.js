// The canvas of a pane: a span for each position, in which a step touches only what it changes.

export function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** Text in which nothing is hidden: line ends are marked, and characters that have no look of their own are named. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0);
    if (character === "\n") return "↵\n";
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

export const quoted = (text) => `“${visible(text).replace("↵\n", "↵")}”`;
export const decimals = (value, digits) => (typeof value === "number" ? value.toFixed(digits) : "–");

let boxes = 0;

export class Canvas {
  spans = [];
  frame = 0;
  selected = null; // a position
  pinned = null; // selected until another one is, whatever the pointer is over

  /** `onSelect` is called when another position is selected, or none (null). */
  constructor(box, onSelect) {
    this.box = box;
    this.prefix = `canvas${boxes++}-`;
    this.onSelect = onSelect;
    const position = (event) => {
      const span = event.target.closest(".token");
      return span ? +span.dataset.position : null;
    };
    box.addEventListener("pointerover", (event) => this.select(position(event) ?? this.pinned));
    box.addEventListener("pointerleave", () => this.select(this.pinned));
    box.addEventListener("click", (event) => this.pin(position(event)));
    box.addEventListener("keydown", (event) => this.key(event));
  }

  show(decoding) {
    this.decoding = decoding;
    this.spans = [];
    this.box.replaceChildren();
    this.frame = 0;
    this.pin(null);
    this.grow();
  }

  /** A span for each position that has none. */
  grow() {
    this.box.classList.toggle("short", this.decoding.texts.length <= 160);
    for (let position = this.spans.length; position < this.decoding.texts.length; position++) {
      const span = make("span");
      span.dataset.position = position;
      span.id = this.prefix + position;
      span.setAttribute("role", "option");
      span.setAttribute("aria-selected", false);
      this.spans.push(span);
      this.box.append(span);
      this.draw(position);
    }
  }

  go(frame) {
    this.grow();
    const { frames } = this.decoding, touched = new Set();
    const [low, high] = frame < this.frame ? [frame, this.frame] : [this.frame, frame];
    for (let f = Math.max(low, 0); f <= high; f++) for (const change of frames[f].changes) touched.add(change.position);
    this.frame = frame;
    for (const position of touched) this.draw(position);
    this.follow();
  }

  draw(position) {
    const { decoding, frame } = this, span = this.spans[position], change = decoding.latest(position, frame);
    const text = decoding.text(position, frame), newest = change && change.frame === frame;
    const state = text === null ? "mask" : !change ? "prompt" : change.kind;
    span.className = `token ${state}${newest ? " now" : ""}${newest && change.kind === "remask" ? " remask" : ""}`;
    span.classList.toggle("selected", position === this.selected);
    span.textContent = text === null ? "" : visible(text);
    span.setAttribute("aria-label", this.describe(position));
    const numbers = text === null || !change ? {} : { step: change.frame, entropy: change.entropy, confidence: change.confidence ?? 1 };
    for (const name of ["step", "entropy", "confidence"]) span.style.setProperty(`--${name}`, numbers[name] ?? 0);
  }

  /** A position in words, as it is at the frame shown. */
  describe(position) {
    const { decoding, frame } = this, change = decoding.latest(position, frame), text = decoding.text(position, frame);
    if (!change) return `${text === null ? "mask" : `${quoted(text)} of the prompt`}, position ${position}`;
    const before = decoding.text(position, change.frame - 1), step = decoding.frames[change.frame].step + 1;
    const was = before === null ? "" : `, was ${quoted(before)}`;
    if (text === null) return `mask, position ${position}, masked again in step ${step}${was}`;
    const sure = change.confidence === null ? "" : `, confidence ${decimals(change.confidence, 3)}`;
    return `${quoted(text)}, position ${position}, step ${step} (${change.kind}), entropy ${decimals(change.entropy, 3)} nats${sure}${was}`;
  }

  /** Keep the newest token in sight, moving the text only. */
  follow() {
    const [change] = this.decoding.frames[this.frame].changes, { box } = this;
    if (!change) return;
    const span = this.spans[change.position], top = span.offsetTop, bottom = top + span.offsetHeight;
    if (top < box.scrollTop || bottom > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  }

  select(position) {
    if (position === this.selected) return;
    for (const [at, on] of [[this.selected, false], [position, true]]) {
      if (at === null || !this.spans[at]) continue;
      this.spans[at].classList.toggle("selected", on);
      this.spans[at].setAttribute("aria-selected", on);
    }
    this.selected = position;
    this.onSelect(position);
  }

  pin(position) {
    this.pinned = position;
    this.select(position);
    if (position === null) this.box.removeAttribute("aria-activedescendant");
    else {
      this.box.setAttribute("aria-activedescendant", this.prefix + position);
      this.spans[position].scrollIntoView({ block: "nearest" });
    }
  }

  key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !this.spans.length) return;
    if (event.key === "Escape") this.pin(null); // and whatever else it does on the page
    if (!by) return;
    const from = this.pinned ?? (by > 0 ? this.firstMask() - 1 : this.firstMask() + 1);
    this.pin(Math.min(this.spans.length - 1, Math.max(0, from + by)));
    event.preventDefault();
    event.stopPropagation();
  }

  /** Where decoding began to write. */
  firstMask() {
    return Math.max(0, this.decoding.texts.indexOf(null));
  }
}
