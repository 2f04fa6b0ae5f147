// Requests from what callers give. Knows the bounds of the contract, and nothing of connections.

import {
  create,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";

import { refused, violated } from "./errors.js";
import type { PermissionRequested } from "./events.js";
import {
  type ContentSchema,
  DisconnectPolicy,
  PermissionPolicy,
  type RespondRequestSchema,
  type SendRequest,
  SendRequestSchema,
  type SessionSpec,
  SessionSpecSchema,
} from "./gen/samovar/v1/session_pb.js";
import { LONGEST } from "./scope.js";

const MOST_BYTES = 8 * 2 ** 20; // of a request
const YEAR = 366 * 86_400; // seconds

/** An image: the bytes of a PNG, JPEG, GIF or WebP file. */
export interface Image {
  readonly image: Uint8Array;
  /** `image/png` unless it is given. */
  readonly mediaType?: string;
}

/** A PDF document: the bytes of the file. */
export interface Document {
  readonly document: Uint8Array;
  readonly title?: string;
  /** `application/pdf` unless it is given. */
  readonly mediaType?: string;
}

/** A part of a message: a text, an image or a document. */
export type Block = string | Image | Document;

/** The answer that lets a tool run, perhaps with another input where the profile allows that. */
export interface Allow {
  readonly allow: true;
  /** A JSON object that replaces the tool's input. */
  readonly updatedInput?: object;
}

/** The answer that keeps a tool from running. */
export interface Deny {
  readonly allow: false;
  /** Tells the agent why. */
  readonly message?: string;
  /** Also interrupts the turn. */
  readonly interrupt?: boolean;
}

/** What a permission callback decides: true and false stand for a plain `Allow` and `Deny`. */
export type Decision = boolean | Allow | Deny;

/** Decides about a tool. `signal` is aborted once the turn no longer waits for it. */
export type OnPermission = (
  asked: PermissionRequested,
  signal: AbortSignal,
) => Decision | Promise<Decision>;

/** How a session is made, if a turn makes it. What is left out is the service's to choose. */
export interface SessionOptions {
  /** False to fail with `session_not_found` where there is no session of that name. */
  readonly create?: boolean;
  readonly profile?: string;
  readonly model?: string;
  readonly appendSystemPrompt?: string;
  /** What happens when a tool needs permission. */
  readonly permissionPolicy?: "deny" | "ask";
  readonly labels?: Readonly<Record<string, string>>;
}

/** How a turn is run. Times are in seconds. */
export interface SendOptions extends SessionOptions {
  /** The name of the conversation; `default` without one. */
  readonly session?: string;
  /** The turn's id and idempotency key, a UUID in lower case; the client makes one. */
  readonly turnId?: string;
  /** Text comes in pieces, true unless it is given. */
  readonly partial?: boolean;
  readonly thinking?: boolean;
  /** Events have the agent's own lines, where the profile allows that. */
  readonly rawJson?: boolean;
  /** How long the turn may run. */
  readonly turnTimeout?: number;
  readonly maxAgentSteps?: number;
  /** The turn runs on if its stream is lost or left. */
  readonly keepRunning?: boolean;
  /** Bounds the call with all its repetitions; the client's without one. */
  readonly deadline?: number;
  /** Cancels the call, which interrupts the turn. What it is aborted with is thrown. */
  readonly signal?: AbortSignal;
  /** Called with each permission request, before its event is given. */
  readonly onPermission?: OnPermission;
}

/** Return the request of a turn, always with a turn id, so that it may be repeated. */
export function sendRequest(content: Block | readonly Block[], options: SendOptions): SendRequest {
  const blocks = Array.isArray(content) ? (content as readonly Block[]) : [content as Block];
  const spec = specOf(options);
  const named = options.session !== undefined && (options.create ?? true);
  const request = create(SendRequestSchema, {
    sessionId: options.session ?? "",
    turnId: options.turnId ?? crypto.randomUUID(),
    content: blocks.map(blockOf),
    eventOptions: {
      partial: options.partial ?? true,
      thinking: options.thinking ?? false,
      rawJson: options.rawJson ?? false,
    },
  });
  if (named || toBinary(SessionSpecSchema, spec).length > 0) {
    request.spec = spec;
  }
  limit(request, options);
  if (options.keepRunning) {
    request.onDisconnect = DisconnectPolicy.CONTINUE;
  }
  return bounded(SendRequestSchema, request);
}

/** Return a request that is no larger than the service takes, or throw. */
export function bounded<Desc extends DescMessage>(
  desc: Desc,
  request: MessageShape<Desc>,
): MessageShape<Desc> {
  const size = toBinary(desc, request).length;
  if (size > MOST_BYTES) {
    throw violated("", `is ${size} bytes, more than ${MOST_BYTES}`);
  }
  return request;
}

/** Return the answer to a permission request. */
export function respondRequest(
  sessionId: string,
  permissionId: string,
  decision: Decision,
): MessageInitShape<typeof RespondRequestSchema> {
  const answer = typeof decision === "boolean" ? { allow: decision } : decision;
  if (answer.allow) {
    const { updatedInput } = answer as Allow;
    const updatedInputJson = updatedInput === undefined ? "" : JSON.stringify(updatedInput);
    return { sessionId, permissionId, decision: { case: "allow", value: { updatedInputJson } } };
  }
  const { message = "", interrupt = false } = answer as Deny;
  return { sessionId, permissionId, decision: { case: "deny", value: { message, interrupt } } };
}

/** Return the deadline of a turn as a time of `performance.now()`, infinity for none. */
export function untilOf(deadline: number | undefined): number {
  if (deadline === undefined) {
    return Number.POSITIVE_INFINITY;
  }
  return performance.now() + Math.min(1000 * above("deadline", deadline), LONGEST);
}

/** Return a count. Throw unless it is a whole number, and not below 0. */
export function count(field: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw violated(field, `must be a whole number from 0, not ${value}`);
  }
  return value;
}

function above(field: string, value: number): number {
  if (!(value > 0)) {
    throw violated(field, `must be above 0 s, not ${value}`);
  }
  return value;
}

function limit(request: SendRequest, options: SendOptions): void {
  const { turnTimeout, maxAgentSteps = 0 } = options;
  if (turnTimeout !== undefined || maxAgentSteps !== 0) {
    request.limits = {
      $typeName: "samovar.v1.Limits",
      maxAgentSteps: Math.min(count("max_agent_steps", maxAgentSteps), 2 ** 31 - 1),
    };
  }
  if (turnTimeout !== undefined && request.limits) {
    const bounded = Math.min(above("turn_timeout", turnTimeout), YEAR);
    request.limits.turnTimeout = durationFromMs(Math.ceil(1000 * bounded));
  }
}

function specOf(options: SessionOptions): SessionSpec {
  return create(SessionSpecSchema, {
    profile: options.profile ?? "",
    model: options.model ?? "",
    appendSystemPrompt: options.appendSystemPrompt ?? "",
    permissionPolicy: policyOf(options.permissionPolicy),
    labels: { ...options.labels },
  });
}

function policyOf(name: SessionOptions["permissionPolicy"]): PermissionPolicy {
  switch (name) {
    case undefined:
      return PermissionPolicy.UNSPECIFIED;
    case "deny":
      return PermissionPolicy.DENY;
    case "ask":
      return PermissionPolicy.ASK;
    default:
      throw refused(`a permission policy is deny or ask, not ${name}`);
  }
}

function blockOf(block: Block): MessageInitShape<typeof ContentSchema> {
  if (typeof block === "string") {
    return { kind: { case: "text", value: block } };
  }
  if ("image" in block) {
    const { image: data, mediaType = "image/png" } = block;
    return { kind: { case: "image", value: { data, mediaType } } };
  }
  const { document: data, title = "", mediaType = "application/pdf" } = block;
  return { kind: { case: "document", value: { data, title, mediaType } } };
}
