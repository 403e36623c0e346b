// One decode as it is known so far: frames, one for each step. Frame f is the canvas after f steps.

/** What a trace line does to its positions, and by how many tokens more are on the canvas after it, for each of them. */
export const KINDS = {
  commit: ["a mask gets a token", 1],
  bypass: ["a mask gets a token that needed no lookahead", 1],
  edit: ["another token replaces one that stood there", 0],
  remask: ["a token is masked again", -1],
  fill: ["an end token, behind another one", 1],
};
const PAID = ["commit", "bypass"]; // these add to the cumulative entropy

const NOTHING = { step: -1, changes: [], weighed: [], tokens: 0, entropy: 0, forwards: 0, rows: 0, candidates: 0, seconds: 0 };

export class Decoding {
  texts = []; // the canvas before the first step; null where masked
  prompt = 0; // tokens of the prompt
  frames = [NOTHING]; // with totals up to each; `at` has a step's own costs
  history = []; // position -> its changes, oldest first
  most = 0; // nats, the largest entropy of a commit

  get length() {
    return this.frames.length - 1;
  }

  begin({ texts, prompt_tokens: prompt }) {
    this.texts = texts;
    this.prompt = prompt;
    this.history = texts.map(() => []);
  }

  /** Add trace lines, which came so many seconds after the beginning. Those of one step are one frame. */
  add(lines, seconds) {
    for (const line of lines) {
      let frame = this.frames.at(-1);
      if (line.step !== frame.step) {
        frame = { ...frame, step: line.step, changes: [], weighed: [], at: { forwards: 0, rows: 0 } };
        this.frames.push(frame);
      }
      frame.seconds = seconds;
      frame.weighed.push(...(line.weighed || []));
      for (const cost of ["forwards", "rows"]) {
        frame.at[cost] += line[cost] || 0;
        frame[cost] += line[cost] || 0;
      }
      frame.tokens += KINDS[line.kind][1] * line.positions.length;
      line.positions.forEach((position, i) => this.change(frame, {
        position, frame: this.length, kind: line.kind, text: line.kind === "remask" ? null : line.texts[i],
        entropy: line.entropy[i], confidence: line.confidence ? line.confidence[i] : null,
      }));
    }
  }

  change(frame, change) {
    while (this.texts.length <= change.position) { // a grid's last block may reach beyond what was asked for
      this.texts.push(null);
      this.history.push([]);
    }
    frame.changes.push(change);
    this.history[change.position].push(change);
    if (PAID.includes(change.kind)) {
      frame.entropy += change.entropy;
      this.most = Math.max(this.most, change.entropy);
    }
  }

  /** What was last done to a position at a frame, a masking too; undefined where nothing was. */
  latest(position, frame) {
    return this.history[position].findLast((change) => change.frame <= frame);
  }

  /** The text of a position at a frame; null where it is masked. */
  text(position, frame) {
    const change = this.latest(position, frame);
    return change ? change.text : this.texts[position];
  }
}
