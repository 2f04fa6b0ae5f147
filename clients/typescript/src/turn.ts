import { type Answer, answerIn } from "./answer.js";
import { errorOf, SamovarError } from "./errors.js";
import type { Event, PermissionRequested } from "./events.js";
import type { Event as EventMessage } from "./gen/samovar/v1/session_pb.js";
import { type Contact, Rejoin, type Subject } from "./rejoin.js";
import type { Decision, OnPermission } from "./requests.js";
import { Scope } from "./scope.js";

const LEFT = Symbol("left");

/** What a turn needs of its client. */
export interface Calls {
  readonly contact: Contact;
  readonly open: Set<Scope>;
  /** Make a call, `Send` or `Attach`, and return its responses. */
  begin(rejoin: Rejoin, scope: Scope): AsyncIterable<{ events: EventMessage[] }>;
  respond(session: string, permissionId: string, decision: Decision): Promise<void>;
  interrupt(turnId: string, options: { session: string }): Promise<boolean>;
}

/** How the stream of a turn is read. */
export interface Reading {
  readonly signal?: AbortSignal;
  readonly onPermission?: OnPermission;
}

/**
 * The stream of a turn's events, each once and in order, which can be read once:
 * `for await (const event of turn)`. Nothing is called before it is read.
 *
 * Leaving the loop cancels the call, which interrupts a turn that was sent without `keepRunning`.
 * A stream that breaks is joined again where it broke. What fails is thrown as a `SamovarError`,
 * but what `signal` is aborted with, and what `onPermission` throws, as it is.
 */
export class Turn implements AsyncIterable<Event> {
  /** The turn's id. */
  readonly turnId: string;
  /** The session's name. */
  readonly session: string;
  readonly #calls: Calls;
  readonly #subject: Subject;
  readonly #reading: Reading;
  readonly #events: AsyncGenerator<Event, void, void>;
  #scope: Scope | undefined;

  /** @internal */
  constructor(calls: Calls, subject: Subject, reading: Reading) {
    this.#calls = calls;
    this.#subject = subject;
    this.#reading = reading;
    this.turnId = subject.turnId;
    this.session = subject.session || "default";
    this.#events = this.#read();
  }

  /** Return the events. */
  [Symbol.asyncIterator](): AsyncGenerator<Event, void, void> {
    return this.#events;
  }

  /** Read the turn to its end, and return its answer. Throw `turn_failed` if the agent failed. */
  answer(): Promise<Answer> {
    return answerIn(this);
  }

  /** Read the turn to its end, and return its text; see `answer`. */
  async text(): Promise<string> {
    return (await this.answer()).text;
  }

  /** Interrupt the turn. Return true if it was still running. */
  interrupt(): Promise<boolean> {
    return this.#calls.interrupt(this.turnId, { session: this.#subject.session });
  }

  /** Leave the stream, also while it is waited for an event. */
  close(): void {
    this.#scope?.end(LEFT);
    void this.#events.return();
  }

  async *#read(): AsyncGenerator<Event, void, void> {
    const { contact, open } = this.#calls;
    const rejoin = new Rejoin(this.#subject, contact);
    const scope = new Scope(open, this.#subject.until, this.#reading.signal);
    this.#scope = scope;
    try {
      let pause: number | null = 0;
      while (pause !== null) {
        const broken: SamovarError | null = yield* this.#once(rejoin, scope);
        pause = broken && rejoin.pause(broken);
        if (broken && pause === null) {
          throw rejoin.last(broken);
        }
        await scope.sleep(pause ?? 0);
      }
    } catch (error) {
      if (error !== LEFT) {
        throw error;
      }
    } finally {
      scope.close();
    }
  }

  /** Make one call and give its events. Return what broke it, null if the turn has ended. */
  async *#once(rejoin: Rejoin, scope: Scope): AsyncGenerator<Event, SamovarError | null, void> {
    let responses: AsyncIterator<{ events: EventMessage[] }> | undefined;
    for (;;) {
      let response: IteratorResult<{ events: EventMessage[] }>;
      try {
        if (scope.cause !== undefined) {
          throw scope.cause;
        }
        responses ??= this.#calls.begin(rejoin, scope)[Symbol.asyncIterator]();
        response = await responses.next();
      } catch (error) {
        if (rejoin.finished) {
          return null; // every event was given: how the call ended adds nothing
        }
        if (scope.cause !== undefined) {
          throw rejoin.last(scope.cause);
        }
        return errorOf(error);
      }
      if (response.done) {
        return null;
      }
      for (const event of rejoin.take(response.value.events)) {
        if (event.kind === "permission_requested") {
          await this.#decide(event, scope);
        }
        yield event;
      }
    }
  }

  async #decide(asked: PermissionRequested, scope: Scope): Promise<void> {
    const { onPermission } = this.#reading;
    if (onPermission === undefined) {
      return;
    }
    const decision = await scope.race(Promise.resolve(onPermission(asked, scope.signal)));
    if (decision === undefined) {
      throw scope.cause ?? new TypeError("onPermission returned no decision");
    }
    try {
      await this.#calls.respond(this.#subject.session, asked.permissionId, decision);
    } catch (error) {
      // It expired, or another client was first.
      if (!(error instanceof SamovarError && error.kind === "permission_not_found")) {
        throw error;
      }
    }
  }
}
