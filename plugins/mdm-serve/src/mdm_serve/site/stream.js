// The server's answers: what it can do, and what it decodes, as it comes.

/** An answer that is an error, in the server's own words. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const BROKEN = "The server's answer broke off before its end.";

function headers(key) {
  if (!key) return {};
  if (/[^ -~]/.test(key)) throw new Refusal("A key is made of plain letters, digits and signs.", 401); // no header holds others
  return { Authorization: `Bearer ${key}` };
}

/** The words of an answer that is not a success. */
async function refused(answer) {
  const text = await answer.text();
  let message;
  try {
    const parsed = JSON.parse(text);
    message = (parsed.error && parsed.error.message) || parsed.detail || parsed.message;
  } catch {
    message = text.trim().slice(0, 300);
  }
  return new Refusal(`${typeof message === "string" && message ? message : answer.statusText} (${answer.status})`, answer.status);
}

/** An answer of the server, or a Refusal. */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error instanceof TypeError ? new Refusal("The server cannot be reached.") : error;
  }
  if (!answer.ok) throw await refused(answer);
  return answer;
}

/** What the server serves, and the names of all that a request may ask for. */
export async function describe(key) {
  return (await ask("mdm/describe", { headers: headers(key) })).json();
}

/** The events of a stream of server-sent events, as {event, data}; data is what was sent, a text. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", event = "", data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw error instanceof TypeError ? new Refusal(BROKEN) : error;
      });
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        const [, field, text] = line.match(/^([^:]*):? ?(.*)$/s);
        if (field === "event") event = text;
        if (field === "data") data.push(text);
        if (line !== "") continue;
        if (data.length) yield { event: event || "message", data: data.join("\n") };
        event = "";
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // of a stream that has failed there is nothing to cancel
  }
}

/**
 * Ask for a decode and tell what comes of it: heard[event](object) for each event, ordinary chunks under "message".
 * Resolves when the server says that it is done; throws a Refusal, or an AbortError where `signal` says so.
 */
export async function decode(path, body, key, signal, heard) {
  const answer = await ask(path, {
    method: "POST", signal, headers: { "Content-Type": "application/json", ...headers(key) }, body: JSON.stringify(body),
  });
  for await (const { event, data } of events(answer.body)) {
    if (data === "[DONE]") return;
    const said = JSON.parse(data);
    if (said.error) throw new Refusal(said.error.message || "the server failed", said.error.code);
    if (heard[event]) heard[event](said);
  }
  throw new Refusal(BROKEN);
}
