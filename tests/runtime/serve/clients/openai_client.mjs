// OpenAI's package of npm, unchanged, against the server at URL: what it got, as JSON.
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const hello = [{ role: "user", content: "hello" }];
const parameters = {
  type: "object",
  properties: { path: { type: "string", maxLength: 8 }, lines: { type: "integer", maximum: 99 } },
  required: ["path"],
};
const read = { type: "function", function: { name: "read", description: "Read a file", parameters } };
const sort = { type: "function", function: { name: "sort" } };
const create = (settings) => client.chat.completions.create({ model, messages: hello, ...settings });

async function turns() {
  const messages = [...hello];
  for (let turn = 0; turn < 4; turn += 1) {
    const { message, finish_reason: reason } = (await create({ messages, tools: [read, sort] })).choices[0];
    messages.push(message);
    if (reason !== "tool_calls") return messages;
    for (const call of message.tool_calls) {
      const { path } = JSON.parse(call.function.arguments);
      messages.push({ role: "tool", tool_call_id: call.id, content: `the lines of ${path}` });
    }
  }
  return messages;
}

async function streamed() {
  const stream = client.chat.completions.stream({
    model, messages: hello, tools: [sort], stream_options: { include_usage: true },
  });
  const events = [];
  stream.on("content", () => events.push("content")).on("tool_calls.function.arguments.done", () => events.push("call"));
  const completion = await stream.finalChatCompletion();
  return { events, choice: completion.choices[0], usage: completion.usage };
}

async function text() {
  let whole = "";
  for await (const chunk of await create({ stream: true })) whole += chunk.choices[0]?.delta?.content ?? "";
  return whole;
}

async function refused(settings) {
  try {
    await create(settings);
    return null;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, param: error.param, code: error.code };
  }
}

const named = { type: "function", function: { name: "sort" } };
const choices = {};
for (const choice of ["auto", "none", "required", named]) {
  const { message } = (await create({ tools: [read, sort], tool_choice: choice })).choices[0];
  choices[choice.type ?? choice] = message.tool_calls?.[0].function.name ?? message.content;
}
const models = [];
for await (const entry of client.models.list()) models.push(entry.id);
const errors = [
  await refused({ n: 2 }),
  await refused({ model: "gpt" }),
  await refused({ tools: [{ type: "function", function: { name: "rm" } }] }),
  await refused({ messages: [{ role: "wizard", content: "x" }] }),
  await refused({ messages: [{ role: "user", content: "fail" }], stream: true }),
];
console.log(JSON.stringify({ models, turns: await turns(), streamed: await streamed(), text: await text(), choices, errors }));
