import type { Answer } from "./answer.js";
import type { AttachOptions, CallOptions, Client } from "./client.js";
import type { Session } from "./events.js";
import type { Block, SendOptions } from "./requests.js";
import type { Turn } from "./turn.js";

type Given<Options> = Omit<Options, "session">;

/** A session by its name, with the options of its turns. Made by `Client.session`. */
export class Conversation {
  /** The session's name. */
  readonly name: string;
  readonly #client: Client;
  readonly #options: Given<SendOptions>;

  /** @internal */
  constructor(client: Client, name: string, options: Given<SendOptions>) {
    this.#client = client;
    this.name = name;
    this.#options = options;
  }

  /** Return a turn to run with a message; see `Client.send`. */
  send(content: Block | readonly Block[], options: Given<SendOptions> = {}): Turn {
    return this.#client.send(content, { ...this.#options, ...this.#in(options) });
  }

  /** Run a turn with a message, and return its answer; see `Client.ask`. */
  ask(content: Block | readonly Block[], options: Given<SendOptions> = {}): Promise<Answer> {
    return this.#client.ask(content, { ...this.#options, ...this.#in(options) });
  }

  /** Return the stream of a turn; see `Client.attach`. */
  attach(turnId: string, options: Given<AttachOptions> = {}): Turn {
    return this.#client.attach(turnId, this.#in(options));
  }

  /** Interrupt a turn. Return true if it was still running. */
  interrupt(turnId: string, options: Given<CallOptions> = {}): Promise<boolean> {
    return this.#client.interrupt(turnId, this.#in(options));
  }

  /** Let a tool run; see `Client.allow`. */
  allow(
    permissionId: string,
    options: Given<CallOptions> & { readonly updatedInput?: object } = {},
  ): Promise<void> {
    return this.#client.allow(permissionId, this.#in(options));
  }

  /** Keep a tool from running; see `Client.deny`. */
  deny(
    permissionId: string,
    options: Given<CallOptions> & { readonly message?: string; readonly interrupt?: boolean } = {},
  ): Promise<void> {
    return this.#client.deny(permissionId, this.#in(options));
  }

  /** Return the session as the service has it. */
  get(options: Given<CallOptions> = {}): Promise<Session> {
    return this.#client.getSession(this.#in(options));
  }

  /** End the session for good. Return true if there was one. */
  close(options: Given<CallOptions> = {}): Promise<boolean> {
    return this.#client.closeSession(this.name, options);
  }

  #in<Options extends object>(options: Options): Options & { session: string } {
    return { ...options, session: this.name };
  }
}
