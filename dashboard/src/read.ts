// From the bytes of a message to a payload of the contract, checked: what does not fit is told and never used.
import * as checks from "virtual:checks";
import type { Kind, Payloads } from "./contract";

/** Larger ones are not looked at: the contract allows 256 KiB. */
export const MAX_BYTES = 256 << 10;
/** Thousands of events are kept, so they may not be as large. */
const MAX_EVENT_BYTES = 32 << 10;
const MAX_DEPTH = 64;
/** What is shorter cannot be nested so deep that anything breaks. */
const FLAT_BYTES = 2 << 10;
const text = new TextDecoder("utf-8", { fatal: true });

/** A payload, or why it is none. */
export type Read<K extends Kind> = { ok: true; value: Payloads[K] } | { ok: false; why: string };

export function read<K extends Kind>(kind: K, bytes: Uint8Array): Read<K> {
  if (bytes.length > (kind === "event" ? MAX_EVENT_BYTES : MAX_BYTES)) return { ok: false, why: `it has ${bytes.length} bytes` };
  if (kind === "snapshot") {
    const jpeg = bytes.length > 4 && bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
    return jpeg ? { ok: true, value: bytes as Payloads[K] } : { ok: false, why: "it is no JPEG" };
  }
  const check = (checks as Partial<Record<Kind, (typeof checks)["event"]>>)[kind];
  if (!check) return { ok: false, why: "nobody reads it here" };
  if (bytes.length > FLAT_BYTES && isDeep(bytes)) return { ok: false, why: `it is nested more than ${MAX_DEPTH} deep` };
  let value: unknown;
  try {
    value = JSON.parse(text.decode(bytes));
  } catch {
    return { ok: false, why: "it is no JSON" };
  }
  if (check(value)) return { ok: true, value: value as Payloads[K] };
  const first = check.errors?.[0];
  return { ok: false, why: `${first?.instancePath || "it"} ${first?.message ?? "does not fit"}` };
}

/** Whether brackets stand within each other too often, those in strings not counted. */
function isDeep(bytes: Uint8Array): boolean {
  let depth = 0, quoted = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (quoted) {
      if (byte === 0x5c) at += 1; // a backslash: what follows ends nothing
      else if (byte === 0x22) quoted = false;
    } else if (byte === 0x22) quoted = true;
    else if (byte === 0x7b || byte === 0x5b) {
      depth += 1;
      if (depth > MAX_DEPTH) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth -= 1;
  }
  return false;
}
