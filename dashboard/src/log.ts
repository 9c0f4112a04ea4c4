// The objects that were seen, newest first, with what is missing of each device's numbering; bounded, and sampled in a flood.
import type { Event } from "./contract";

/** One object: its newest event, its first, and how it came. */
export interface Seen {
  /** `site/device/camera/id`. */
  key: string;
  event: Event;
  /** When its first event came, ms since 1970 by this page's clock. */
  heardAt: number;
  /** Rises with each object; for lists. */
  number: number;
  /** An object URL; empty while there is none. */
  picture: string;
}

/** Events of one run of one device that were not heard, from `from` to `to`. */
export interface Gap {
  device: string;
  boot: string;
  from: number;
  to: number;
  at: number;
}

interface Run {
  next: number;
  holes: Gap[];
}

export const MOST = 5000;
const MOST_HOLES = 200;
const MOST_RUNS = 40_000;
/** Above so many events a second only a sample is read. */
export const FLOOD_PER_S = 1000;

export class Log {
  /** Oldest first; at most `MOST`. */
  readonly seen: Seen[] = [];
  readonly byKey = new Map<string, Seen>();
  /** Events that came, and those that were read. */
  came = 0;
  read = 0;
  /** One of so many is read at the moment; 1: all. */
  sampling = 1;
  /** Events a second over the last three seconds. */
  perSecond = 0;
  private count = 0;
  private turn = 0;
  private blindUntil = 0;
  private readonly runs = new Map<string, Run>();
  private readonly rates: [number, number][] = [];

  /** Before a batch: how many events it has and how many messages were lost before it. */
  begin(events: number, lost: number, now: number): void {
    this.came += events + lost;
    this.rates.push([now, events + lost]);
    while (this.rates.length > 1 && now - (this.rates[0]?.[0] ?? now) > 3000) this.rates.shift();
    const over_s = Math.max(1, (now - (this.rates[0]?.[0] ?? now)) / 1000);
    this.perSecond = this.rates.reduce((sum, [, each]) => sum + each, 0) / over_s;
    this.sampling = this.perSecond > FLOOD_PER_S ? Math.ceil(this.perSecond / (FLOOD_PER_S / 2)) : 1;
    if (this.sampling > 1 || lost > 0) this.blindUntil = now + 5000;
    if (now < this.blindUntil) this.runs.clear(); // what was not read is no gap
  }

  /** Whether the next event is to be read. */
  wants(): boolean {
    this.turn += 1;
    return this.turn % this.sampling === 0;
  }

  /** The session at the broker ended: what came meanwhile was not for this page. */
  outage(): void {
    this.runs.clear();
  }

  add(event: Event, now: number): void {
    this.read += 1;
    if (now >= this.blindUntil) this.follow(event, now);
    const key = `${event.site}/${event.device}/${event.camera}/${event.id}`;
    const known = this.byKey.get(key);
    if (known) {
      if (event.seq >= known.event.seq || event.boot_id !== known.event.boot_id) known.event = event;
      return;
    }
    const made: Seen = { key, event, heardAt: now, number: (this.count += 1), picture: "" };
    this.seen.push(made);
    this.byKey.set(key, made);
    if (this.seen.length > MOST + 500) for (const old of this.seen.splice(0, this.seen.length - MOST)) this.byKey.delete(old.key);
  }

  picture(key: string, url: string): void {
    const seen = this.byKey.get(key);
    if (seen) seen.picture = url;
  }

  unpicture(url: string): void {
    for (const each of this.seen) if (each.picture === url) each.picture = "";
  }

  /** What is missing now, over all devices, newest first. */
  gaps(device?: string): Gap[] {
    const found: Gap[] = [];
    for (const run of this.runs.values()) for (const hole of run.holes) if (device === undefined || hole.device === device) found.push(hole);
    return found.sort((a, b) => b.at - a.at);
  }

  private follow(event: Event, now: number): void {
    const device = `${event.site}/${event.device}`;
    const name = `${device} ${event.boot_id}`;
    const run = this.runs.get(name);
    if (!run) {
      if (this.runs.size < MOST_RUNS) this.runs.set(name, { next: event.seq + 1, holes: [] });
      return;
    }
    if (event.seq === run.next) run.next += 1;
    else if (event.seq > run.next) {
      run.holes.push({ device, boot: event.boot_id, from: run.next, to: event.seq - 1, at: now });
      if (run.holes.length > MOST_HOLES) run.holes.shift();
      run.next = event.seq + 1;
    } else fill(run.holes, event.seq);
  }
}

/** Take one number out of what is missing. */
function fill(holes: Gap[], seq: number): void {
  const at = holes.findIndex((hole) => hole.from <= seq && seq <= hole.to);
  const hole = holes[at];
  if (!hole) return;
  const parts = [{ ...hole, to: seq - 1 }, { ...hole, from: seq + 1 }].filter((part) => part.from <= part.to);
  holes.splice(at, 1, ...parts);
}
