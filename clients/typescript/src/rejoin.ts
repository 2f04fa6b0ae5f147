// The continuation of a turn's stream after it broke: the events so far, the next call, its delay.
// Makes no call itself, and waits for nothing.

import { create } from "@bufbuild/protobuf";

import type { SamovarError } from "./errors.js";
import type { Event } from "./events.js";
import {
  type AttachRequest,
  AttachRequestSchema,
  type Event as EventMessage,
  type SendRequest,
} from "./gen/samovar/v1/session_pb.js";
import { readEvent } from "./reading.js";

// Milliseconds.
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 5_000;
/** For how long to look for a service that the client has never heard from. */
const FIRST_CONTACT = 2_000;
/** For how long to try to join a turn again that has no deadline. */
const NO_DEADLINE = 60_000;
const BROKEN = new Set(["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"]);

/** Whether a client has ever heard from its service. */
export interface Contact {
  made: boolean;
}

/** A turn to run or to follow. */
export interface Subject {
  readonly session: string;
  readonly turnId: string;
  /** The request that runs the turn, undefined to follow one. */
  readonly send?: SendRequest;
  /** The last event that is not wanted. */
  readonly after?: number;
  /** When it is over, as a time of `performance.now()`; infinity for no deadline. */
  readonly until: number;
  /** The headers of its calls. */
  readonly headers: Headers;
}

/** One turn as its caller sees it: a sequence of events over as many calls as it takes. */
export class Rejoin {
  /** True once the last event was given. */
  finished = false;
  readonly subject: Subject;
  readonly #contact: Contact;
  readonly #clock: () => number;
  #sequence: number; // of the last event
  #joined = false; // it gave an event
  #brokenSince: number | null = null;
  #failure: SamovarError | null = null; // of the call before this one
  #pause = FIRST_PAUSE;

  constructor(subject: Subject, contact: Contact, clock: () => number = () => performance.now()) {
    this.subject = subject;
    this.#contact = contact;
    this.#clock = clock;
    this.#sequence = subject.after ?? 0;
  }

  /** Return what sends the turn, undefined once it must be followed instead. */
  get send(): SendRequest | undefined {
    return this.#joined ? undefined : this.subject.send;
  }

  /** Return the request that follows the turn after its last event. */
  get attach(): AttachRequest {
    const { session: sessionId, turnId } = this.subject;
    return create(AttachRequestSchema, {
      sessionId,
      turnId,
      afterSequence: BigInt(this.#sequence),
    });
  }

  /** Return the events of a response, each once and without those of unknown kinds. */
  take(messages: readonly EventMessage[]): Event[] {
    this.#contact.made = this.#joined = true;
    this.#brokenSince = this.#failure = null;
    this.#pause = FIRST_PAUSE;
    const found: Event[] = [];
    for (const message of messages) {
      const sequence = Number(message.sequence);
      if (sequence > this.#sequence) {
        this.#sequence = sequence;
        this.finished = message.kind.case === "turnFinished";
        const event = readEvent(message);
        if (event !== null) {
          found.push(event);
        }
      }
    }
    return found;
  }

  /**
   * Return how many milliseconds to wait before the next call, null if there must be none.
   *
   * A refusal has a delay of its own. A stream that broke is joined again after a pause that grows
   * and varies, so that callers that lost a service do not come back to it all at once.
   */
  pause(error: SamovarError): number | null {
    this.#contact.made ||= error.reason !== "";
    const refused = error.retryDelay !== null && !error.promptWritten;
    const delay = 1000 * (error.retryDelay ?? 0);
    let pause: number;
    let until: number;
    if (refused && !this.#joined) {
      // Nothing was given: a caller that sets no deadline decides for itself.
      [pause, until] = [delay, this.#deadline ?? Number.NEGATIVE_INFINITY];
    } else if (refused || error.kind === "reader_too_slow" || broke(error)) {
      [pause, until] = [Math.max(this.#growing(), delay), this.#tryUntil()];
    } else {
      return null;
    }
    if (this.#clock() + pause >= until) {
      return null;
    }
    this.#failure = error;
    return pause;
  }

  /** Return what to throw for an error after which no call is made. */
  last(error: unknown): unknown {
    // At the deadline it is only known that time is over: what failed before says why.
    const late = (error as Partial<SamovarError> | null)?.kind === "deadline_exceeded";
    return late ? (this.#failure ?? error) : error;
  }

  get #deadline(): number | null {
    return this.subject.until === Number.POSITIVE_INFINITY ? null : this.subject.until;
  }

  #growing(): number {
    const pause = this.#pause;
    this.#pause = Math.min(2 * pause, LONGEST_PAUSE);
    return pause * (0.5 + Math.random() / 2);
  }

  #tryUntil(): number {
    this.#brokenSince ??= this.#clock();
    if (this.#contact.made) {
      return this.#deadline ?? this.#brokenSince + NO_DEADLINE;
    }
    // Most likely there is no service: the caller should learn that soon.
    const soon = this.#brokenSince + FIRST_CONTACT;
    return this.#deadline === null ? Number.NEGATIVE_INFINITY : Math.min(this.#deadline, soon);
  }
}

/** True if a call broke on its way and the next one may get through. */
function broke(error: SamovarError): boolean {
  return error.kind === "call_broken" && BROKEN.has(error.code);
}
