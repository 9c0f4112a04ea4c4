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

/** One run of one device, by its `boot_id`: what was heard of it, lowest first. */
interface Run {
  device: string;
  boot: string;
  spans: Span[];
  /** Whether a live event came in this session, so that from there on every number is expected. */
  sure: boolean;
}

const MOST_SPANS = 200;
const MOST_RUNS = 40_000;

export class Gaps {
  private readonly runs = new Map<string, Run>();
  /** The run whose live events are heard, by device; within one session of this page. */
  private readonly live = new Map<string, string>();
  /** Since when it is watched, ms since 1970; it begins again with each session. */
  since = Date.now();

  /** The session at the broker ended, so what came meanwhile was not for this page. What is known to be heard stays. */
  pause(now = Date.now()): void {
    for (const run of this.runs.values()) {
      run.sure = false;
      for (const span of run.spans) span.missing = false;
    }
    this.live.clear();
    this.since = now;
  }

  /** Events were passed over on purpose: nothing is known any more. */
  forget(now = Date.now()): void {
    this.runs.clear();
    this.live.clear();
    this.since = now;
  }

  /** Take in one event; false when it came before (QoS 1 may bring one twice). */
  add({ site, device: id, boot_id: boot, seq, replayed }: Event, now: number): boolean {
    const device = `${site}/${id}`;
    const name = `${device} ${boot}`;
    let run = this.runs.get(name);
    if (!run) {
      if (this.runs.size >= MOST_RUNS) for (const oldest of this.runs.keys()) { this.runs.delete(oldest); break; }
      // a run that begins while another one of the device is listened to is heard from its first event on
      const whole = !replayed && this.live.has(device);
      this.runs.set(name, (run = { device, boot, sure: whole, spans: whole ? [{ from: 0, to: 0, missing: false, at: now }] : [] }));
    }
    const fresh = place(run, seq, now);
    if (!replayed) {
      run.sure = true;
      this.live.set(device, boot);
    }
    return fresh;
  }

  /** What is missing now, newest first; of one device only, or of all. */
  list(device?: string): Gap[] {
    const found: Gap[] = [];
    for (const run of this.runs.values()) {
      if (run.spans.length < 2 || (device !== undefined && run.device !== device)) continue;
      for (let at = 1; at < run.spans.length; at += 1) {
        const [before, after] = [run.spans[at - 1], run.spans[at]];
        if (before && after?.missing) found.push({ device: run.device, boot: run.boot, from: before.to + 1, to: after.from - 1, at: after.at });
      }
    }
    return found.sort((a, b) => b.at - a.at || b.from - a.from);
  }
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
