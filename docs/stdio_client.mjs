// A client of `ltm-edge stdio` for Node 18 and newer: starts the program, streams an answer, asks the memory.
// Usage: node stdio_client.mjs PROGRAM [ARGUMENT ...] -- REQUEST     (PROGRAM such as: ltm-edge stdio)
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

class LtmEdge {
  #next = 1;
  #waiting = new Map();

  constructor(program, args) {
    this.process = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    createInterface({ input: this.process.stdout }).on("line", (line) => this.#take(JSON.parse(line)));
    this.process.on("exit", (code) => this.#waiting.forEach(({ reject }) => reject(new Error(`ended: ${code}`))));
  }

  #take({ id, method, params, result, error }) {
    if (method === "token") return this.#waiting.get(params.request)?.onToken?.(params.text);
    if (method === "notice") return console.error(params.text);
    if (method === "event" && params.document) return console.log(`\n(in its place)\n${params.document}`);
    if (method) return; // a notification of a newer program
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    return error ? reject(Object.assign(new Error(error.message), error)) : resolve(result);
  }

  call(method, params = {}, onToken = undefined) {
    const id = this.#next++;
    this.process.stdin.write(JSON.stringify({ jsonrpc: "2.0", id, method, params }) + "\n");
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject, onToken }));
  }
}

const split = process.argv.lastIndexOf("--");
const [program, ...args] = process.argv.slice(2, split);
const ltm = new LtmEdge(program, args);
const { session, model } = await ltm.call("open", { memory: "default", settings: { seed: 1 } });
console.log(`${session}: ${model.name}`);
const reply = await ltm.call("send", { session, text: process.argv[split + 1] }, (text) => process.stdout.write(text));
console.log(`\n${reply.scene?.archetype ?? "partial"}: ${reply.text}`);
const { scenes } = await ltm.call("recall", { session, text: process.argv[split + 1], k: 3 });
console.log(`${scenes.length} scenes in memory fit`);
await ltm.call("send", { session, text: " " }).catch((error) => console.log(`${error.code} ${error.data.type}`));
await ltm.call("shutdown");
