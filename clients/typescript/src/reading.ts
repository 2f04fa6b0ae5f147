// Messages of the contract as plain objects: numbers for 64 bits, seconds for times, words for
// enums. Knows descriptors and no single message but the event.

import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  type Message,
} from "@bufbuild/protobuf";
import {
  type Duration,
  DurationSchema,
  type Timestamp,
  TimestampSchema,
} from "@bufbuild/protobuf/wkt";

import type { DailyUsage, Event, Session } from "./events.js";
import {
  type DailyUsage as DailyUsageMessage,
  DailyUsageSchema,
  type Event as EventMessage,
  EventSchema,
  type SessionInfo,
  SessionInfoSchema,
} from "./gen/samovar/v1/session_pb.js";

type Convert = (value: never) => unknown;
type Fields = readonly (readonly [name: string, convert: Convert])[];

const compiled = new Map<DescMessage, Fields>();
const kinds = new Map(EventSchema.oneofs[0]?.fields.map((field) => [field.localName, field]));

/** Return the event in a message, null for a kind that is not known. */
export function readEvent(message: EventMessage): Event | null {
  const field = kinds.get(message.kind.case ?? "");
  if (field?.message === undefined || message.kind.value === undefined) {
    return null;
  }
  const event = {
    kind: field.name,
    sequence: Number(message.sequence),
    time: seconds(message.time),
    parentToolUseId: message.parentToolUseId,
    rawJson: message.rawJson,
  };
  return fill(event, field.message, message.kind.value) as unknown as Event;
}

/** Return the session in a message. */
export function readSession(message: SessionInfo): Session {
  const { spec, ...session } = plain(SessionInfoSchema, message) as unknown as Session & {
    spec: { profile: string; model: string };
  };
  return { ...session, profile: spec.profile, model: spec.model };
}

/** Return what a message says was used on a day. */
export function readDay(message: DailyUsageMessage): DailyUsage {
  return plain(DailyUsageSchema, message) as unknown as DailyUsage;
}

/** Return a time or a duration in seconds, null if there is none. */
export function seconds(value: Timestamp | Duration | undefined): number | null {
  return value === undefined ? null : Number(value.seconds) + value.nanos / 1e9;
}

/** Return the words for the values of an enum: their names in lower case, without the prefix. */
export function words(of: DescEnum): Map<number, string> {
  return new Map(of.values.map((value) => [value.number, value.localName.toLowerCase()]));
}

function plain(desc: DescMessage, message: Message | undefined): Record<string, unknown> {
  return fill({}, desc, message ?? create(desc));
}

function fill(
  made: Record<string, unknown>,
  desc: DescMessage,
  message: Message,
): Record<string, unknown> {
  let fields = compiled.get(desc);
  if (fields === undefined) {
    fields = desc.fields.map((field) => [field.localName, converter(field)] as const);
    compiled.set(desc, fields);
  }
  for (const [name, convert] of fields) {
    made[name] = convert(message[name as keyof Message] as never);
  }
  return made;
}

function converter(field: DescField): Convert {
  switch (field.fieldKind) {
    case "enum": {
      const known = words(field.enum);
      return (value: number) => known.get(value) ?? `unknown_${value}`;
    }
    case "message": {
      const of = field.message;
      const isTime =
        of.typeName === TimestampSchema.typeName || of.typeName === DurationSchema.typeName;
      return isTime ? seconds : (value: Message | undefined) => plain(of, value);
    }
    case "map": {
      const of = field.message;
      return (values: Record<string, Message>) =>
        new Map(Object.entries(values).map(([key, value]) => [key, of ? plain(of, value) : value]));
    }
    default:
      return (value: unknown) => (typeof value === "bigint" ? Number(value) : value);
  }
}
