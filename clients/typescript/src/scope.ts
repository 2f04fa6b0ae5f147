// How long a call lasts: until its deadline, its caller's signal, or the end of its client.

import { Code, ConnectError } from "@connectrpc/connect";

import { SamovarError } from "./errors.js";

/** The longest time of a timer, in milliseconds. */
export const LONGEST = 2 ** 31 - 1;
const LONGEST_IN_MILLISECONDS = 99_999_999; // of gRPC's header, which has 8 digits

/** The bounds of one call, or of a turn with all its calls. */
export class Scope {
  /** What ended it, undefined while it goes on. */
  cause: unknown;
  readonly #controller = new AbortController();
  readonly #open: Set<Scope>;
  readonly #given: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #until: number;
  readonly #aborted = () => this.end(this.#given?.reason);

  /** Make the scope of a call that ends at a time of `performance.now()`, or earlier. */
  constructor(open: Set<Scope>, until: number, given: AbortSignal | undefined) {
    this.#open = open;
    this.#until = until;
    this.#given = given;
    open.add(this);
    if (given?.aborted) {
      this.#aborted();
    }
    given?.addEventListener("abort", this.#aborted);
    if (until !== Number.POSITIVE_INFINITY) {
      this.#timer = setTimeout(() => this.end(late()), Math.min(this.#left(), LONGEST));
    }
  }

  /** Aborted when the scope ends. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Return the headers of a call with the time that is left. */
  bounded(headers: Headers): Headers {
    const made = new Headers(headers);
    if (this.#until !== Number.POSITIVE_INFINITY) {
      const left = this.#left();
      const seconds = left > LONGEST_IN_MILLISECONDS;
      made.set("grpc-timeout", seconds ? `${Math.ceil(left / 1000)}S` : `${left}m`);
    }
    return made;
  }

  /** End it for a reason, unless it has ended. */
  end(cause: unknown): void {
    if (this.cause === undefined) {
      this.cause = cause;
      // Any other code would reset the stream as an internal error.
      this.#controller.abort(new ConnectError("the call was left", Code.Canceled));
    }
  }

  /** End it, and leave no timer and no listener. */
  close(): void {
    this.#open.delete(this);
    clearTimeout(this.#timer);
    this.#given?.removeEventListener("abort", this.#aborted);
    this.end(null);
  }

  /** Wait for so many milliseconds, or until the scope ends. */
  async sleep(milliseconds: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await this.race(new Promise((resolve) => (timer = setTimeout(resolve, milliseconds))));
    clearTimeout(timer);
  }

  /** Return what a promise resolves to; undefined once the scope has ended. */
  race<T>(work: Promise<T>): Promise<T | undefined> {
    if (this.signal.aborted) {
      return Promise.resolve(undefined);
    }
    return new Promise((resolve, reject) => {
      const ended = () => resolve(undefined);
      this.signal.addEventListener("abort", ended);
      work.then(resolve, reject).finally(() => this.signal.removeEventListener("abort", ended));
    });
  }

  #left(): number {
    return Math.max(Math.ceil(this.#until - performance.now()), 1);
  }
}

function late(): SamovarError {
  const code = "DEADLINE_EXCEEDED";
  return new SamovarError("deadline_exceeded", "the deadline passed", { code });
}
