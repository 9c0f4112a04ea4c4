// From the bytes of a message to a payload of the contract, checked: what does not fit is told and never used.
import * as checks from "virtual:checks";
import type { Kind, Payloads } from "./contract";

/** Larger ones are not looked at; the largest of the contract are pictures of 256 KiB. */
export const MAX_BYTES = 512 << 10;
const text = new TextDecoder("utf-8", { fatal: true });

/** A payload, or why it is none. */
export type Read<K extends Kind> = { ok: true; value: Payloads[K] } | { ok: false; why: string };

export function read<K extends Kind>(kind: K, bytes: Uint8Array): Read<K> {
  if (bytes.length > MAX_BYTES) return { ok: false, why: `it has ${bytes.length} bytes` };
  if (kind === "snapshot") {
    const jpeg = bytes.length > 4 && bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
    return jpeg ? { ok: true, value: bytes as Payloads[K] } : { ok: false, why: "it is no JPEG" };
  }
  const check = (checks as Partial<Record<Kind, (typeof checks)["event"]>>)[kind];
  if (!check) return { ok: false, why: "nobody reads it here" };
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
