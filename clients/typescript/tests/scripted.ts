// A service that plays a script, in the test's own process.

import { createServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import {
  type AttachRequest,
  type EventSchema,
  type SendRequest,
  Session,
} from "../src/gen/samovar/v1/session_pb.js";
import { Client, type ClientOptions } from "../src/index.js";

type Given = MessageInitShape<typeof EventSchema>;
type Handlers = ServiceImpl<typeof Session>;

export const started: Given = {
  sequence: 1n,
  kind: { case: "turnStarted", value: { sessionId: "default", turnId: "t" } },
};
export const said = (text: string, sequence = 2): Given => ({
  sequence: BigInt(sequence),
  kind: { case: "textDelta", value: { messageId: "m", text } },
});
export const finished = (result = "", sequence = 3): Given => ({
  sequence: BigInt(sequence),
  kind: { case: "turnFinished", value: { outcome: 1, result } },
});

/** A part of a script: events, an error to end with, or `hold`, to wait until the call is over. */
export type Step = readonly (Given | Error | "hold")[];

/** Plays one step for each call of `Send` or `Attach`, and keeps the requests. */
export class Script {
  readonly requests: (SendRequest | AttachRequest)[] = [];
  readonly headers: Headers[] = [];
  /** How many calls ended before their script did. */
  left = 0;
  readonly #steps: Step[];

  constructor(...steps: Step[]) {
    this.#steps = steps;
  }

  async *play(request: SendRequest | AttachRequest, context: HandlerContext) {
    this.requests.push(request);
    this.headers.push(context.requestHeader);
    for (const part of this.#steps.shift() ?? []) {
      if (part === "hold") {
        await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
        this.left += 1;
      } else if (part instanceof Error) {
        throw part;
      } else {
        yield { events: [part] };
      }
    }
  }
}

/** Run a script, with a client of it, and other methods if they are given. */
export async function playing(
  script: Script,
  talk: (client: Client, target: string) => Promise<void>,
  given: { path?: string; options?: ClientOptions; more?: Partial<Handlers> } = {},
): Promise<void> {
  const play = (request: SendRequest | AttachRequest, context: HandlerContext) =>
    script.play(request, context);
  const server: Http2Server = createServer(
    connectNodeAdapter({
      routes: (router) => router.service(Session, { send: play, attach: play, ...given.more }),
    }),
  );
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  await new Promise<void>((resolve) => {
    given.path ? server.listen(given.path, resolve) : server.listen(0, "127.0.0.1", resolve);
  });
  const target = given.path
    ? `unix:${given.path}`
    : `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new Client(target, given.options);
  try {
    await talk(client, target);
  } finally {
    client.close();
    for (const session of sessions) {
      session.destroy();
    }
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Read a stream to its end. */
export async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const found = [];
  for await (const value of values) {
    found.push(value);
  }
  return found;
}
