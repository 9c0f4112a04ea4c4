// What is missing of each device's numbering (`seq`), as far as this page can know: no more than it listened for.
//
// A gap is reported only between two events that came while this page listened. Replays fill it: live events go first,
// those that waited follow beside them. After an outage of this page's own link nothing that lies before is missed.
import type { Event } from "./contract";

/** Events of one run of one device that were not heard, from `from` to `to`. */
export interface Gap {
  /** `site/device`. */
  device: string;
  boot: string;
  from: number;
  to: number;
  /** When it was noticed, ms since 1970 by this page's clock. */
  at: number;
}

/** Numbers that were heard, without a hole between them; `missing` when what lies before it should have been heard. */
interface Span {
  from: number;
  to: number;
  missing: boolean;
  at: number;
}

/** One run of one device: what was heard of it, lowest first. */
interface Run {
  spans: Span[];
  /** Whether a live event came in this session, so that from there on every number is expected. */
  sure: boolean;
}

/** A device's runs by their `boot_id`, and the one whose live events are heard within one session of this page. */
interface Runs {
  runs: Map<string, Run>;
  live: string;
}

const MOST_SPANS = 200;
/** Per device, so that none can crowd out another. */
const MOST_RUNS = 4;
const MOST_DEVICES = 20_000;

export class Gaps {
  private readonly devices = new Map<string, Runs>();
  /** Since when it is watched, ms since 1970; it begins again with each session. */
  since = Date.now();
  /** All gaps; null when they changed since they were listed. */
  private all: Gap[] | null = null;

  /** The session at the broker ended, so what came meanwhile was not for this page. What is known to be heard stays. */
  pause(now = Date.now()): void {
    for (const each of this.devices.values()) {
      each.live = "";
      for (const run of each.runs.values()) {
        run.sure = false;
        for (const span of run.spans) span.missing = false;
      }
    }
    this.since = now;
    this.all = null;
  }

  /** Events were passed over on purpose: nothing is known any more. */
  forget(now = Date.now()): void {
    this.devices.clear();
    this.since = now;
    this.all = null;
  }

  /** Take in one event; false when it came before (QoS 1 may bring one twice). */
  add({ site, device: id, boot_id: boot, seq, replayed }: Event, now: number): boolean {
    const name = `${site}/${id}`;
    let device = this.devices.get(name);
    if (!device) {
      if (this.devices.size >= MOST_DEVICES) return true;
      this.devices.set(name, (device = { runs: new Map(), live: "" }));
    }
    let run = device.runs.get(boot);
    if (!run) {
      if (device.runs.size >= MOST_RUNS) {
        for (const old of device.runs.keys()) if (old !== device.live) { device.runs.delete(old); break; }
        this.all = null;
      }
      // a run that begins while another one of the device is listened to is heard from its first event on
      const whole = !replayed && device.live !== "" && device.live !== boot;
      device.runs.set(boot, (run = { sure: whole, spans: whole ? [{ from: 0, to: 0, missing: false, at: now }] : [] }));
    }
    const last = run.spans[run.spans.length - 1];
    if (!last || seq !== last.to + 1) this.all = null;
    const fresh = place(run, seq, now);
    if (!replayed) {
      run.sure = true;
      device.live = boot;
    }
    return fresh;
  }

  /** What is missing now, newest first; of one device only, or of all. */
  list(device?: string): Gap[] {
    if (device === undefined) return (this.all ??= listed(this.devices));
    const mine = this.devices.get(device);
    return mine ? listed([[device, mine]]) : [];
  }
}

function listed(devices: Iterable<[string, Runs]>): Gap[] {
  const found: Gap[] = [];
  for (const [device, { runs }] of devices) {
    for (const [boot, { spans }] of runs) {
      for (let at = 1; at < spans.length; at += 1) {
        const [before, after] = [spans[at - 1], spans[at]];
        if (before && after?.missing) found.push({ device, boot, from: before.to + 1, to: after.from - 1, at: after.at });
      }
    }
  }
  return found.sort((a, b) => b.at - a.at || b.from - a.from);
}

/** Note a number as heard; false when it was. */
function place(run: Run, seq: number, now: number): boolean {
  const { spans } = run;
  let at = spans.length - 1; // the last span that begins at or before it; nearly always the last of all
  while (at >= 0 && (spans[at]?.from ?? 0) > seq) at -= 1;
  const before = spans[at], after = spans[at + 1];
  if (before && seq <= before.to) return false;
  if (before && before.to + 1 === seq) before.to = seq;
  else if (after && after.from - 1 === seq) after.from = seq;
  else {
    // within a hole both parts are as missing as the whole was; what lies before all that was heard is nobody's loss
    const missing = after ? before !== undefined && after.missing : before !== undefined && run.sure;
    spans.splice(at + 1, 0, { from: seq, to: seq, missing, at: after && missing ? after.at : now });
    if (!before && after) after.missing = false;
    if (spans.length > MOST_SPANS) join(spans, 0);
    return true;
  }
  if (before && after && before.to + 1 >= after.from) join(spans, at);
  return true;
}

/** Make one of a span and the next. */
function join(spans: Span[], at: number): void {
  const [first, second] = [spans[at], spans[at + 1]];
  if (!first || !second) return;
  first.to = second.to;
  spans.splice(at + 1, 1);
}
