// The TypeScript client behind the lines of clients/conformance.md, each call on its own.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { context, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { Client, SamovarError, type Turn } from "../src/index.js";

// biome-ignore lint/suspicious/noExplicitAny: a line has what its call needs
type Line = Record<string, any>;

/** The names of results that are a single value. */
const SINGLE: Line = {
  interrupt: "was_running",
  close_session: "existed",
  health: "status",
  list_sessions: "sessions",
  count: "running",
};
const clients: Record<string, Client> = {};
const calls: Record<number, Call> = {};

const camel = (word: string) => word.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const named = (words: Line, name: (word: string) => string) =>
  Object.fromEntries(Object.entries(words).map(([word, value]) => [name(word), value]));

/** Return a value of the client as JSON has it. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64") || null;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const [fields, name] =
    value instanceof Map ? [[...value], String] : [Object.entries(value), snake];
  return Object.fromEntries(fields.map(([key, each]) => [name(key), plain(each)]));
}

function blockOf({ text, times = 1, ...file }: Line): unknown {
  const kind = "image" in file ? "image" : "document";
  return text?.repeat(times) ?? { ...named(file, camel), [kind]: readFileSync(file[kind]) };
}

function decisionOf(permissions: Line): unknown {
  const allow = permissions.allow && { allow: true, ...named(permissions.allow, camel) };
  return allow ?? (permissions.deny ? { allow: false, ...permissions.deny } : permissions);
}

class Call {
  static open = 0;
  readonly id: number;
  readonly left = new AbortController();
  readonly over: Promise<void>;
  go = () => {};
  readonly #gone = new Promise<void>((resolve) => {
    this.go = resolve;
  });

  constructor(line: Line) {
    this.id = line.id;
    const [, traceId = "", spanId = "", flags = ""] = line.traceparent?.split("-") ?? [];
    const span = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) };
    const active = traceId ? trace.setSpanContext(ROOT_CONTEXT, span) : ROOT_CONTEXT;
    this.over = context.with(active, () => this.#answer(line));
  }

  async #answer(line: Line): Promise<void> {
    Call.open += 1;
    try {
      const done = await this.#run(line);
      this.#say({ done: line.call in SINGLE ? { [SINGLE[line.call]]: done } : (done ?? {}) });
    } catch (error) {
      if (error instanceof SamovarError) {
        const { name, failure, ...fields } = error;
        this.#say({ failed: { ...fields, message: error.message, ...failure } });
      } else if (error === this.left.signal.reason) {
        this.#say({ done: {} });
      } else {
        throw error;
      }
    } finally {
      Call.open -= 1;
    }
  }

  async #run({ call, client, of, options, permissions, ...line }: Line): Promise<unknown> {
    const words: Line = { ...named({ ...line, ...options }, camel), signal: this.left.signal };
    words.content = words.content?.map(blockOf);
    if (permissions !== undefined) words.onPermission = () => decisionOf(permissions);
    switch (call) {
      case "open": {
        const files = (path: string, name: string) =>
          name === "server_name" ? path : readFileSync(path);
        const given = Object.entries((line.tls ?? {}) as Line);
        const tls = Object.fromEntries(
          given.map(([name, path]) => [camel(name), files(path, name)]),
        );
        clients[client] = new Client(line.target, { ...line, ...(line.tls && { tls }) });
        return {};
      }
      case "leave":
        calls[of]?.left.abort();
        return await calls[of]?.over;
      case "go_on":
        return calls[of]?.go();
      case "count":
        return Call.open + process.getActiveResourcesInfo().length;
    }
    const { content, permissionId, turnId, service, session } = words;
    const given = [content ?? permissionId ?? turnId ?? service ?? session];
    const method = (clients as Line)[client][camel(call)].bind(clients[client]);
    const made = method(...(/^(get|list)/.test(call) ? [] : given), words);
    return call === "send" || call === "attach" ? await this.#follow(made, line) : await all(made);
  }

  async #follow(turn: Turn, line: Line): Promise<void> {
    let seen = 0;
    for await (const event of turn) {
      this.#say({ event });
      seen += 1;
      if (seen === line.leave_after) break;
      if (seen === line.hold_after) {
        this.#say({ held: true });
        await this.#gone;
      }
    }
  }

  #say(what: Line): void {
    process.stdout.write(`${JSON.stringify({ id: this.id, ...(plain(what) as Line) })}\n`);
  }
}

/** Return a result, a list of all if it is an iterator. */
async function all(result: unknown): Promise<unknown> {
  if (!(result as AsyncIterable<unknown>)?.[Symbol.asyncIterator]) return await result;
  const found = [];
  for await (const each of result as AsyncIterable<unknown>) found.push(each);
  return found;
}

context.setGlobalContextManager(new AsyncLocalStorageContextManager());
for await (const text of createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  calls[line.id] = new Call(line);
}
for (const client of Object.values(clients)) {
  client.close();
}
