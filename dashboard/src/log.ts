// The objects that were seen, newest first, with what is missing of each device's numbering; bounded, and sampled in a flood.
import type { Event } from "./contract";
import { Facets } from "./facets";
import { type Gap, Gaps } from "./gaps";

export type { Gap };

/** One object: its newest event, when it came, and its picture. */
export interface Seen {
  /** `site/device/camera/id`. */
  key: string;
  event: Event;
  /** When its first event came, ms since 1970 by this page's clock. */
  heardAt: number;
  /** When its newest event came. */
  lastAt: number;
  /** Rises with each object; for lists. */
  number: number;
  /** An object URL; empty while there is none. */
  picture: string;
}

export const MOST = 5000;
const MOST_PICTURES = 1000;
/** Above so many events a second only a sample is read. */
export const FLOOD_PER_S = 1000;
/** Over so long the rate is taken. */
export const WINDOW_MS = 3000;
/** After a flood, or after messages were lost, nothing is missed for so long. */
const BLIND_MS = 5000;

export class Log {
  /** Oldest first; at most `MOST` and a few. */
  readonly seen: Seen[] = [];
  readonly byKey = new Map<string, Seen>();
  /** What occurs in events, for filters. */
  readonly facets = new Facets();
  /** Events that came, and those that were read. */
  came = 0;
  read = 0;
  /** One of so many is read at the moment; 1: all. */
  sampling = 1;
  /** Objects since the page was opened. */
  objects = 0;
  private turn = 0;
  private blindUntil = 0;
  private readonly missing = new Gaps();
  /** How many came, from when to when. */
  private readonly rates: { from: number; to: number; many: number }[] = [];
  /** Pictures by object, since one may come before its object's event; and the other way round. */
  private readonly pictures = new Map<string, string>();
  private readonly owners = new Map<string, string>();

  /** Before a batch: how many events it has, how many messages were lost before it, and when its first came. */
  begin(events: number, lost: number, now: number, from = now): void {
    this.came += events + lost;
    this.rates.push({ from: Math.min(from, now), to: now, many: events + lost });
    const rate = this.rate(now);
    this.sampling = rate > FLOOD_PER_S ? Math.ceil(rate / (FLOOD_PER_S / 2)) : 1;
    if (this.sampling > 1 || lost > 0) this.blindUntil = now + BLIND_MS;
    if (now < this.blindUntil) this.missing.forget(this.blindUntil); // what was not read is no gap
  }

  /** Events a second over the last three seconds. */
  get perSecond(): number {
    return this.rate(Date.now());
  }

  /** Since when gaps are looked for without a break, ms since 1970; in the future while they are not. */
  get watchedSince(): number {
    return this.missing.since;
  }

  /** Whether the next event is to be read. */
  wants(): boolean {
    this.turn += 1;
    return this.turn % this.sampling === 0;
  }

  /** The session at the broker ended: what came meanwhile was not for this page. */
  outage(): void {
    this.missing.pause();
  }

  /** Take in an event; false when it came before. */
  add(event: Event, now: number): boolean {
    this.read += 1;
    if (now >= this.blindUntil && !this.missing.add(event, now)) return false;
    this.facets.add(event);
    const key = `${event.site}/${event.device}/${event.camera}/${event.id}`;
    const known = this.byKey.get(key);
    if (known) {
      known.lastAt = now;
      if (newer(event, known.event)) known.event = event;
      return true;
    }
    const made: Seen = { key, event, heardAt: now, lastAt: now, number: (this.objects += 1), picture: this.pictures.get(key) ?? "" };
    this.seen.push(made);
    this.byKey.set(key, made);
    if (this.seen.length > MOST + 500) for (const old of this.seen.splice(0, this.seen.length - MOST)) this.byKey.delete(old.key);
    return true;
  }

  /** A picture of an object came, as an object URL. */
  picture(key: string, url: string): void {
    if (this.pictures.size >= MOST_PICTURES) for (const oldest of this.owners.keys()) { this.unpicture(oldest); break; }
    this.pictures.set(key, url);
    this.owners.set(url, key);
    const seen = this.byKey.get(key);
    if (seen) seen.picture = url;
  }

  /** A picture is no more. */
  unpicture(url: string): void {
    const key = this.owners.get(url);
    if (key === undefined) return;
    this.owners.delete(url);
    if (this.pictures.get(key) !== url) return; // a newer one took its place
    this.pictures.delete(key);
    const seen = this.byKey.get(key);
    if (seen) seen.picture = "";
  }

  /** What is missing now, over all devices or of one (`site/device`), newest first. */
  gaps(device?: string): Gap[] {
    return this.missing.list(device);
  }

  private rate(now: number): number {
    while (now - (this.rates[0]?.to ?? now) > WINDOW_MS) this.rates.shift();
    const over_s = Math.max(1, (now - (this.rates[0]?.from ?? now)) / 1000);
    return this.rates.reduce((sum, { many }) => sum + many, 0) / over_s;
  }
}

/** Whether an event tells more than another of the same object. A killed agent's object is ended by its next run, which numbers anew. */
function newer(event: Event, known: Event): boolean {
  if (event.boot_id === known.boot_id) return event.seq >= known.seq;
  if ((event.type === "end") !== (known.type === "end")) return event.type === "end";
  return !(Date.parse(event.seen_at) < Date.parse(known.seen_at));
}
