"use strict";
// A decoding of a picture: two boards of the grid's cells, one of the picture's patches and one of step, entropy or
// confidence. What belongs to text as well (now, view, tint, ...) is in trace.js.
const MAPS = { step: "Step of each token", entropy: "Entropy at its commit", confidence: "Confidence at its commit" };
const TAGS = 8; // candidates whose J stands on the board
let held = null; // the candidate that is pointed at
let spot = null; // the cell that is pointed at

/** What is computed once: the position of each cell and back, and the token that each ends with. */
function prepareGrid(decoding) {
  decoding.slots = decoding.canvas.map((_, i) => i).filter((i) => decoding.canvas[i] === null);
  decoding.cells = new Map(decoding.slots.map((position, cell) => [position, cell]));
  decoding.final = decoding.slots.map((position) => (decoding.commits[position].at(-1) || { text: null }).text);
}

/** Row and column, both from 1, of a cell. */
const rowColumn = (cell) => [Math.floor(cell / now.grid[1]) + 1, (cell % now.grid[1]) + 1];

function places(positions) {
  const some = positions.slice(0, 2).map((p) => (now.cells.has(p) ? `(${rowColumn(now.cells.get(p)).join(", ")})` : p));
  return some.join(", ") + (positions.length > 2 ? ` +${positions.length - 2}` : "");
}

function showBoards(on) {
  $("picture").hidden = $("boardkeys").hidden = !on;
  $("canvas").hidden = on;
  (on ? $("mapname").parentNode : document.querySelector(".text h2")).append($("legend"));
  document.querySelector("main").classList.toggle("drawn", on);
}

function buildBoards() {
  spot = null;
  $("prompt").textContent = now.prompt;
  for (const id of ["patches", "map"]) $(id).setAttribute("aria-label", `${now.grid[0]} rows of ${now.grid[1]} tokens; arrow keys move`);
  if (!now.picture && now.image.uri) {
    const decoding = now;
    decoding.picture = new Image();
    decoding.picture.src = now.image.uri;
    decoding.picture.decode().catch(() => { decoding.image.fault = "cannot be read"; }).then(() => { if (decoding === now) shape(); });
  }
  shape();
}

/** The finished picture, once the browser has it. */
const finished = () => (now.picture && now.picture.complete && now.picture.naturalWidth && !now.image.fault ? now.picture : null);

/** Shape the boards as the picture is, and draw them. */
function shape() {
  const whole = finished(), ratio = whole ? whole.naturalWidth / whole.naturalHeight : now.grid[1] / now.grid[0];
  for (const id of ["patches", "map"]) {
    $(id).style.aspectRatio = ratio;
    $(id).style.maxWidth = `${70 * ratio}vh`;
  }
  $("fault").textContent = now.image.fault ? `${now.image.name} ${now.image.fault}: cells without their patches.` : "";
  drawBoards();
}

let pens; // the page's colours, read once for each drawing

function hatching(ratio) {
  const tile = document.createElement("canvas"), side = Math.round(6 * ratio), c = tile.getContext("2d");
  tile.width = tile.height = side;
  c.fillStyle = pens.mask;
  c.fillRect(0, 0, side, side);
  c.strokeStyle = pens.soft;
  c.lineWidth = ratio;
  for (const shift of [-side, 0, side]) {
    c.beginPath();
    c.moveTo(shift - 1, side + 1);
    c.lineTo(shift + side + 1, -1);
    c.stroke();
  }
  return c.createPattern(tile, "repeat");
}

function drawBoards() {
  const style = getComputedStyle(document.documentElement);
  pens = Object.fromEntries(["mask", "soft", "ink", "accent", "surface"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
  $("mapname").textContent = MAPS[MODES[view.mode]];
  const commits = now.slots.map((position) => shown(position, view.frame));
  drawBoard($("patches"), commits, finished());
  drawBoard($("map"), commits, null);
  describe(commits);
}

function drawBoard(canvas, commits, whole) {
  const ratio = window.devicePixelRatio || 1, [rows, columns] = now.grid, isMap = canvas.id === "map";
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio), c = canvas.getContext("2d");
  canvas.width = width; // clears it
  canvas.height = height;
  const at = (cell) => {
    const row = Math.floor(cell / columns), column = cell % columns, x = Math.round((column * width) / columns), y = Math.round((row * height) / rows);
    return [x, y, Math.round(((column + 1) * width) / columns) - x, Math.round(((row + 1) * height) / rows) - y];
  };
  const gap = width / columns >= 6 * ratio ? 1 : 0, hatch = hatching(ratio);
  c.imageSmoothingEnabled = !whole || whole.naturalWidth > width; // a small picture stays sharp
  commits.forEach((commit, cell) => {
    const [x, y, w, h] = at(cell);
    if (commit && !isMap && whole && commit.text === now.final[cell]) {
      const patch = [whole.naturalWidth / columns, whole.naturalHeight / rows];
      c.drawImage(whole, (cell % columns) * patch[0], Math.floor(cell / columns) * patch[1], ...patch, x, y, w, h);
      return;
    }
    c.fillStyle = !commit ? pens.mask : isMap ? css(tint(commit)) : commit.text === now.final[cell] ? pens.soft : hatch;
    // A small square on the map, where a mask must not look like a low number.
    if (!commit && isMap) c.fillRect(x + Math.floor(w * 0.3), y + Math.floor(h * 0.3), Math.ceil(w * 0.4) - gap, Math.ceil(h * 0.4) - gap);
    else c.fillRect(x, y, w - gap, h - gap);
  });
  const outline = (cell, colour, line, dashed) => {
    if (cell === undefined) return; // of no position of the grid
    const [x, y, w, h] = at(cell), inset = (line * ratio) / 2;
    c.lineWidth = line * ratio;
    c.strokeStyle = colour;
    c.setLineDash(dashed ? [3 * ratio, 2 * ratio] : []);
    c.strokeRect(x + inset, y + inset, w - gap - 2 * inset, h - gap - 2 * inset);
  };
  const newest = now.frames[view.frame - 1];
  if (newest) for (const p of newest.p) outline(now.cells.get(p), pens.ink, 1.5);
  drawCandidates(c, at, outline, ratio, isMap);
  if (spot !== null) {
    outline(spot, pens.surface, 4);
    outline(spot, pens.ink, 2);
  }
}

function drawCandidates(c, at, outline, ratio, isMap) {
  const all = candidates();
  if (!all.length) return;
  const best = all.find(isCommitted);
  const cellsOf = ([positions]) => positions.map((p) => now.cells.get(p)).filter((cell) => cell !== undefined);
  const times = new Map();
  for (const candidate of held ? [held] : all) for (const cell of cellsOf(candidate)) times.set(cell, (times.get(cell) || 0) + 1);
  for (const cell of times.keys()) outline(cell, pens.ink, held ? 2 : 1, true);
  if (best && (!held || held === best)) for (const cell of cellsOf(best)) outline(cell, pens.accent, 2);
  // The J of each in a cell of its own; where cells are too small for that, beside it, on the map only. One that would
  // cover another is left out.
  const order = held ? [held] : [...new Set([best, ...all.slice(0, TAGS)])].filter(Boolean), tags = [];
  c.font = `${10 * ratio}px system-ui, sans-serif`;
  c.textAlign = "center";
  c.textBaseline = "middle";
  for (const candidate of order) {
    const cells = cellsOf(candidate), label = decimals(candidate[1], 3);
    if (!cells.length) continue;
    const [x, y, w, h] = at(cells.find((cell) => times.get(cell) === 1) ?? cells[0]), inside = w >= 36 * ratio;
    if (!inside && !isMap) continue;
    const wide = c.measureText(label).width + 6 * ratio, high = 13 * ratio;
    // Above a cell that is too small for it, or below where there is no room.
    const left = Math.min(c.canvas.width - wide, Math.max(0, x + w / 2 - wide / 2)), top = inside ? y + (h - high) / 2 : y >= high ? y - high : y + h;
    if (tags.some((tag) => Math.abs(tag[0] - left) < Math.max(tag[2], wide) && Math.abs(tag[1] - top) < high)) continue;
    tags.push([left, top, wide]);
    c.fillStyle = candidate === best ? pens.accent : pens.surface;
    c.fillRect(left, top, wide, high);
    c.fillStyle = candidate === best ? pens.surface : pens.ink;
    c.fillText(label, left + wide / 2, top + high / 2);
  }
}

/** Say all of the cell that is pointed at. */
function describe(commits) {
  if (spot === null) { $("detail").textContent = "Point at a cell to read its token."; return; }
  const [row, column] = rowColumn(spot), commit = commits[spot], position = now.slots[spot];
  const facts = [`Row ${row}, column ${column} (position ${position})`];
  if (!commit) facts.push("masked");
  else {
    facts.push(`token ${commit.text}`, `step ${now.frames[commit.frame - 1].s + 1} (${commit.kind})`, `entropy ${decimals(commit.entropy, 3)} nats`);
    if (commit.confidence !== null) facts.push(`confidence ${decimals(commit.confidence, 3)}`);
    if (commit.text !== now.final[spot]) facts.push(now.final[spot] === null ? "masked in the end" : `token ${now.final[spot]} in the end`);
  }
  const weighed = candidates().filter(([positions]) => positions.includes(position));
  if (weighed.length) facts.push(`weighed next: J ${weighed.slice(0, 3).map((candidate) => decimals(candidate[1], 4)).join(", ")}`);
  $("detail").textContent = facts.join(" · ");
}

/** Point at a candidate, or at none. */
function hold(candidate) {
  held = candidate;
  for (const row of document.querySelectorAll("#weighed tr[tabindex]")) row.classList.toggle("held", row.candidate === candidate);
  drawBoards();
}

/** Point at a cell, and so at the best candidate that it is in; or at none. */
function point(cell) {
  spot = cell;
  hold(cell === null ? null : candidates().find(([positions]) => positions.includes(now.slots[cell])) || null);
}

/** Arrow keys that move something else than the step. */
function arrows(element, move) {
  element.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") element.blur();
    if (!to || event.ctrlKey || event.metaKey || event.altKey || !move(...to)) return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function wireCandidate(row, candidate) {
  row.candidate = candidate;
  row.tabIndex = row.previousSibling.candidate ? -1 : 0;
  row.title = candidate[0].map((p) => places([p])).join(", ");
  for (const [event, what] of [["pointerenter", candidate], ["focus", candidate], ["pointerleave", null], ["blur", null]]) row.addEventListener(event, () => hold(what));
  arrows(row, (down) => {
    const next = down > 0 ? row.nextSibling : row.previousSibling;
    if (down && next && next.candidate) next.focus();
    return down !== 0;
  });
}

function wireBoards() {
  for (const id of ["patches", "map"]) {
    const board = $(id);
    const over = (event) => {
      const [rows, columns] = now.grid, inside = (share, cells) => Math.min(cells - 1, Math.max(0, Math.floor(share * cells)));
      const cell = inside(event.offsetY / board.clientHeight, rows) * columns + inside(event.offsetX / board.clientWidth, columns);
      if (cell !== spot) point(cell);
    };
    board.addEventListener("pointermove", over);
    board.addEventListener("pointerdown", over);
    board.addEventListener("pointerleave", () => { if (document.activeElement !== board) point(null); });
    board.addEventListener("focus", () => { if (spot === null) point(0); });
    board.addEventListener("blur", () => point(null));
    arrows(board, (down, right) => {
      const [rows, columns] = now.grid, at = spot ?? 0, row = Math.floor(at / columns) + down, column = (at % columns) + right;
      if (row >= 0 && row < rows && column >= 0 && column < columns) point(row * columns + column);
      return true;
    });
  }
}

/** The examples' pictures as buttons, where there are any. */
function buildStrip() {
  const strip = $("strip");
  if (strip.variant !== view.variant) {
    strip.variant = view.variant;
    const pictures = data.samples.map((sample) => (sample.variants[view.variant] || {}).image);
    strip.replaceChildren(...(pictures.some(Boolean) && data.samples.length > 1 ? pictures.map(thumbnail) : []));
  }
  [...strip.children].forEach((button, i) => button.setAttribute("aria-current", i === view.sample));
}

function thumbnail(image, i) {
  const button = make("button"), id = data.samples[i].id, shows = make(image && image.uri ? "img" : "span");
  if (image && image.uri) {
    shows.src = image.uri;
    shows.alt = id;
  } else shows.textContent = id;
  button.title = id;
  button.append(shows);
  button.addEventListener("click", () => pick(i - view.sample));
  return button;
}
