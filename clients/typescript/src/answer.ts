import { SamovarError } from "./errors.js";
import type { Event, Outcome, Timings, TurnFinished, TurnStarted, Usage } from "./events.js";

/** A turn's final text, with what it used and how long it took. */
export interface Answer {
  readonly text: string;
  readonly turnId: string;
  readonly session: string;
  /** How the turn ended; never `failed`, which is thrown as `turn_failed`. */
  readonly outcome: Outcome;
  readonly usage: Usage;
  readonly timings: Timings;
}

/** Return the answer in the events of a turn. Throw `turn_failed` if the agent failed. */
export async function answerIn(events: AsyncIterable<Event>): Promise<Answer> {
  let started: TurnStarted | undefined;
  let finished: TurnFinished | undefined;
  const texts = new Texts();
  for await (const event of events) {
    if (event.kind === "turn_started") {
      started = event;
    } else if (event.kind === "turn_finished") {
      finished = event;
    } else {
      texts.take(event);
    }
  }
  if (started === undefined || finished === undefined) {
    throw new SamovarError("internal", "the turn ended without its first or its last event");
  }
  if (finished.outcome === "failed") {
    const { errors, upstreamStatus, upstreamRetryDelay, failureCause } = finished;
    const failure = { errors, upstreamStatus, upstreamRetryDelay, failureCause };
    throw new SamovarError("turn_failed", errors.join("; ") || "the turn failed", { failure });
  }
  // A result that was cut is whole in the deltas.
  const cut = finished.resultTruncatedBytes > 0 || finished.result === "";
  return {
    text: cut ? texts.text : finished.result,
    turnId: started.turnId,
    session: started.sessionId,
    outcome: finished.outcome,
    usage: finished.usage,
    timings: finished.timings,
  };
}

/** The main agent's text: all blocks of its messages in order, but those that were abandoned. */
class Texts {
  readonly #blocks = new Map<string, { message: string; index: number; pieces: string[] }>();

  /** Add an event. */
  take(event: Event): void {
    if (event.kind === "text_delta" && event.parentToolUseId === "") {
      const key = `${event.blockIndex} ${event.messageId}`;
      const block = this.#blocks.get(key);
      if (block) {
        block.pieces.push(event.text);
      } else {
        const { messageId: message, blockIndex: index, text } = event;
        this.#blocks.set(key, { message, index, pieces: [text] });
      }
    } else if (event.kind === "blocks_abandoned") {
      for (const [key, { message, index }] of this.#blocks) {
        if (message === event.messageId && index >= event.fromBlockIndex) {
          this.#blocks.delete(key);
        }
      }
    }
  }

  /** Return the text so far. */
  get text(): string {
    return [...this.#blocks.values()].flatMap((block) => block.pieces).join("");
  }
}
