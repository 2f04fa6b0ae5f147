import {
  create,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import type { Answer } from "./answer.js";
import { Conversation } from "./conversation.js";
import { errorOf, SamovarError, violated } from "./errors.js";
import type { DailyUsage, Session } from "./events.js";
import { Health as HealthService } from "./gen/grpc/health/v1/health_pb.js";
import { Session as SessionService } from "./gen/samovar/v1/session_pb.js";
import { readDay, readSession } from "./reading.js";
import type { Rejoin } from "./rejoin.js";
import {
  type Block,
  bounded,
  count,
  type Decision,
  respondRequest,
  type SendOptions,
  sendRequest,
  untilOf,
} from "./requests.js";
import { Scope } from "./scope.js";
import { activeTrace } from "./tracing.js";
import { DEFAULT_TARGET, type Line, lineTo, type Tls, targetOf } from "./transport.js";
import { type Calls, Turn } from "./turn.js";

const CONTROL_DEADLINE = 30_000; // milliseconds
const HEALTH = ["unknown", "serving", "not serving", "unknown service"] as const;

/** The health of a service, in the words of `grpc.health.v1`. */
export type Health = (typeof HEALTH)[number];

/** How a client reaches its service. */
export interface ClientOptions {
  /** An API key or a JSON Web Token, sent over TLS or within this machine only. */
  readonly credential?: string;
  /** TLS; `{}` trusts the authorities that Node trusts. */
  readonly tls?: Tls;
  /** Bounds each turn that has no deadline of its own, in seconds. */
  readonly deadline?: number;
  /** Return the `traceparent` of a call. Without it, that of OpenTelemetry's active span. */
  readonly traceparent?: () => string | undefined;
}

/** What is common to calls beside turns. Each of them has a deadline of 30 s. */
export interface CallOptions {
  /** The session's name; `default` without one. */
  readonly session?: string;
  /** Cancels the call. What it is aborted with is thrown. */
  readonly signal?: AbortSignal;
}

/** How a turn is followed. */
export interface AttachOptions extends CallOptions {
  /** The last event that is not wanted; 0, for all events, unless it is given. */
  readonly afterSequence?: number;
  /** Bounds the call with all its repetitions, in seconds; the client's without one. */
  readonly deadline?: number;
}

/** Which days are asked for, as `2026-11-30` in UTC; both are included. */
export interface UsageOptions {
  /** The first day; 30 days before the last unless it is given. */
  readonly firstDay?: string;
  /** The last day; today unless it is given. */
  readonly lastDay?: string;
  /** Cancels the call. */
  readonly signal?: AbortSignal;
}

/**
 * A client of a samovard, for many calls at once.
 *
 * It connects at the first call, and has two connections: one for turns, and one for all other
 * calls, because a connection with a hundred open streams takes no other call. What fails is
 * thrown as a `SamovarError`.
 */
export class Client {
  readonly #credential: string | undefined;
  readonly #deadline: number | undefined;
  readonly #trace: () => string | undefined;
  readonly #lines: readonly [turns: Line, control: Line];
  readonly #turns;
  readonly #calls: Calls;
  #closed = false;

  /** Make a client of the service at `host:port` or `unix:/path`. */
  constructor(target: string = DEFAULT_TARGET, options: ClientOptions = {}) {
    const { credential, tls, deadline } = options;
    const place = targetOf(target, credential, tls !== undefined);
    untilOf(deadline);
    this.#credential = credential;
    this.#deadline = deadline;
    this.#trace = options.traceparent ?? activeTrace;
    this.#lines = [lineTo(place, tls), lineTo(place, tls)];
    this.#turns = createClient(SessionService, this.#lines[0].transport);
    this.#calls = {
      contact: { made: false },
      open: new Set(),
      begin: (rejoin, scope) => this.#begin(rejoin, scope),
      respond: (session, permissionId, decision) =>
        this.#respond(permissionId, decision, { session }),
      interrupt: (turnId, given) => this.interrupt(turnId, given),
    };
  }

  /** End what is open and close the connections: open streams and later calls fail. */
  close(): void {
    this.#closed = true;
    for (const scope of [...this.#calls.open]) {
      scope.end(closed());
    }
    for (const line of this.#lines) {
      line.close();
    }
  }

  /** Return a session by its name, whose turns have these options unless they set their own. */
  session(name: string, options: Omit<SendOptions, "session"> = {}): Conversation {
    return new Conversation(this, name, options);
  }

  /**
   * Return a turn to run with a message, as the stream of its events.
   *
   * A refusal that says when to repeat is repeated until the deadline, with the same turn id.
   * Throw `request_invalid` or `invalid_argument` for what is not sent.
   */
  send(content: Block | readonly Block[], options: SendOptions = {}): Turn {
    const send = sendRequest(content, options);
    const { sessionId: session, turnId } = send;
    const until = untilOf(options.deadline ?? this.#deadline);
    const headers = this.#headers(session);
    return new Turn(this.#calls, { session, turnId, send, until, headers }, options);
  }

  /** Run a turn with a message, and return its answer. Throw `turn_failed` if the agent failed. */
  async ask(content: Block | readonly Block[], options: SendOptions = {}): Promise<Answer> {
    return await this.send(content, options).answer();
  }

  /** Return the stream of a turn that waits, runs or ended not long ago. It has no effect on it. */
  attach(turnId: string, options: AttachOptions = {}): Turn {
    const session = options.session ?? "";
    const after = count("after_sequence", options.afterSequence ?? 0);
    const until = untilOf(options.deadline ?? this.#deadline);
    const headers = this.#headers(session);
    return new Turn(this.#calls, { session, turnId, after, until, headers }, options);
  }

  /** Interrupt a turn. Return true if it was still running. */
  async interrupt(turnId: string, options: CallOptions = {}): Promise<boolean> {
    const request = { sessionId: options.session ?? "", turnId };
    return (await this.#call(SessionService.method.interrupt, request, options)).wasRunning;
  }

  /** Let the tool run that a permission request asks about. */
  async allow(
    permissionId: string,
    options: CallOptions & { readonly updatedInput?: object } = {},
  ): Promise<void> {
    await this.#respond(permissionId, { ...options, allow: true }, options);
  }

  /** Keep the tool from running that a permission request asks about. */
  async deny(
    permissionId: string,
    options: CallOptions & { readonly message?: string; readonly interrupt?: boolean } = {},
  ): Promise<void> {
    await this.#respond(permissionId, { ...options, allow: false }, options);
  }

  /** Return a session. Throw `session_not_found` if there is none. */
  async getSession(options: CallOptions = {}): Promise<Session> {
    const request = { sessionId: options.session ?? "" };
    const { session } = await this.#call(SessionService.method.getSession, request, options);
    if (session === undefined) {
      throw new SamovarError("internal", "the service answered without a session");
    }
    return readSession(session);
  }

  /** Yield the caller's sessions, most recently used first, page by page. */
  async *listSessions(
    options: Omit<CallOptions, "session"> = {},
  ): AsyncGenerator<Session, void, void> {
    let pageToken = "";
    do {
      const page = await this.#call(SessionService.method.listSessions, { pageToken }, options);
      yield* page.sessions.map(readSession);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** End a session for good, with its conversation. Return true if there was one. */
  async closeSession(
    session: string,
    options: Omit<CallOptions, "session"> = {},
  ): Promise<boolean> {
    const request = { sessionId: session };
    const given = { ...options, session };
    return (
      (await this.#call(SessionService.method.closeSession, request, given)).session !== undefined
    );
  }

  /** Return what the caller's turns used, by day in UTC and model. */
  async usage(options: UsageOptions = {}): Promise<DailyUsage[]> {
    const { firstDay = "", lastDay = "" } = options;
    const { getUsage } = SessionService.method;
    return (await this.#call(getUsage, { firstDay, lastDay }, options)).days.map(readDay);
  }

  /** Return the health of a service, by default that of turns. */
  async health(
    service = "samovar.v1.Session",
    options: Omit<CallOptions, "session"> = {},
  ): Promise<Health> {
    const { status } = await this.#call(HealthService.method.check, { service }, options);
    return HEALTH[status] ?? "unknown";
  }

  #headers(session: string): Headers {
    if (/[^\x20-\x7e]/.test(session)) {
      throw violated("session_id", "holds what no name can");
    }
    const headers = new Headers({ "session-id": session || "default" });
    const trace = this.#trace();
    if (this.#credential !== undefined) {
      headers.set("authorization", `Bearer ${this.#credential}`);
    }
    if (trace !== undefined) {
      headers.set("traceparent", trace);
    }
    return headers;
  }

  #begin(rejoin: Rejoin, scope: Scope): ReturnType<Calls["begin"]> {
    if (this.#closed) {
      throw closed();
    }
    const { send, attach } = rejoin;
    const options = { signal: scope.signal, headers: scope.bounded(rejoin.subject.headers) };
    return send ? this.#turns.send(send, options) : this.#turns.attach(attach, options);
  }

  async #respond(id: string, decision: Decision, options: CallOptions): Promise<void> {
    const request = respondRequest(options.session ?? "", id, decision);
    await this.#call(SessionService.method.respond, request, options);
  }

  /** Make a call beside turns. */
  async #call<I extends DescMethodUnary["input"], O extends DescMethodUnary["output"]>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    if (this.#closed) {
      throw closed();
    }
    const message = bounded(method.input, create(method.input, request));
    const headers = this.#headers(options.session ?? "");
    const until = performance.now() + CONTROL_DEADLINE;
    const scope = new Scope(this.#calls.open, until, options.signal);
    try {
      const { unary } = this.#lines[1].transport;
      const bound = scope.bounded(headers);
      const init = message as MessageInitShape<I>;
      return (await unary(method, scope.signal, undefined, bound, init)).message;
    } catch (error) {
      throw scope.cause ?? errorOf(error);
    } finally {
      scope.close();
    }
  }
}

function closed(): SamovarError {
  return new SamovarError("client_closed", "the client is closed", { code: "CANCELLED" });
}
