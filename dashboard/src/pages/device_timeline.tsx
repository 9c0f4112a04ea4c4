// The newest objects of one device: as bars over the last two minutes, and as a list with the same and more.
import type { JSX } from "preact";
import { app } from "../app";
import type { Device } from "../fleet";
import type { Log, Seen } from "../log";
import { to } from "../router";
import { Note, Tag, ago, clock, figure } from "../ui/bits";

const SPAN_MS = 120_000;
const MOST_BARS = 300;
const MOST_LANES = 20;
const MOST_TRACKS = 3;
const MOST_LISTED = 40;
const TRUSTED_SKEW_MS = 2000;
const TICKS_S = [120, 90, 60, 30, 0];

interface Bar {
  seen: Seen;
  start: number;
  end: number;
  /** Still in sight. */
  open: boolean;
  track: number;
}

interface Lane {
  camera: string;
  label: string;
  bars: Bar[];
  tracks: number;
}

/** Objects of one device, newest first: all that reach into the span, and the newest of all. 5,000 are looked at. */
export function objectsOf(log: Log, device: Device, from: number, now: number): { bars: Bar[]; listed: Seen[] } {
  const bars: Bar[] = [], listed: Seen[] = [];
  for (let at = log.seen.length - 1; at >= 0; at -= 1) {
    const seen = log.seen[at];
    if (!seen || seen.event.device !== device.device || seen.event.site !== device.site) continue;
    if (listed.length < MOST_LISTED) listed.push(seen);
    if (bars.length >= MOST_BARS) break;
    const { event } = seen;
    const open = event.ended_at === null && (device.cameras.get(event.camera)?.present.has(event.id) ?? false);
    const start = Date.parse(event.started_at), end = open ? now : Date.parse(event.ended_at ?? event.seen_at);
    if (end >= from && start <= now) bars.push({ seen, start, end, open, track: 0 });
  }
  return { bars, listed };
}

/** One lane for each camera and label; bars that meet lie below each other. */
function lanesOf(bars: Bar[]): Lane[] {
  const lanes = new Map<string, Lane>();
  for (const bar of bars.sort((a, b) => a.start - b.start)) {
    const { camera, label } = bar.seen.event;
    const key = `${camera} ${label}`;
    let lane = lanes.get(key);
    if (!lane) lanes.set(key, (lane = { camera, label, bars: [], tracks: 1 }));
    const free = (track: number): boolean => !lane.bars.some((each) => each.track === track && each.end > bar.start);
    while (bar.track < MOST_TRACKS - 1 && !free(bar.track)) bar.track += 1;
    lane.tracks = Math.max(lane.tracks, bar.track + 1);
    lane.bars.push(bar);
  }
  return [...lanes.values()].sort((a, b) => (a.camera < b.camera ? -1 : a.camera > b.camera ? 1 : a.label < b.label ? -1 : 1));
}

export function Timeline({ device }: { device: Device }): JSX.Element {
  const fleet = app.value?.fleet;
  const skew = Math.abs(device.skewMs ?? 0) > TRUSTED_SKEW_MS ? (device.skewMs ?? 0) : 0;
  const now = Date.now() + skew; // by the device's clock
  const { bars, listed } = fleet ? objectsOf(fleet.log, device, now - SPAN_MS, now) : { bars: [], listed: [] };
  const lanes = lanesOf(bars);
  const gaps = fleet?.log.gaps(device.key) ?? [];
  const missing = gaps.reduce((sum, gap) => sum + gap.to - gap.from + 1, 0);
  return (
    <section class="card" aria-labelledby="timeline">
      <h2 id="timeline">Seen <span class="dim">last two minutes · {device.events} events since this page was opened</span> <a class="device-more" href={to(["events"], { site: device.site, device: device.device })}>All of them</a></h2>
      {missing > 0 && <Note tone="warn" title="Events are missing.">{missing} {missing === 1 ? "was" : "were"} not heard yet; those that waited on the device come later.</Note>}
      {listed.length === 0 ? <p class="dim">Nothing yet: events come when something appears, moves on or leaves. Those from before this page was opened are not kept by the broker.</p> : (
        <>
          <div class="lanes" aria-hidden="true">
            <div class="lane axis"><span /><div class="track">{TICKS_S.map((s) => <span key={s} class={`tick${s % 60 ? " half" : ""}`} style={{ left: `${100 - (s / 120) * 100}%` }}>{s === 0 ? "now" : `−${s} s`}</span>)}</div></div>
            {lanes.slice(0, MOST_LANES).map((lane) => <LaneRow key={`${lane.camera} ${lane.label}`} lane={lane} now={now} />)}
            {lanes.length > MOST_LANES && <p class="dim">{lanes.length - MOST_LANES} more kinds are in the list.</p>}
          </div>
          <div class="table-box seen-box" tabIndex={0} role="region" aria-label="Newest objects">
            <table class="seen">
              <caption class="unseen">Newest objects, at most {MOST_LISTED}</caption>
              <thead><tr><th scope="col">Picture</th><th scope="col">Object</th><th scope="col">Score</th><th scope="col">Began</th><th scope="col">Lasted</th><th scope="col" class="wide">Zones</th><th scope="col">State</th></tr></thead>
              <tbody>{listed.map((seen) => <SeenRow key={seen.key} seen={seen} device={device} now={now} />)}</tbody>
            </table>
          </div>
        </>
      )}
    </section>
  );
}

const pageOf = ({ event }: Seen): string => to(["event", event.site, event.device, event.camera, event.id]);

function LaneRow({ lane, now }: { lane: Lane; now: number }): JSX.Element {
  const from = now - SPAN_MS;
  const share = (at: number): number => Math.min(1, Math.max(0, (at - from) / SPAN_MS)) * 100;
  return (
    <div class="lane">
      <span class="lane-name" title={`${lane.camera} ${lane.label}`}><span class="dim">{lane.camera}</span> {lane.label}</span>
      <div class="track" style={{ height: `${lane.tracks * 18}px` }}>
        {lane.bars.map(({ seen, start, end, open, track }) => {
          const left = share(start), wide = share(end) - left;
          return (
            <a key={seen.key} class={`bar-of ${open ? "open" : ""}`} href={pageOf(seen)} tabIndex={-1} title={`${lane.label}, ${lasted(end - start)}, from ${clock(start)}`}
              style={{ left: `${left}%`, width: `max(5px, ${wide}%)`, top: `${track * 18 + 1}px` }}>
              {seen.picture && wide > 4 && <img src={seen.picture} alt="" />}
              {wide > 6 && <span>{lasted(end - start)}</span>}
            </a>
          );
        })}
      </div>
    </div>
  );
}

function SeenRow({ seen, device, now }: { seen: Seen; device: Device; now: number }): JSX.Element {
  const { event } = seen;
  const here = event.type !== "end" && (device.cameras.get(event.camera)?.present.has(event.id) ?? false);
  return (
    <tr>
      <td>{seen.picture ? <img src={seen.picture} alt={`${event.label.slice(0, 60)} at ${event.camera}`} /> : <span class="no-picture" />}</td>
      <td><a href={pageOf(seen)}>{event.label || "(no label)"}</a> <span class="dim">{event.camera}</span></td>
      <td>{figure(event.best_score * 100, 0, "%")}</td>
      <td>{clock(event.started_at)}</td>
      <td>{lasted(here ? now - Date.parse(event.started_at) : event.track.age_s * 1000)}</td>
      <td class="wide">{event.zones.entered.slice(0, 8).join(", ") || "–"}</td>
      <td>{here ? <Tag tone="good">in sight</Tag> : <span class="dim">{event.reason ?? (event.type === "end" ? "ended" : `told ${ago(Date.now() - seen.lastAt)} ago`)}</span>} {event.replayed && <Tag>replayed</Tag>}</td>
    </tr>
  );
}

/** A duration: `0.4 s`, `12 s`, `3 min`. */
export function lasted(ms: number): string {
  const s = Math.max(0, ms / 1000);
  if (!Number.isFinite(s)) return "–";
  return s < 10 ? `${s.toFixed(1)} s` : s < 100 ? `${Math.round(s)} s` : `${Math.round(s / 60)} min`;
}
