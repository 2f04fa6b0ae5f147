// The address of a service and the connections to it. Knows Node's HTTP/2 and TLS.

import type {
  ClientHttp2Stream,
  ClientSessionOptions,
  SecureClientSessionOptions,
} from "node:http2";
import { connect as connectPlain } from "node:net";
import { connect as connectSecured, createSecureContext, type SecureContext } from "node:tls";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { refused } from "./errors.js";

/** Where a client looks for its service. */
export const DEFAULT_TARGET = "127.0.0.1:50051";
const LOCAL = /^(unix:.*|(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?)$/i;
const PLACE = /^((?:[^:/?#@[\]\s]+|\[[^[\]\s]+\]):\d{1,5}|unix:.+)$/;
const PINGS = { pingIntervalMs: 30_000, pingTimeoutMs: 10_000, connectTimeoutMs: 20_000 };

/** TLS by PEM files' contents; without any, by the authorities that Node trusts. */
export interface Tls {
  /** The authorities to trust. */
  readonly ca?: string | Uint8Array;
  /** The certificate to show (mTLS), with its chain. */
  readonly certificate?: string | Uint8Array;
  /** The key of that certificate. */
  readonly key?: string | Uint8Array;
  /** The name in the service's certificate, if it is not the target's. */
  readonly serverName?: string;
}

/** A connection, made at its first call and again after it broke. */
export interface Line {
  readonly transport: Transport;
  /** End it with all that is open. */
  close(): void;
}

/** Return a target without its scheme. Throw if it is none, or not one for a credential. */
export function targetOf(target: string, credential: string | undefined, secured: boolean): string {
  const place = target.replace(/^(dns|ipv4|ipv6):(\/\/\/)?/i, "");
  if (!PLACE.test(place)) {
    throw refused(`${target} is no target: host:port or unix:/path is one`);
  }
  if (credential !== undefined && /[^\x20-\x7e]/.test(credential)) {
    throw refused("the credential holds what no header can");
  }
  if (credential !== undefined && !secured && !LOCAL.test(place)) {
    throw refused("a credential is only sent over TLS or within this machine: set tls");
  }
  return place;
}

/** Return a connection to a target. */
export function lineTo(target: string, tls: Tls | undefined): Line {
  const path = /^unix:(\/\/)?(.*)$/i.exec(target)?.[2];
  const baseUrl = `${tls ? "https" : "http"}://${path === undefined ? target : "localhost"}`;
  // By default Node refuses new streams while 10 MB wait to be sent.
  const options: SecureClientSessionOptions = { maxSessionMemory: Number.MAX_SAFE_INTEGER };
  if (tls !== undefined) {
    options.secureContext = contextOf(tls);
  }
  if (tls?.serverName !== undefined) {
    options.servername = tls.serverName;
  }
  if (path !== undefined) {
    options.createConnection = () =>
      tls
        ? connectSecured({ ...options, path, ALPNProtocols: ["h2"] } as object)
        : connectPlain({ path });
  }
  const sessionManager = new Sessions(baseUrl, PINGS, options as ClientSessionOptions);
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager, acceptCompression: [] }),
    close: () => sessionManager.abort(),
  };
}

/** Connect's sessions, without two of its faults (`@connectrpc/connect-node` 2.1.2). */
class Sessions extends Http2SessionManager {
  override async request(
    ...given: Parameters<Http2SessionManager["request"]>
  ): Promise<ClientHttp2Stream> {
    const stream = await super.request(...given);
    // A session that is closed after the server's GOAWAY has an error that nothing listens for,
    // which would end the program.
    if (stream.session?.listeners("error").includes(ignore) === false) {
      stream.session.on("error", ignore);
    }
    // A stream that ends without an answer and without an error would be waited for for ever.
    let answered = false;
    stream.once("response", () => {
      answered = true;
    });
    stream.once("close", () => {
      if (!answered) {
        stream.emit("error", new Error("the stream was closed before it was answered"));
      }
    });
    return stream;
  }
}

function ignore(): void {}

function contextOf({ ca, certificate, key }: Tls): SecureContext {
  if ((certificate === undefined) !== (key === undefined)) {
    throw refused("a certificate needs its key: tls takes both or none");
  }
  try {
    return createSecureContext({ ca: pem(ca), cert: pem(certificate), key: pem(key) });
  } catch (error) {
    throw refused(`the files for TLS cannot be used: ${(error as Error).message}`);
  }
}

function pem(given: string | Uint8Array | undefined): string | Buffer | undefined {
  return given === undefined || typeof given === "string" ? given : Buffer.from(given);
}
