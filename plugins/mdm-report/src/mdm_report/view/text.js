"use strict";
// A decoding of a text: a span for each token. What belongs to pictures as well (now, view, tint, ...) is in trace.js.
const HALVES = /‹((?:[0-9A-F]{2} ?)+)›|�/; // bytes of a token that are no character by themselves, as they are recorded
const FOLDED = 240; // characters of a prompt that is folded
const strict = new TextDecoder("utf-8", { fatal: true });
let spans = [], drawn = [];

/** The positions of tokens that hold parts of characters, in runs of neighbours that can be joined. */
function prepareHalves(decoding) {
  const has = (position) => HALVES.test(decoding.canvas[position] || "") || decoding.commits[position].some((commit) => HALVES.test(commit.text || ""));
  decoding.halves = [];
  let last = null; // the run that goes on
  decoding.canvas.forEach((text, position) => {
    if (!has(position)) { last = null; return; }
    const given = !decoding.commits[position].length;
    if (!last || last.given !== given) decoding.halves.push(last = { given, positions: [] });
    last.positions.push(position);
  });
}

/** A text in parts: strings, bytes that are no character by themselves, and what a tokenizer writes for unknown ones. */
function parts(text) {
  const found = [];
  for (let rest = text, match; rest; rest = match ? rest.slice(match.index + match[0].length) : "") {
    match = HALVES.exec(rest);
    const before = match ? rest.slice(0, match.index) : rest;
    if (before) found.push(before);
    if (match) found.push(match[1] ? match[1].trim().split(" ").map((byte) => parseInt(byte, 16)) : null);
  }
  return found;
}

/** The first character of some bytes and how many make it, or none. */
function character(bytes) {
  const length = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : bytes[0] >= 0xc2 ? 2 : 0;
  try {
    return length && bytes.length >= length ? [strict.decode(new Uint8Array(bytes.slice(0, length))), length] : null;
  } catch { return null; }
}

/**
 * The tokens' texts (null: none there) with the characters that their neighbours complete: for each a list of strings
 * and of lone bytes, [bytes]. A character belongs to the token that begins it; the others of it are left empty.
 */
function join(texts) {
  const joined = texts.map(() => []);
  let bytes = [], owners = [];
  const put = (owner, what) => {
    const own = joined[owner], end = own.length - 1;
    if (typeof what === "string" && typeof own[end] === "string") own[end] += what;
    else if (typeof what === "number" && Array.isArray(own[end])) own[end].push(what);
    else own.push(typeof what === "number" ? [what] : what);
  };
  const flush = () => {
    while (bytes.length) {
      const [text, length] = character(bytes) || [bytes[0], 1];
      put(owners[0], text);
      bytes = bytes.slice(length);
      owners = owners.slice(length);
    }
  };
  texts.forEach((text, owner) => {
    if (text === null) return flush();
    for (const part of parts(text)) {
      if (Array.isArray(part)) { bytes.push(...part); owners.push(...part.map(() => owner)); }
      else { flush(); put(owner, part === null ? [] : part); }
    }
  });
  flush();
  return joined;
}

const hexadecimal = (bytes) => (bytes.length ? bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ") : "?");

/** Position -> the parts of its text at a frame, for the tokens that hold parts of characters. */
function joinedAt(frame) {
  const found = new Map();
  for (const { positions } of now.halves) {
    // Between neighbours that are both there.
    const texts = positions.map((position) => textAt(position, frame));
    join(texts).forEach((pieces, i) => { if (texts[i] !== null) found.set(positions[i], pieces); });
  }
  return found;
}

/** The text of a position at a frame, null where it is masked. */
function textAt(position, frame) {
  if (!now.commits[position].length) return now.canvas[position];
  const commit = shown(position, frame);
  return commit && commit.text;
}

const visible = (text) => text.replace(/\n/g, "↵\n");

function fill(span, pieces) {
  span.replaceChildren(...pieces.map((piece) => (typeof piece === "string" ? visible(piece) : make("i", hexadecimal(piece), "half"))));
  span.classList.toggle("tail", !pieces.length);
}

function buildText() {
  const box = $("canvas"), joined = joinedAt(view.frame);
  drawn = new Array(now.canvas.length).fill(undefined);
  spans = now.canvas.map((text, i) => {
    const span = make("span", text === null ? "" : text, text === null ? "mask" : "prompt");
    if (text !== null && joined.has(i) && !now.commits[i].length) fill(span, joined.get(i));
    span.title = `position ${i}`;
    return span;
  });
  box.classList.toggle("short", now.canvas.length <= 160);
  const before = spans.slice(0, now.from), rest = spans.slice(now.from);
  if (before.reduce((length, span) => length + span.textContent.length, 0) > FOLDED) {
    const folded = make("details"), summary = make("summary", `Prompt, ${now.from} tokens`);
    folded.append(summary, ...before);
    box.replaceChildren(folded, ...rest);
  } else box.replaceChildren(...spans);
  // Where the masks are; a step at which none is there is the end.
  const first = spans[now.from];
  box.scrollTop = first && first.offsetTop > box.clientHeight / 2 ? first.offsetTop - 2 * first.offsetHeight : 0;
}

function drawText(all) {
  const joined = joinedAt(view.frame);
  for (let i = now.from; i < now.to; i++) {
    if (now.canvas[i] !== null && !now.commits[i].length) continue;
    const last = latest(i, view.frame), fresh = last !== null && last.frame === view.frame;
    const commit = last && last.text !== null ? last : null, pieces = joined.get(i);
    const key = last === null ? "" : `${last.frame}${fresh}${pieces ? JSON.stringify(pieces) : ""}`;
    if (!all && drawn[i] === key) continue;
    drawn[i] = key;
    const span = spans[i];
    if (commit === null) {
      span.textContent = "";
      span.className = fresh ? "mask now remask" : "mask";
      span.removeAttribute("style");
      const before = last && shown(i, last.frame - 1);
      span.title = `position ${i}: masked${before ? ` again in step ${now.frames[last.frame - 1].s + 1}, was ${JSON.stringify(before.text)}` : ""}`;
      continue;
    }
    span.className = fresh ? `now ${commit.kind}` : commit.kind === "edit" ? "edited" : "";
    if (pieces) fill(span, pieces);
    else span.textContent = visible(commit.text);
    const replaced = commit.kind === "edit" ? shown(i, commit.frame - 1) : null;
    const paint = tint(commit);
    span.style.background = css(paint);
    span.style.color = ink(paint);
    const sure = commit.confidence === null ? "" : `, confidence ${decimals(commit.confidence, 3)}`;
    const part = pieces ? `, part of a character: ${commit.text}` : "";
    span.title = `position ${i}, step ${now.frames[commit.frame - 1].s + 1} (${commit.kind}): entropy ${decimals(commit.entropy, 3)}${sure}${part}${replaced ? `, was ${JSON.stringify(replaced.text)}` : ""}`;
  }
}

/** Keep the newest token in sight, moving the text only. */
function follow() {
  const last = now.frames[view.frame - 1], box = $("canvas");
  if (!last || !last.p.length || box.scrollHeight <= box.clientHeight) return;
  const span = spans[last.p[0]], top = span.offsetTop, bottom = top + span.offsetHeight;
  if (top < box.scrollTop || bottom > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
}
