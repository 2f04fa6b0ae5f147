import { Code, ConnectError } from "@connectrpc/connect";

import type { FailureCause } from "./events.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { type ErrorReason, ErrorReasonSchema } from "./gen/samovar/v1/errors_pb.js";
import { seconds, words } from "./reading.js";

const DOMAIN = "samovar";
const reasons = new Set(words(ErrorReasonSchema).values());

/**
 * What a failure is about, and so what to do about it: the service's reason in lower case, or
 *
 * - `unrecognized`: a reason that this version does not know; go by `code`,
 * - `call_broken`: the call broke on its way, and what happened is not known,
 * - `deadline_exceeded`: the call's own deadline passed,
 * - `client_closed`: the client was closed before or during the call,
 * - `turn_failed`: the agent reported a failure, see `failure`; of a turn for its answer only,
 * - `invalid_argument`: the client does not send such a value.
 */
export type Kind =
  | Lowercase<Exclude<keyof typeof ErrorReason, "UNSPECIFIED">>
  | "unrecognized"
  | "call_broken"
  | "deadline_exceeded"
  | "client_closed"
  | "turn_failed"
  | "invalid_argument";

/** A field of a request, empty for the request as a whole, and what is wrong with it. */
export type Violation = readonly [field: string, description: string];

/** What the agent reported of a turn that failed. */
export interface Failure {
  /** Sentences for people. */
  readonly errors: readonly string[];
  /** The HTTP status of the failed call of the model's API, 0 if none. */
  readonly upstreamStatus: number;
  /** After how many seconds the model's API takes requests again, null if not known. */
  readonly upstreamRetryDelay: number | null;
  readonly failureCause: FailureCause;
}

/** What an error says besides its kind and its message. */
export interface Details extends Partial<Omit<SamovarError, keyof Error | "kind">> {
  /** What was thrown below. */
  readonly cause?: unknown;
}

/** A failed call. Its `kind` says what to do. */
export class SamovarError extends Error {
  override readonly name = "SamovarError";
  readonly kind: Kind;
  /** The value of `ErrorReason` without its prefix; empty if the status is not the service's. */
  readonly reason: string;
  /** The name of gRPC's status code, in upper case. */
  readonly code: string;
  /** True if the agent was given the message, so that tools may have run. */
  readonly promptWritten: boolean;
  /** After how many seconds the same call may be repeated; null if it may not. */
  readonly retryDelay: number | null;
  /** The service's details of the reason. */
  readonly metadata: ReadonlyMap<string, string>;
  /** What is wrong with the request. */
  readonly violations: readonly Violation[];
  /** What the agent reported, if the kind is `turn_failed`. */
  readonly failure: Failure | null;

  constructor(kind: Kind, message: string, details: Details = {}) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
    this.kind = kind;
    this.reason = details.reason ?? "";
    this.code = details.code ?? "UNKNOWN";
    this.promptWritten = details.promptWritten ?? false;
    this.retryDelay = details.retryDelay ?? null;
    this.metadata = details.metadata ?? new Map();
    this.violations = details.violations ?? [];
    this.failure = details.failure ?? null;
  }
}

/** Return the error of a call as one of this package. */
export function errorOf(thrown: unknown): SamovarError {
  if (thrown instanceof SamovarError) {
    return thrown;
  }
  const error = ConnectError.from(thrown);
  const code = nameOf(codeOf(error));
  const [info] = error.findDetails(ErrorInfoSchema);
  if (info?.domain !== DOMAIN) {
    const late = error.code === Code.DeadlineExceeded;
    const kind = late ? "deadline_exceeded" : "call_broken";
    return new SamovarError(kind, error.rawMessage || code.toLowerCase(), { code, cause: thrown });
  }
  const [retry] = error.findDetails(RetryInfoSchema);
  const [bad] = error.findDetails(BadRequestSchema);
  const kind = info.reason.toLowerCase();
  return new SamovarError(reasons.has(kind) ? (kind as Kind) : "unrecognized", error.rawMessage, {
    code,
    reason: info.reason,
    metadata: new Map(Object.entries(info.metadata)),
    promptWritten: info.metadata.promptWritten === "true",
    retryDelay: seconds(retry?.retryDelay),
    violations: (bad?.fieldViolations ?? []).map((each) => [each.field, each.description] as const),
  });
}

/** Return the error of a value that the client does not send. */
export function refused(message: string): SamovarError {
  return new SamovarError("invalid_argument", message, { code: "INVALID_ARGUMENT" });
}

/** Return the error of a field that the client does not send. */
export function violated(field: string, what: string): SamovarError {
  return new SamovarError("request_invalid", `${field || "the request"} ${what}`, {
    code: "INVALID_ARGUMENT",
    violations: [[field, what]],
  });
}

// Connect has codes of its own for what broke on this side, by what it met: a reset connection is
// `aborted`, half a message `invalid_argument`. gRPC calls a lost connection unavailable.
function codeOf(error: ConnectError): Code {
  const ours = [Code.Aborted, Code.InvalidArgument, Code.Unknown, Code.Internal];
  const said = error.metadata.has("grpc-status") || error.metadata.has("grpc-status-details-bin");
  return !said && ours.includes(error.code) ? Code.Unavailable : error.code;
}

function nameOf(code: Code): string {
  const name = Code[code] ?? "Unknown";
  return code === Code.Canceled
    ? "CANCELLED"
    : name.replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase();
}
