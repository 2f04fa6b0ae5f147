import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { errorOf, SamovarError } from "../src/errors.js";
import { ErrorInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { ErrorReasonSchema } from "../src/gen/samovar/v1/errors_pb.js";
import { EventSchema } from "../src/gen/samovar/v1/session_pb.js";
import { readEvent } from "../src/reading.js";
import { Rejoin } from "../src/rejoin.js";
import { sendRequest } from "../src/requests.js";
import { Scope } from "../src/scope.js";

const broken = (code = "UNAVAILABLE") => new SamovarError("call_broken", "cut", { code });
const subject = (until: number) => ({ session: "s", turnId: "t", until, headers: new Headers() });

test("every kind of event is read, by its name in the contract", () => {
  for (const field of EventSchema.oneofs[0]?.fields ?? []) {
    assert.ok(field.message);
    const kind = { case: field.localName, value: create(field.message) };
    const event = readEvent(create(EventSchema, { sequence: 1n, kind } as object));
    assert.equal(event?.kind, field.name);
  }
  assert.equal(readEvent(create(EventSchema, { sequence: 1n })), null);
});

test("a reason is its kind, in lower case", () => {
  for (const { localName: reason, number } of ErrorReasonSchema.values) {
    const value = create(ErrorInfoSchema, { reason, domain: "samovar" });
    const error = new ConnectError("m", Code.Aborted, { "grpc-status": "10" });
    error.details = [{ type: ErrorInfoSchema.typeName, value: toBinary(ErrorInfoSchema, value) }];
    const { kind, code, message } = errorOf(error);
    assert.equal(kind, reason.toLowerCase(), `${number}`);
    assert.deepEqual([code, message], ["ABORTED", "m"]);
  }
});

test("what broke on this side is unavailable, and what the other said is kept", () => {
  assert.equal(errorOf(new ConnectError("reset", Code.Aborted)).code, "UNAVAILABLE");
  assert.equal(errorOf(new Error("cut")).code, "UNAVAILABLE");
  assert.equal(errorOf(new ConnectError("cut", Code.Canceled)).code, "CANCELLED");
  const said = new ConnectError("no", Code.Aborted, { "grpc-status": "10" });
  assert.equal(errorOf(said).code, "ABORTED");
  assert.equal(errorOf(new ConnectError("late", Code.DeadlineExceeded)).kind, "deadline_exceeded");
});

test("a stream that broke is joined again after pauses that grow, until the deadline", () => {
  let now = 0;
  const rejoin = new Rejoin(subject(20_000), { made: true }, () => now);
  for (const longest of [100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
    const pause = rejoin.pause(broken()) ?? Number.NaN;
    assert.ok(pause >= longest / 2 && pause <= longest, `${pause} of ${longest}`);
  }
  now = 19_999;
  assert.equal(rejoin.pause(broken()), null);
});

test("without a deadline it is tried for 60 s, and where nobody ever was not at all", () => {
  let now = 0;
  const rejoin = new Rejoin(subject(Number.POSITIVE_INFINITY), { made: true }, () => now);
  assert.ok(rejoin.pause(broken()));
  now = 54_000;
  assert.ok(rejoin.pause(broken()));
  now = 60_000;
  assert.equal(rejoin.pause(broken()), null);
  const alone = new Rejoin(subject(Number.POSITIVE_INFINITY), { made: false }, () => now);
  assert.equal(alone.pause(broken()), null);
  const soon = new Rejoin(subject(100_000), { made: false }, () => now);
  assert.ok(soon.pause(broken()));
  now = 62_000;
  assert.equal(soon.pause(broken()), null);
});

test("other statuses, and what was written, are not repeated", () => {
  const rejoin = new Rejoin(subject(20_000), { made: true }, () => 0);
  assert.equal(rejoin.pause(broken("UNIMPLEMENTED")), null);
  const details = { reason: "NO_PROCESS", retryDelay: 1 };
  assert.equal(rejoin.pause(new SamovarError("no_process", "m", details)), 1000);
  const written = { ...details, promptWritten: true };
  assert.equal(rejoin.pause(new SamovarError("no_process", "m", written)), null);
  const late = new SamovarError("deadline_exceeded", "late");
  assert.equal((rejoin.last(late) as SamovarError).kind, "no_process");
});

test("a request has what was set, and an id", () => {
  const request = sendRequest("Hi", {});
  assert.match(request.turnId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(request.spec, undefined);
  assert.equal(request.limits, undefined);
  assert.ok(sendRequest("Hi", { session: "s" }).spec);
  assert.equal(sendRequest("Hi", { session: "s", create: false }).spec, undefined);
  assert.deepEqual(sendRequest("Hi", { labels: { a: "b" } }).spec?.labels, { a: "b" });
  assert.equal(sendRequest("Hi", { turnTimeout: 1.5 }).limits?.turnTimeout?.nanos, 500_000_000);
});

test("values without a meaning are refused", () => {
  for (const options of [
    { turnTimeout: 0 },
    { turnTimeout: Number.NaN },
    { maxAgentSteps: -1 },
    { maxAgentSteps: 1.5 },
  ]) {
    assert.throws(() => sendRequest("Hi", options), { kind: "request_invalid" });
  }
  const policy = "maybe" as "ask";
  assert.throws(() => sendRequest("Hi", { permissionPolicy: policy }), {
    kind: "invalid_argument",
  });
  assert.throws(() => sendRequest("x".repeat(8 * 2 ** 20), {}), { kind: "request_invalid" });
});

test("a scope that is closed leaves no timer and no listener", async () => {
  const before = process.getActiveResourcesInfo().length;
  const open = new Set<Scope>();
  const { signal } = new AbortController();
  const scope = new Scope(open, performance.now() + 60_000, signal);
  const slept = scope.sleep(60_000);
  assert.equal(open.size, 1);
  scope.close();
  await slept;
  assert.equal(open.size, 0);
  assert.equal(process.getActiveResourcesInfo().length, before);
});
