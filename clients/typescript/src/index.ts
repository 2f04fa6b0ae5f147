/** Samovar's client: turns of an agent that stays warm, over gRPC. */
export type { Answer } from "./answer.js";
export {
  type AttachOptions,
  type CallOptions,
  Client,
  type ClientOptions,
  type Health,
  type UsageOptions,
} from "./client.js";
export type { Conversation } from "./conversation.js";
export { type Details, type Failure, type Kind, SamovarError, type Violation } from "./errors.js";
export type * from "./events.js";
export type {
  Allow,
  Block,
  Decision,
  Deny,
  Document,
  Image,
  OnPermission,
  SendOptions,
  SessionOptions,
} from "./requests.js";
export { DEFAULT_TARGET, type Tls } from "./transport.js";
export type { Turn } from "./turn.js";
