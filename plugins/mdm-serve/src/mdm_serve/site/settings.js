// The settings of a pane: fields made from what the server says of itself, and the part of a request that they are.
import { make } from "./canvas.js";

const GENERAL = [
  ["max_tokens", "max tokens", "Tokens to generate"],
  ["steps", "steps", "Steps of the whole generation, split over its blocks"],
  ["block_length", "block length", "Tokens decoded together, block after block"],
  ["temperature", "temperature", "0 takes the most probable token"],
  ["seed", "seed", "Of the random draws"],
];
const MENUS = ["sampler", "cache"];
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
let forms = 0;

/** What was typed, as a number, truth value or list where it is one. What it should be is for the server to say. */
function typed(text) {
  try {
    const value = JSON.parse(text);
    return Number.isInteger(value) && !Number.isSafeInteger(value) ? text : value; // it would come out as another number
  } catch {
    return text;
  }
}

export class Settings {
  fields = new Map(); // key in the request -> its input or menu
  options = new Map(); // option of the chosen sampler -> its input or menu

  constructor(box, about) {
    this.about = about;
    this.prefix = `settings${forms++}-`;
    if (about.presets.length) {
      this.preset = this.field(box, "preset", "preset", "Settings to begin from", this.menu(about.presets, "none"));
      this.preset.addEventListener("change", () => this.fill(this.preset.value));
    }
    if (about.diffusion) {
      for (const [key, list, help] of [["sampler", about.samplers, "What is committed when"], ["cache", about.caches, "Which keys and values are stored"]]) {
        const menu = this.menu(list, about.defaults[key] ? `${about.defaults[key]} (default)` : "default");
        this.fields.set(key, this.field(box, key, key, help, menu));
      }
    }
    for (const [key, label, help] of GENERAL) {
      if (!about.diffusion && ["steps", "block_length"].includes(key)) continue;
      this.fields.set(key, this.field(box, key, label, help, this.input(about.defaults[key])));
    }
    this.more = make("fieldset", undefined, "options");
    box.append(this.more);
    this.further = this.field(box, "further", "further settings, as JSON", "Any other field of a request", make("textarea"));
    this.further.rows = 1;
    this.further.placeholder = '{"top_p": 0.9, "stop": ["\\n\\n"]}';
    this.further.spellcheck = false;
    this.further.parentElement.classList.add("wide");
    if (about.diffusion) this.fields.get("sampler").addEventListener("change", () => this.showOptions());
    this.showOptions();
  }

  field(box, key, label, help, input) {
    const row = make("p"), name = make("label", label);
    input.id = this.prefix + key;
    input.title = help;
    name.htmlFor = input.id;
    name.title = help;
    row.append(name, input);
    box.append(row);
    return input;
  }

  input(value) {
    const input = make("input");
    input.placeholder = value === null || value === undefined ? "auto" : shown(value);
    input.spellcheck = false;
    input.autocomplete = "off";
    return input;
  }

  /** A menu of what has a name and a help, with an empty choice before it. */
  menu(list, none) {
    const menu = make("select"), empty = make("option", none);
    empty.value = "";
    menu.append(empty);
    for (const { name, help } of list) {
      const option = make("option", name);
      option.title = help || "";
      menu.append(option);
    }
    return menu;
  }

  get sampler() {
    const menu = this.fields.get("sampler");
    return (menu && menu.value) || this.about.defaults.sampler;
  }

  /** Fields for the options of the chosen sampler. */
  showOptions() {
    this.options.clear();
    this.more.replaceChildren();
    const sampler = this.about.samplers.find(({ name }) => name === this.sampler);
    this.more.hidden = !sampler || !sampler.options.length;
    if (!sampler) return;
    this.more.append(make("legend", `options of ${sampler.name}`));
    const defaults = this.fields.get("sampler").value ? {} : this.about.defaults.sampler_options || {};
    for (const { name, default: value, help, choices, type } of sampler.options) {
      const preset = name in defaults ? defaults[name] : value;
      const list = choices && choices.map((choice) => ({ name: shown(choice) }));
      const input = list ? this.menu(list, `${shown(preset)} (default)`) : this.input(preset);
      this.options.set(name, this.field(this.more, `option-${name}`, name.replaceAll("_", " "), `${help} (${type})`, input));
    }
  }

  /** Fill in what a preset sets. What has no field of its own is written as further settings. */
  fill(name) {
    const preset = this.about.presets.find((one) => one.name === name);
    const rest = { ...(preset ? preset.settings : {}) };
    for (const [key, input] of this.fields) {
      input.value = rest[key] === undefined || rest[key] === null ? "" : shown(rest[key]);
      if (rest[key] === undefined || input.value !== "" || rest[key] === null) delete rest[key];
    }
    this.showOptions();
    for (const [option, input] of this.options) {
      const value = (rest.sampler_options || {})[option];
      if (value !== undefined && value !== null) input.value = shown(value);
    }
    delete rest.sampler_options;
    this.further.value = Object.keys(rest).length ? JSON.stringify(rest) : "";
  }

  /** The part of a request's body that they are: what was set, and nothing else. Throws where it is no JSON. */
  body() {
    const body = {};
    for (const [key, input] of this.fields) {
      const text = input.value.trim();
      if (text) body[key] = MENUS.includes(key) ? text : typed(text);
    }
    const options = [...this.options].filter(([, input]) => input.value.trim()).map(([name, input]) => [name, typed(input.value.trim())]);
    if (options.length) body.sampler_options = Object.fromEntries(options);
    const further = this.further.value.trim() && typed(this.further.value);
    if (further && (typeof further !== "object" || Array.isArray(further))) {
      throw new Error('Further settings are not a JSON object such as {"top_p": 0.9}.');
    }
    return { ...body, ...further };
  }

  /** They in a few words. */
  summary() {
    const set = [...this.fields].filter(([key, input]) => key !== "sampler" && input.value.trim());
    const words = set.map(([key, input]) => `${key.replaceAll("_", " ")} ${input.value.trim()}`);
    for (const [name, input] of this.options) if (input.value.trim()) words.push(`${name.replaceAll("_", " ")} ${input.value.trim()}`);
    if (this.further.value.trim()) words.push("further settings");
    return [this.sampler, ...words].filter(Boolean).join(", ");
  }
}
