// The trace that a call belongs to: that of the span that is active in the caller's program.
//
// OpenTelemetry's API is not imported, so that a program without it needs none. Its copies of any
// version 1 find each other by one name on globalThis, and a span by one key of a context
// (`@opentelemetry/api` 1.9.1); a test holds that.

const API = Symbol.for("opentelemetry.js.api.1");
const SPAN = Symbol.for("OpenTelemetry Context Key SPAN");

interface Api {
  context?: { active(): { getValue(key: symbol): Span | undefined } };
}

interface Span {
  spanContext(): { traceId: string; spanId: string; traceFlags: number };
}

/** Return the `traceparent` of the active span (W3C Trace Context), undefined if there is none. */
export function activeTrace(): string | undefined {
  const api = (globalThis as { [API]?: Api })[API];
  const span = api?.context?.active().getValue(SPAN)?.spanContext();
  if (span === undefined || /^0*$/.test(span.traceId) || /^0*$/.test(span.spanId)) {
    return undefined;
  }
  return `00-${span.traceId}-${span.spanId}-${span.traceFlags.toString(16).padStart(2, "0")}`;
}
