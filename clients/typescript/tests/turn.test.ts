import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { SamovarError } from "../src/index.js";
import { all, finished, playing, Script, said, started } from "./scripted.js";

const asked = {
  sequence: 2n,
  kind: { case: "permissionRequested", value: { permissionId: "p", toolName: "Write" } },
} as const;
const kind = (kind: string) => (error: unknown) =>
  error instanceof SamovarError && error.kind === kind;

test("a turn is read for its text, its answer and its events", async () => {
  const step = [started, said("he"), said("llo", 3), finished("hello", 4)];
  await playing(new Script(step, step, step), async (client) => {
    assert.equal(await client.send("Hi").text(), "hello");
    const answer = await client.send("Hi").answer();
    assert.equal(answer.outcome, "completed");
    assert.equal(answer.usage.outputTokens, 0);
    const events = await all(client.send("Hi"));
    assert.deepEqual(
      events.map((event) => event.kind),
      ["turn_started", "text_delta", "text_delta", "turn_finished"],
    );
  });
});

test("text that was cut from the result, or abandoned, comes from the deltas", async () => {
  const abandoned = {
    sequence: 3n,
    kind: { case: "blocksAbandoned", value: { messageId: "m", fromBlockIndex: 0 } },
  } as const;
  const again = {
    sequence: 4n,
    kind: { case: "textDelta", value: { messageId: "n", text: "new" } },
  } as const;
  const script = new Script([started, said("old"), abandoned, again, finished("", 5)]);
  await playing(script, async (client) => {
    assert.equal(await client.send("Hi").text(), "new");
  });
});

test("nothing is called before a turn is read, and it can be read once", async () => {
  const script = new Script([started, finished("x", 2)]);
  await playing(script, async (client) => {
    const turn = client.send("Hi", { turnId: "8f14e45f-ceea-4e7a-9c3b-2d1f5a6b7c8d" });
    assert.deepEqual(
      [turn.turnId, turn.session],
      ["8f14e45f-ceea-4e7a-9c3b-2d1f5a6b7c8d", "default"],
    );
    assert.equal(script.requests.length, 0);
    assert.equal((await all(turn)).length, 2);
    assert.deepEqual(await all(turn), []);
    client.send("never read").close();
  });
});

test("a turn that is closed while it waits ends, and its call is left", async () => {
  const script = new Script([started, "hold"]);
  await playing(script, async (client) => {
    const turn = client.send("Hi");
    const events = turn[Symbol.asyncIterator]();
    assert.equal((await events.next()).value?.kind, "turn_started");
    const next = events.next();
    turn.close();
    assert.deepEqual(await next, { done: true, value: undefined });
    while (script.left === 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
});

test("what a signal is aborted with is thrown as it is, before and in a call", async () => {
  await playing(new Script([started, "hold"], [started, "hold"]), async (client) => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const loop = async () => {
      for await (const _ of client.send("Hi", { signal: controller.signal })) {
        controller.abort(reason);
      }
    };
    await assert.rejects(loop, (error) => error === reason);
    await assert.rejects(client.ask("Hi", { signal: controller.signal }), reason);
    await assert.rejects(client.getSession({ signal: controller.signal }), reason);
    await assert.rejects(client.ask("Hi", { signal: AbortSignal.timeout(50) }), {
      name: "TimeoutError",
    });
  });
});

test("what a permission callback throws ends the turn, and no decision is one", async () => {
  const steps = [started, asked, "hold"] as const;
  const script = new Script(steps, steps, steps, steps);
  await playing(script, async (client) => {
    const failing = () => {
      throw new RangeError("no");
    };
    await assert.rejects(client.ask("Hi", { onPermission: failing }), RangeError);
    const left = client.send("Hi", {
      onPermission: () => {
        left.close();
        return new Promise<boolean>(() => {});
      },
    });
    assert.equal((await all(left)).length, 1);
    const silent = (() => undefined) as unknown as () => boolean;
    await assert.rejects(client.ask("Hi", { onPermission: silent }), TypeError);
    const controller = new AbortController();
    const never = (_: unknown, signal: AbortSignal) => {
      queueMicrotask(() => controller.abort());
      return new Promise<boolean>((resolve) => {
        signal.addEventListener("abort", () => resolve(false));
      });
    };
    const turn = client.ask("Hi", { onPermission: never, signal: controller.signal });
    await assert.rejects(turn, { name: "AbortError" });
  });
});

test("answers to permission requests are sent as they were decided", async () => {
  const answers: unknown[] = [];
  const respond = ({ decision }: { decision: unknown }) => {
    answers.push(decision);
    return {};
  };
  const step = [started, asked, finished()];
  await playing(
    new Script(step, step),
    async (client) => {
      await client.ask("Hi", {
        onPermission: async () => ({ allow: true, updatedInput: { a: 1 } }),
      });
      await client.ask("Hi", { onPermission: () => ({ allow: false, message: "m" }) });
    },
    { more: { respond: respond as never } },
  );
  const [first, second] = answers as { case: string; value: Record<string, unknown> }[];
  assert.deepEqual([first?.case, first?.value.updatedInputJson], ["allow", '{"a":1}']);
  assert.deepEqual([second?.case, second?.value.message], ["deny", "m"]);
});

test("a stream that breaks is joined after its last event", async () => {
  const cut = new ConnectError("cut", Code.Unavailable);
  const script = new Script([cut], [started, cut], [said("a"), cut], [finished("a", 3)]);
  await playing(script, async (client) => {
    assert.equal((await client.ask("Hi", { session: "s", deadline: 30 })).text, "a");
  });
  assert.deepEqual(
    script.requests.map((request) => ("afterSequence" in request ? request.afterSequence : null)),
    [null, null, 1n, 2n],
  );
  assert.deepEqual(
    new Set(script.headers.map((headers) => headers.get("session-id"))),
    new Set(["s"]),
  );
});

test("a deadline of its own, or of the client, is sent and kept", async () => {
  const script = new Script([started, "hold"], [started, "hold"], [started, finished("", 2)]);
  const talk = async (client: import("../src/index.js").Client) => {
    await assert.rejects(client.ask("Hi"), kind("deadline_exceeded"));
    await assert.rejects(client.ask("Hi", { deadline: 0.1 }), kind("deadline_exceeded"));
    await client.ask("Hi", { deadline: Number.POSITIVE_INFINITY });
  };
  await playing(script, talk, { options: { deadline: 0.05 } });
  const [first, , third] = script.headers.map((headers) => headers.get("grpc-timeout"));
  assert.match(first ?? "", /^\d{1,2}m$/);
  assert.match(third ?? "", /^2147\d{3}S$/);
});

test("a client that was closed makes no calls, and ends those that it made", async () => {
  await playing(new Script([started, "hold"]), async (client) => {
    const events = client.send("Hi")[Symbol.asyncIterator]();
    await events.next();
    client.close();
    client.close();
    await assert.rejects(events.next(), kind("client_closed"));
    await assert.rejects(client.ask("Hi"), kind("client_closed"));
    await assert.rejects(client.health(), kind("client_closed"));
  });
});

test("a socket is a target", async () => {
  const directory = mkdtempSync(join(tmpdir(), "s-"));
  try {
    const path = join(directory, "socket");
    const options = { credential: "key" };
    const script = new Script([started, finished("x", 2)]);
    await playing(script, async (client) => assert.equal(await client.send("Hi").text(), "x"), {
      path,
      options,
    });
    assert.equal(script.headers[0]?.get("authorization"), "Bearer key");
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("large messages are sent at once, and large answers wait until they are read", async () => {
  const many = 12;
  const text = "x".repeat(7 * 2 ** 20);
  const step = [started, said(text), finished("", 3)];
  const script = new Script(...Array<typeof step>(many).fill(step));
  await playing(script, async (client) => {
    const turns = Array.from({ length: many }, () => client.send(text)[Symbol.asyncIterator]());
    await Promise.all(turns.map((turn) => turn.next()));
    for (const turn of turns) {
      const { value } = await turn.next();
      assert.equal(value?.kind === "text_delta" && value.text.length, text.length);
      await turn.return();
    }
  });
});
