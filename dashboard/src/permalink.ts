// An event in an address: nobody keeps events, so a link to one carries it. Anybody can write such a link.
import type { Event } from "./contract";

/** The longest `e` of a link, characters; longer ones are neither made nor read. */
export const MOST_CHARS = 8 << 10;

/** The event for behind `?e=`: base64url of its JSON. Null when it is too long for a link. */
export function pack(event: Event): string | null {
  const slim: Partial<Event> = { ...event };
  if (!event.crossed?.length) delete slim.crossed; // readers fill in what the contract says for missing fields
  if (!event.rules?.length) delete slim.rules;
  if (event.reason === null) delete slim.reason;
  const bytes = new TextEncoder().encode(JSON.stringify(slim));
  if (bytes.length > MOST_CHARS) return null;
  const text = btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return text.length > MOST_CHARS ? null : text;
}

/** The bytes that a link carries, to be checked like those of the wire; null when it carries none. */
export function unpack(text: string): Uint8Array | null {
  if (text.length > MOST_CHARS || !/^[A-Za-z0-9_-]+$/.test(text)) return null;
  try {
    return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
  } catch {
    return null;
  }
}
