"use strict";
// One step as a PNG: what stands above the decoding, and the canvas. It is drawn by hand, since a browser lets nothing
// out of a canvas that holds a page's own elements.
const SHEET = { width: 960, margin: 28, scale: 2, most: 150 }; // most: lines of text
const MONO = '16px ui-monospace, "DejaVu Sans Mono", monospace', SANS = "14px system-ui, sans-serif";

/** Break a text into lines that are no wider than so many pixels; at most so many of them. */
function wrap(c, text, width, most) {
  const lines = [];
  for (const line of text.trim().split("\n")) {
    let rest = "";
    for (const word of line.split(/(?<=\s)/)) {
      if (c.measureText(rest + word).width <= width) { rest += word; continue; }
      if (rest) lines.push(rest);
      rest = "";
      for (const letter of word) { // a word that is longer than a line
        if (c.measureText(rest + letter).width > width) { lines.push(rest); rest = ""; }
        rest += letter;
      }
    }
    lines.push(rest);
  }
  return lines.length > most ? [...lines.slice(0, most - 1), `${lines[most - 1].slice(0, -1)}…`] : lines;
}

/** What to draw: functions of a top edge, each with its height. */
function blocks(c, colours) {
  const inner = SHEET.width - 2 * SHEET.margin, found = [];
  const lines = (text, font, colour, high, most) => {
    c.font = font;
    for (const line of wrap(c, text, inner, most)) found.push([high, (y) => { c.font = font; c.fillStyle = colours[colour]; c.fillText(line, SHEET.margin, y + high / 2); }]);
  };
  const gap = (high) => found.push([high, () => {}]);
  lines(`${data.samples[view.sample].id} · step ${view.frame} of ${now.frames.length} · ${data.variants[view.variant]}`, "600 18px system-ui, sans-serif", "ink", 26, 2);
  lines($("settings").textContent, SANS, "soft", 20, 4);
  gap(8);
  if (now.grid) lines(`Prompt: ${now.prompt}`, SANS, "ink", 20, 4);
  for (const name of ["question", "reference", "answer"]) {
    const row = $(name).parentNode;
    if (!row.hidden) lines(`${row.querySelector("dt").textContent}: ${$(name).textContent}`, SANS, "ink", 20, name === "question" ? 6 : 4);
  }
  lines(`Verdict: ${now.verdict[1]}`, SANS, "ink", 20, 2);
  gap(14);
  found.push(...(now.grid ? pictureBlocks(c, inner) : textBlocks(c, inner, colours)));
  gap(14);
  const mode = MODES[view.mode], [low, high] = scaleEnds();
  found.push([20, (y) => {
    c.font = SANS;
    c.fillStyle = colours.soft;
    const said = `${mode}: ${low} `, from = SHEET.margin + c.measureText(said).width;
    c.fillText(said, SHEET.margin, y + 10);
    for (let i = 0; i < 140; i++) { c.fillStyle = css(colour(mode, i / 139)); c.fillRect(from + i, y + 4, 1.5, 12); }
    c.fillStyle = colours.soft;
    c.fillText(` ${high}`, from + 142, y + 10);
  }]);
  return found;
}

function pictureBlocks(c, inner) {
  const boards = [$("patches"), $("map")], wide = (inner - 16) / 2, high = (wide * boards[0].height) / Math.max(1, boards[0].width);
  return [[high, (y) => {
    c.imageSmoothingEnabled = false;
    boards.forEach((board, i) => c.drawImage(board, SHEET.margin + i * (wide + 16), y, wide, high));
  }]];
}

/** The canvas as lines of tokens. */
function textBlocks(c, inner, colours) {
  const joined = joinedAt(view.frame), lines = [[]], newest = new Set((now.frames[view.frame - 1] || { p: [] }).p);
  let x = 0, centre = 0;
  c.font = MONO;
  const place = (text, wide, style) => {
    if (x && x + wide > inner) { lines.push([]); x = 0; }
    lines.at(-1).push({ ...style, text, x, wide });
    if (style.fresh) centre = lines.length - 1;
    x += wide;
  };
  const given = now.canvas.slice(0, now.from).join("");
  if (given.length > FOLDED) { place(`Prompt, ${now.from} tokens …`, 0, { colour: colours.soft }); lines.push([]); }
  for (let i = given.length > FOLDED ? now.from : 0; i < now.canvas.length; i++) {
    const text = textAt(i, view.frame), fresh = newest.has(i), commit = now.commits[i].length ? shown(i, view.frame) : null;
    if (text === null) { place("", 11, { mask: true, fresh }); continue; }
    const paint = commit && tint(commit), style = { fresh, back: paint && css(paint), colour: paint ? ink(paint) : colours.soft };
    const pieces = joined.get(i) || [text];
    if (!pieces.length) place("", 4, style); // the rest of a character
    for (const piece of pieces) {
      if (Array.isArray(piece)) { place(hexadecimal(piece), c.measureText(hexadecimal(piece)).width + 6, { ...style, half: true }); continue; }
      visible(piece).split("\n").forEach((part, n) => {
        if (n) { lines.push([]); x = 0; }
        for (const run of wide(c, part, inner)) place(run, c.measureText(run).width, style);
      });
    }
  }
  const from = Math.max(0, Math.min(centre - SHEET.most / 2, lines.length - SHEET.most)), shownLines = lines.slice(from, from + SHEET.most);
  return shownLines.map((line) => [26, (y) => {
    c.font = MONO;
    for (const token of line) {
      const left = SHEET.margin + token.x;
      if (token.mask) { c.fillStyle = colours.mask; c.fillRect(left + 1, y + 4, token.wide - 2, 18); }
      if (token.back) { c.fillStyle = token.back; c.fillRect(left, y + 2, token.wide, 22); }
      c.fillStyle = token.colour || colours.ink;
      c.fillText(token.text, left + (token.half ? 3 : 0), y + 13);
      c.lineWidth = token.fresh ? 2 : 1;
      c.strokeStyle = token.fresh ? colours.accent : token.colour;
      c.setLineDash(token.half && !token.fresh ? [2, 2] : []);
      if (token.fresh || token.half) c.strokeRect(left + 0.5, y + 2.5, token.wide - 1, 21);
    }
  }]);
}

/** A token's text in runs that fit a line. */
function wide(c, text, inner) {
  if (c.measureText(text).width <= inner) return text ? [text] : [];
  const most = Math.max(1, Math.floor(inner / c.measureText("m").width)), letters = [...text];
  return Array.from({ length: Math.ceil(letters.length / most) }, (_, i) => letters.slice(i * most, (i + 1) * most).join(""));
}

/** The step that is shown, as a promise of a PNG. */
function sheet() {
  const canvas = document.createElement("canvas"), c = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(["ground", "surface", "ink", "soft", "mask", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
  const all = blocks(c, colours), high = all.reduce((sum, [height]) => sum + height, 2 * SHEET.margin);
  canvas.width = SHEET.width * SHEET.scale;
  canvas.height = Math.ceil(high * SHEET.scale);
  c.scale(SHEET.scale, SHEET.scale);
  c.fillStyle = colours.surface;
  c.fillRect(0, 0, SHEET.width, high);
  c.textBaseline = "middle";
  let y = SHEET.margin;
  for (const [height, paint] of all) { paint(y); y += height; }
  return new Promise((done) => { canvas.toBlob(done, "image/png"); });
}

const fileName = () => `${data.samples[view.sample].id.replace(/[^\p{L}\p{N}.+-]+/gu, "-")}-step-${view.frame}.png`;

async function save() {
  const link = make("a"), name = fileName();
  link.href = URL.createObjectURL(await sheet());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  $("shared").textContent = `saved ${name}`;
}

async function copy() {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": sheet() })]);
    $("shared").textContent = `copied step ${view.frame}`;
  } catch (error) {
    $("shared").textContent = `this browser refuses the clipboard (${error.name}): save the picture`;
  }
}

function wireShare() {
  $("save").addEventListener("click", save);
  $("copy").addEventListener("click", copy);
  $("copy").hidden = !(navigator.clipboard && window.ClipboardItem);
}
