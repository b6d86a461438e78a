"use strict";
// One conversation with /v1/agent. Texts of tools and models are only ever set as text, never as HTML.

const conversation = document.getElementById("conversation");
const form = document.getElementById("ask");
const task = document.getElementById("task");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
const messages = [];
let schemas = {};
let run = null;

const element = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
const reveal = (node) => node.scrollIntoView({ block: "nearest" });

function bar(name, share, chosen) {
  const row = element("div", chosen ? "choice chosen" : "choice");
  const track = element("div", "track");
  const fill = element("div");
  fill.style.width = percent(share);
  track.append(fill);
  row.append(element("span", "name", name), track, element("span", "share", percent(share)));
  return row;
}

function describe(schema) {
  if (schema === undefined) return "";
  const { description, title, ...rest } = schema;
  return [description, JSON.stringify(rest)].filter(Boolean).join(" · ");
}

class Turn {
  constructor() {
    this.spans = [];
    this.began = performance.now();
    this.mark = this.began;
    this.step = null;
    this.answer = null;
  }

  span(name) {
    const now = performance.now();
    this.spans.push({ name, from: this.mark - this.began, to: now - this.began });
    this.mark = now;
  }

  toolset(event) {
    const node = document.getElementById("step").content.cloneNode(true).firstElementChild;
    this.step = node;
    this.toolsetName = event.toolset;
    node.querySelector("h2").textContent = `Step ${event.step}`;
    if (event.probability !== null)
      node.querySelector(".choices").append(bar(`toolset ${event.toolset}`, event.probability, true));
    conversation.append(node);
  }

  tool(event) {
    const choices = this.step.querySelector(".choices");
    choices.append(bar(event.tool ?? "no tool", event.probability, true));
    for (const other of event.alternatives) choices.append(bar(other.tool, other.probability, false));
    this.span(event.tool ? `decide: ${event.tool}` : "decide: no tool");
    reveal(this.step);
  }

  arguments(event) {
    const table = this.step.querySelector(".arguments");
    const properties = schemas[event.toolset]?.[event.tool]?.properties ?? {};
    for (const [name, value] of Object.entries(event.arguments)) {
      const row = element("tr");
      const head = element("th", "", name);
      head.scope = "row";
      row.append(head, element("td", "", JSON.stringify(value)), element("td", "schema", describe(properties[name])));
      table.tBodies[0].append(row);
    }
    table.hidden = Object.keys(event.arguments).length === 0;
    messages.push({
      role: "assistant",
      tool_calls: [{ id: `call_${messages.length}`, type: "function", function: { name: event.tool, arguments: JSON.stringify(event.arguments) } }],
    });
  }

  approval(event) {
    const box = this.step.querySelector(".approval");
    box.hidden = false;
    box.replaceChildren();
    if (event.decision !== "ask") {
      this.span("approval");
      box.append(element("p", "", `${event.decision === "allow" ? "Allowed" : "Denied"}: ${event.reason}`));
      return;
    }
    box.append(element("p", "", `May ${event.toolset}.${event.tool} be called with these arguments?`));
    const replies = { once: "Allow", tool: "Always allow this tool", server: "Always allow this server", no: "Deny", never: "Never allow this tool" };
    for (const [reply, text] of Object.entries(replies)) {
      const button = element("button", reply === "once" ? "" : "plain", text);
      button.type = "button";
      button.addEventListener("click", async () => {
        for (const other of box.querySelectorAll("button")) other.disabled = true;
        await fetch(`v1/agent/${run}/approvals`, { method: "POST", body: JSON.stringify({ reply }) });
      });
      box.append(button);
    }
    box.focus(); // not a button: a key that was meant for the text must not allow a call
    reveal(box);
  }

  result(event) {
    const details = this.step.querySelector(".result");
    details.hidden = false;
    details.classList.toggle("failed", event.error);
    const count = event.text.split("\n").length;
    const lines = count === 1 ? "1 line" : `${count} lines`;
    const left = event.shortened ? `, ${event.shortened} characters left out` : "";
    details.querySelector("summary").textContent = `${event.error ? "Error" : "Result"}: ${lines}${left}`;
    details.querySelector("pre").textContent = event.text;
    this.span(`run: ${event.tool}`);
    messages.push({ role: "tool", content: event.text, tool_call_id: messages.at(-1).tool_calls[0].id });
  }

  text(event) {
    if (!this.answer) {
      this.answer = element("p", "said assistant", "");
      conversation.append(this.answer);
    }
    this.answer.textContent += event.text;
    reveal(this.answer);
  }

  done(event) {
    if (event.outcome === "answered") {
      this.span("answer");
      messages.push({ role: "assistant", content: event.answer });
    } else {
      conversation.append(element("p", "note failed", `${event.outcome}: ${event.reason}`));
    }
    this.waterfall();
  }

  waterfall() {
    const node = document.getElementById("waterfall").content.cloneNode(true).firstElementChild;
    const whole = Math.max(1, performance.now() - this.began);
    for (const { name, from, to } of this.spans) {
      const row = element("li");
      const track = element("div", "track");
      const fill = element("div");
      fill.style.marginLeft = percent(from / whole);
      fill.style.width = percent((to - from) / whole);
      track.append(fill);
      row.append(element("span", "name", name), track, element("span", "time", `${Math.round(to - from)} ms`));
      node.querySelector("ol").append(row);
    }
    conversation.append(node);
    reveal(node);
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const [kind, data] = part.split("\n");
      yield [kind.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
    }
  }
}

async function work(text) {
  const before = messages.length;
  messages.push({ role: "user", content: text });
  conversation.append(element("p", "said user", text));
  send.disabled = true;
  stop.disabled = false;
  try {
    const response = await fetch("v1/agent", { method: "POST", body: JSON.stringify({ messages }) });
    if (!response.ok) throw new Error((await response.json()).error.message);
    const turn = new Turn();
    for await (const [kind, event] of events(response)) {
      if (kind === "run") run = event.run;
      else turn[kind](event);
    }
  } catch (error) {
    messages.length = before;
    conversation.append(element("p", "note failed", String(error.message ?? error)));
  } finally {
    run = null;
    send.disabled = false;
    stop.disabled = true;
    task.focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = task.value.trim();
  if (!text || send.disabled) return;
  task.value = "";
  work(text);
});

task.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

stop.addEventListener("click", () => run && fetch(`v1/agent/${run}`, { method: "DELETE" }));

(async () => {
  const bundle = await (await fetch("v1/toolsets")).json();
  document.getElementById("model").textContent = `${bundle.model} · ${bundle.toolsets.map((toolset) => toolset.name).join(", ")}`;
  for (const toolset of bundle.toolsets)
    schemas[toolset.name] = Object.fromEntries(toolset.tools.map((tool) => [tool.name, tool.parameters]));
})();
