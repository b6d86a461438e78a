// An app in JavaScript with dualtune-edge as its sidecar: start it, wait for its ready line, ask, stop it.
//
// node sidecar.mjs BUNDLE SOCKET TOOL TEXT     prints the tool call
//
// The sidecar ends with this process, also when it is killed: the pipe that is its stdin closes then.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { createInterface } from "node:readline";

// The sidecar's process and its ready line. Its log is read to the end, or it would stand still.
async function start(bundle, socket) {
  const options = ["serve", bundle, "--socket", socket, "--until-stdin-closes"];
  const sidecar = spawn("dualtune-edge", options, { stdio: ["pipe", "ignore", "pipe"] });
  const ready = await new Promise((resolve, reject) => {
    sidecar.on("error", reject);
    sidecar.on("exit", (code) => reject(new Error(`the sidecar ended with ${code}`)));
    createInterface({ input: sidecar.stderr }).on("line", (line) => {
      const event = line.startsWith("{") ? JSON.parse(line) : { event: "warning", text: line };
      if (event.event === "ready") resolve(event);
      else if (event.event === "warning") console.error(event.text);
    });
  });
  return { sidecar, ready };
}

async function post(socketPath, path, value) {
  const headers = { "Content-Type": "application/json" };
  const asked = request({ socketPath, path, method: "POST", headers });
  asked.end(JSON.stringify(value));
  const [response] = await once(asked, "response");
  let text = "";
  for await (const part of response.setEncoding("utf8")) text += part;
  const body = JSON.parse(text);
  if (response.statusCode !== 200) throw new Error(body.error.message);
  return body;
}

const [bundle, socket, tool, text] = process.argv.slice(2);
const { sidecar, ready } = await start(bundle, socket);
const answer = await post(socket, "/v1/chat/completions", {
  model: ready.model,
  messages: [{ role: "user", content: text }],
  tools: [{ type: "function", function: { name: tool } }],
  tool_choice: "required",
});
console.log(JSON.stringify(answer.choices[0].message.tool_calls[0].function));

sidecar.removeAllListeners("exit");
sidecar.stdin.end(); // a clean stop
const [code] = await once(sidecar, "exit");
process.exitCode = code;
