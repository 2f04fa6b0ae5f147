/** How a turn got its process. */
export type StartMode = "unspecified" | "warm" | "spare" | "cold" | "resumed" | `unknown_${number}`;

/** How a turn ended. */
export type Outcome =
  | "unspecified"
  | "completed"
  | "interrupted"
  | "limit_reached"
  | "failed"
  | `unknown_${number}`;

/** Why a turn failed, `unspecified` if it did not. Treat an unknown value as `other`. */
export type FailureCause =
  | "unspecified"
  | "other"
  | "authentication"
  | "permission"
  | "billing"
  | "rate_limited"
  | "overloaded"
  | "upstream"
  | "network"
  | "invalid_request"
  | "request_too_large"
  | "context_too_long"
  | "model_not_found"
  | "result_invalid"
  | `unknown_${number}`;

/** How a permission request ended. */
export type Resolution =
  | "unspecified"
  | "allowed"
  | "denied"
  | "expired"
  | "withdrawn"
  | `unknown_${number}`;

/** Tokens, and the agent's own estimate of the cost in US dollars. */
export interface Usage {
  /** Input tokens, without those of the cache. */
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cacheReadInputTokens: number;
  readonly cacheCreationInputTokens: number;
  readonly costUsd: number;
}

/** When each stage of a turn was reached, in seconds since the epoch; null if it was not. */
export interface Timings {
  readonly receiveTime: number | null;
  readonly admitTime: number | null;
  readonly processReadyTime: number | null;
  readonly promptWriteTime: number | null;
  readonly firstEventTime: number | null;
  readonly firstTextTime: number | null;
  readonly finishTime: number | null;
  /** For how many seconds a permission request was open, null if none was. */
  readonly permissionWait: number | null;
}

/** The fields of every event. */
export interface EventHead {
  /** The number of the event in its turn, from 1, without gaps. */
  readonly sequence: number;
  /** When it happened, in seconds since the epoch. */
  readonly time: number | null;
  /** The tool call whose sub-agent it came from; empty for the main agent. */
  readonly parentToolUseId: string;
  /** The agent's own line, if it was asked for and is allowed, else empty. */
  readonly rawJson: Uint8Array;
}

/** The first event: the message was written to a process. */
export interface TurnStarted extends EventHead {
  readonly kind: "turn_started";
  readonly sessionId: string;
  readonly turnId: string;
  readonly startMode: StartMode;
  readonly processId: string;
  readonly pid: number;
  /** The number of this turn within the process, from 1. */
  readonly processTurn: number;
}

/** The agent's description of itself. */
export interface AgentInfo extends EventHead {
  readonly kind: "agent_info";
  readonly model: string;
  readonly agentVersion: string;
  readonly tools: readonly string[];
}

/** A piece of a text block. */
export interface TextDelta extends EventHead {
  readonly kind: "text_delta";
  readonly messageId: string;
  readonly blockIndex: number;
  readonly text: string;
}

/** A piece of a thinking block. */
export interface ThinkingDelta extends EventHead {
  readonly kind: "thinking_delta";
  readonly messageId: string;
  readonly blockIndex: number;
  readonly text: string;
}

/** The message's blocks from this one on are void: forget their deltas. */
export interface BlocksAbandoned extends EventHead {
  readonly kind: "blocks_abandoned";
  readonly messageId: string;
  readonly fromBlockIndex: number;
}

/** The agent calls a tool. */
export interface ToolUse extends EventHead {
  readonly kind: "tool_use";
  readonly toolUseId: string;
  readonly toolName: string;
  /** A JSON object, unless bytes were cut off. */
  readonly inputJson: string;
  readonly inputTruncatedBytes: number;
}

/** A tool returned. */
export interface ToolResult extends EventHead {
  readonly kind: "tool_result";
  readonly toolUseId: string;
  readonly text: string;
  readonly textTruncatedBytes: number;
  readonly isError: boolean;
}

/** A tool waits to be allowed. */
export interface PermissionRequested extends EventHead {
  readonly kind: "permission_requested";
  readonly permissionId: string;
  readonly toolUseId: string;
  readonly toolName: string;
  /** A JSON object, unless bytes were cut off. */
  readonly inputJson: string;
  readonly inputTruncatedBytes: number;
  /** A sentence to show to a user; may be empty. */
  readonly title: string;
  readonly reason: string;
  /** When the tool is denied if no answer came, in seconds since the epoch. */
  readonly expireTime: number | null;
}

/** A permission request is over. */
export interface PermissionResolved extends EventHead {
  readonly kind: "permission_resolved";
  readonly permissionId: string;
  readonly resolution: Resolution;
}

/** What the turn has used so far. */
export interface UsageUpdated extends EventHead, Usage {
  readonly kind: "usage_updated";
}

/** Something worth showing. */
export interface Notice extends EventHead {
  readonly kind: "notice";
  /** A stable name in kebab-case. */
  readonly code: string;
  readonly message: string;
}

/** The last event of a turn whose end is known. */
export interface TurnFinished extends EventHead {
  readonly kind: "turn_finished";
  readonly outcome: Outcome;
  /** The final answer; the deltas have what was cut off. */
  readonly result: string;
  readonly resultTruncatedBytes: number;
  readonly stopReason: string;
  /** What went wrong, as sentences for users. */
  readonly errors: readonly string[];
  /** The HTTP status of the failed call of the model's API, 0 if none. */
  readonly upstreamStatus: number;
  /** After how many seconds the model's API takes requests again, null if not known. */
  readonly upstreamRetryDelay: number | null;
  readonly usage: Usage;
  readonly usageByModel: ReadonlyMap<string, Usage>;
  readonly agentSteps: number;
  readonly timings: Timings;
  readonly failureCause: FailureCause;
}

/** A line of the agent that the service has no event for. */
export interface Unrecognized extends EventHead {
  readonly kind: "unrecognized";
  readonly type: string;
  readonly subtype: string;
}

/** Something that happened in a turn. Its `kind` is its name in the contract. */
export type Event =
  | TurnStarted
  | AgentInfo
  | TextDelta
  | ThinkingDelta
  | BlocksAbandoned
  | ToolUse
  | ToolResult
  | PermissionRequested
  | PermissionResolved
  | UsageUpdated
  | Notice
  | TurnFinished
  | Unrecognized;

/** A session. Times are seconds since the epoch. */
export interface Session {
  readonly sessionId: string;
  readonly state:
    | "unspecified"
    | "warm"
    | "running"
    | "input_required"
    | "suspended"
    | "closed"
    | `unknown_${number}`;
  readonly profile: string;
  readonly model: string;
  /** The running turn; empty if there is none. */
  readonly activeTurnId: string;
  readonly turnCount: number;
  readonly usage: Usage;
  readonly createTime: number | null;
  readonly updateTime: number | null;
  /** When the service closes the session, unless a turn begins first. */
  readonly expireTime: number | null;
}

/** What the caller's turns used on a day in UTC with a model. */
export interface DailyUsage {
  /** The day, as `2026-11-30`. */
  readonly day: string;
  /** The model; empty if it is not known. */
  readonly model: string;
  /** The turns that ended with a report; `usage` is the sum of theirs. */
  readonly turns: number;
  readonly usage: Usage;
  /** The turns whose end is not known; `lostUsage` is an estimate. */
  readonly lostTurns: number;
  readonly lostUsage: Usage;
}
