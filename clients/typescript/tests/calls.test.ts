import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { context, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { SessionInfoSchema } from "../src/gen/samovar/v1/session_pb.js";
import { Client, SamovarError } from "../src/index.js";
import { all, finished, playing, Script, started } from "./scripted.js";

const info = create(SessionInfoSchema, {
  sessionId: "s",
  state: 99 as number,
  spec: { profile: "p", model: "m" },
  turnCount: 3n,
  createTime: timestampFromMs(1500),
});

test("a session has the spec it was made with, and times in seconds", async () => {
  const more = { getSession: () => ({ session: info }) };
  await playing(
    new Script(),
    async (client) => {
      const session = await client.session("s").get();
      const { sessionId, state, profile, model, turnCount, createTime, updateTime } = session;
      assert.deepEqual(
        [sessionId, state, profile, model, turnCount, createTime, updateTime],
        ["s", "unknown_99", "p", "m", 3, 1.5, null],
      );
    },
    { more },
  );
});

test("sessions and what was used are listed", async () => {
  const more = {
    listSessions: ({ pageToken }: { pageToken: string }) => ({
      sessions: [info],
      nextPageToken: pageToken === "" ? "1" : "",
    }),
    getUsage: ({ firstDay, lastDay }: { firstDay: string; lastDay: string }) => ({
      days: [{ day: firstDay, model: lastDay, turns: 2n, usage: { costUsd: 0.5 } }],
    }),
  };
  await playing(
    new Script(),
    async (client) => {
      assert.equal((await all(client.listSessions())).length, 2);
      const [used] = await client.usage({ firstDay: "2026-11-30", lastDay: "2026-12-01" });
      assert.deepEqual([used?.day, used?.model, used?.turns], ["2026-11-30", "2026-12-01", 2]);
      assert.deepEqual([used?.usage.costUsd, used?.lostUsage.inputTokens], [0.5, 0]);
    },
    { more },
  );
});

test("turns of a session have its options, unless they set their own", async () => {
  const step = [started, finished("", 2)];
  const script = new Script(step, step);
  await playing(script, async (client) => {
    const session = client.session("s", { model: "haiku", keepRunning: true });
    await session.ask("Hi");
    await session.ask("Hi", { model: "sonnet" });
    assert.equal(session.name, "s");
  });
  const [first, second] = script.requests as { sessionId: string; spec?: { model: string } }[];
  assert.deepEqual([first?.sessionId, first?.spec?.model], ["s", "haiku"]);
  assert.equal(second?.spec?.model, "sonnet");
});

test("the trace of a call is that of the active span, or what the program says", async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager());
  const span = {
    traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
    spanId: "00f067aa0ba902b7",
    traceFlags: 1,
  };
  const active = trace.setSpanContext(ROOT_CONTEXT, span);
  const script = new Script(...Array(3).fill([started, finished("", 2)]));
  await playing(script, async (client, target) => {
    await context.with(active, () => client.ask("Hi"));
    await client.ask("Hi");
    const own = new Client(target, { traceparent: () => "00-own" });
    await own.ask("Hi");
    own.close();
  });
  assert.deepEqual(
    script.headers.map((headers) => headers.get("traceparent")),
    [`00-${span.traceId}-${span.spanId}-01`, null, "00-own"],
  );
});

test("what no header can hold is refused", () => {
  const client = new Client();
  assert.throws(() => client.send("Hi", { session: "самовар" }), { kind: "request_invalid" });
  assert.throws(() => new Client("localhost:1", { credential: "a\nb" }), {
    kind: "invalid_argument",
  });
  client.close();
});

test("what is too large, or no certificate, is refused", async () => {
  const client = new Client();
  const updatedInput = { text: "x".repeat(8 * 2 ** 20) };
  await assert.rejects(client.allow("p", { updatedInput }), { kind: "request_invalid" });
  client.close();
  for (const tls of [{ certificate: "a" }, { key: "a" }, { certificate: "a", key: "b" }]) {
    assert.throws(() => new Client("localhost:1", { tls }), { kind: "invalid_argument" });
  }
});

test("targets are host:port and sockets, and a credential stays here without TLS", () => {
  for (const target of ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/a", "dns:///localhost:1"]) {
    new Client(target, { credential: "key" }).close();
  }
  new Client("a.test:1", { credential: "key", tls: {} }).close();
  for (const target of ["a.test:1", "10.1.2.3:1", "127.0.0.1.a.test:1", "dns:///a.test:1"]) {
    assert.throws(() => new Client(target, { credential: "key" }), SamovarError);
  }
  for (const target of ["", "a.test", "http://a.test:1", "a:b", "a@b:1", "unix:"]) {
    assert.throws(() => new Client(target), { kind: "invalid_argument" });
  }
});
