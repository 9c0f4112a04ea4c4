// Every site and device, the gravest first.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { app } from "../app";
import { type Fleet, type Mood } from "../fleet";
import { ask, route, to } from "../router";
import { useTick } from "../tick";
import { Copy, MoodMark, Note, Tag, ago, clock, figure } from "../ui/bits";
import { Rows } from "../ui/rows";
import { type Line, type Order, type Standing, alertsOf, lineOf, sort } from "./overview_view";
import "./overview.css";

const MOODS: readonly Mood[] = ["failing", "degraded", "offline", "unknown", "ok"];
const HEADS: readonly [string, Order | null][] = [
  ["State", "state"], ["Device", "device"], ["What is so", null], ["fps", "fps"], ["Frame age", "age"], ["Bundle", "bundle"], ["Heard", "heard"],
];
/** More sites than these are chosen from a list. */
const FEW_SITES = 6;
const FIRST_ALERTS = 3;
const MOST_ALERTS = 50;

/** Change some of what the address asks for. */
function want(changes: Record<string, string>): void {
  ask({ ...Object.fromEntries(route.value.query), ...changes });
}

export function Overview(): JSX.Element {
  useTick();
  const now = app.value;
  if (!now) return <Note title="Beginning…" />;
  const { fleet, link } = now;
  const { query } = route.value;
  const [only, site, find] = [query.get("state") ?? "", query.get("site") ?? "", query.get("find") ?? ""];
  if (fleet.devices.size === 0) return <NoDevices online={link.state.value.kind === "online"} broker={now.config.broker} />;
  const { lines, sites, counts } = look(fleet, site);
  const sought = find.toLowerCase();
  const shown = only || sought ? lines.filter((line) => (!only || line.mood === only) && (!sought || textOf(line).includes(sought))) : lines;
  const [by, descending] = order(query.get("sort") ?? "");
  sort(shown, by, descending);
  return (
    <div class="page fill">
      <h1 class="unseen">Overview</h1>
      <Alerts all={alertsOf(lines.map((line) => line.device))} />
      {sites.length > 1 && <Sites sites={sites} site={site} />}
      <div class="filters" role="group" aria-label="Filter by state">
        <button type="button" aria-pressed={only === ""} onClick={() => want({ state: "" })}>All {lines.length.toLocaleString()}</button>
        {MOODS.filter((mood) => counts.has(mood) || only === mood).map((mood) => (
          <button type="button" key={mood} aria-pressed={only === mood} onClick={() => want({ state: only === mood ? "" : mood })}>
            <MoodMark mood={mood} /> {(counts.get(mood) ?? 0).toLocaleString()}
          </button>
        ))}
        <label class="find"><span class="unseen">Find a device, a bundle or a problem</span>
          <input type="search" placeholder="Find" value={find} onInput={(event) => want({ find: event.currentTarget.value })} />
        </label>
      </div>
      <Totals lines={shown} fleet={fleet} />
      {shown.length === 0 ? (
        <Note title="No device fits the filter."><button type="button" onClick={() => ask({})}>Show all</button></Note>
      ) : (
        <Rows class="devices" label="Devices" height={52} rows={shown} keyOf={(line) => line.device.key}
          heads={HEADS.map(([name, column]) => (column ? <Head key={name} name={name} column={column} by={by} descending={descending} /> : name))}
          sorts={HEADS.map(([, column]) => (column === null ? undefined : column !== by ? "none" : descending ? "descending" : "ascending"))}
          draw={(line) => <Row {...line} />} />
      )}
    </div>
  );
}

/** One walk over all devices: the lines of one site or of all, the names of sites, how many are in each state. */
function look(fleet: Fleet, site: string): { lines: Line[]; sites: string[]; counts: Map<Mood, number> } {
  const lines: Line[] = [], sites = new Set<string>(), counts = new Map<Mood, number>();
  const now = Date.now();
  for (const device of fleet.devices.values()) {
    sites.add(device.site);
    if (site && device.site !== site) continue;
    const line = lineOf(device, now);
    lines.push(line);
    counts.set(line.mood, (counts.get(line.mood) ?? 0) + 1);
  }
  if (site) sites.add(site); // of a shared address
  return { lines, sites: [...sites].sort(), counts };
}

const textOf = ({ device, what, bundle }: Line): string => `${device.key} ${bundle} ${what}`.toLowerCase();

/** `fps` or `-fps`; the gravest first without. */
function order(asked: string): [Order, boolean] {
  const name = asked.replace(/^-/, "");
  const column = HEADS.find(([, each]) => each === name)?.[1];
  return column ? [column, asked.startsWith("-")] : ["state", false];
}

function Head({ name, column, by, descending }: { name: string; column: Order; by: Order; descending: boolean }): JSX.Element {
  const mine = column === by;
  return (
    <button type="button" class="sort" onClick={() => want({ sort: mine && !descending ? `-${column}` : column })}>
      {name} <span aria-hidden="true">{mine ? (descending ? "▼" : "▲") : ""}</span>
    </button>
  );
}

function Sites({ sites, site }: { sites: readonly string[]; site: string }): JSX.Element {
  if (sites.length > FEW_SITES) {
    return (
      <label class="site-choice">Site{" "}
        <select value={site} onChange={(event) => want({ site: event.currentTarget.value })}>
          <option value="">All {sites.length.toLocaleString()} sites</option>
          {sites.slice(0, 2000).map((each) => <option key={each} value={each}>{each}</option>)}
        </select>
      </label>
    );
  }
  return (
    <div class="filters" role="group" aria-label="Filter by site">
      <button type="button" aria-pressed={site === ""} onClick={() => want({ site: "" })}>All sites</button>
      {sites.map((each) => <button type="button" key={each} aria-pressed={site === each} onClick={() => want({ site: site === each ? "" : each })}>{each}</button>)}
    </div>
  );
}

/** The gravest few; the others on demand. */
function Alerts({ all }: { all: readonly Standing[] }): JSX.Element | null {
  const [open, setOpen] = useState(false);
  if (all.length === 0) return null;
  const shown = all.slice(0, open ? MOST_ALERTS : FIRST_ALERTS), more = all.length - FIRST_ALERTS;
  return (
    <section class="standing" aria-label="Alerts">
      <ul class={open ? "open" : ""}>
        {shown.map(({ device, code, alert }) => (
          <li key={`${device.key} ${code}`}>
            <Tag tone={alert.severity === "error" ? "bad" : "warn"}>{alert.severity === "error" ? "■ error" : "▲ warning"}</Tag>
            <a href={to(["device", device.site, device.device])}>{device.key}</a>
            <code>{code}</code>
            <span class="said" title={`${alert.what} ${alert.mend}`.slice(0, 2000)}>{alert.what.slice(0, 500)} <span class="dim">{alert.mend.slice(0, 500)}</span></span>
            <span class="dim since" title={clock(alert.since, true)}>{since(alert.since)}</span>
          </li>
        ))}
      </ul>
      {more > 0 && <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "Fewer alerts" : `${more.toLocaleString()} more`}</button>}
      {open && all.length > MOST_ALERTS && <span class="dim"> The gravest {MOST_ALERTS} of {all.length.toLocaleString()}.</span>}
    </section>
  );
}

function since(time: string): string {
  const at = Date.parse(time);
  return Number.isNaN(at) ? "–" : `since ${ago(Date.now() - at)}`.replace("since now", "just now");
}

function Totals({ lines, fleet }: { lines: readonly Line[]; fleet: Fleet }): JSX.Element {
  let cameras = 0, fps = 0, objects = 0, waiting = 0;
  for (const line of lines) {
    cameras += line.cameras;
    objects += line.objects;
    if (line.mood === "offline") continue;
    fps += line.fps;
    waiting += line.device.health?.outbox.depth ?? 0;
  }
  const said = (many: number, word: string): string => `${many.toLocaleString()} ${word}${many === 1 ? "" : "s"}`;
  return (
    <p class="totals dim">
      {said(lines.length, "device")} · {said(cameras, "camera")} · {figure(fps, 0)} fps · {said(objects, "object")} in sight
      {waiting > 0 && <> · {said(waiting, "event")} waiting on devices</>} · <a class="rate" href={to(["events"])}>{figure(fleet.log.perSecond)} events/s</a>
    </p>
  );
}

function Row({ device, mood, what, fps, age_ms, cameras, objects, bundle }: Line): JSX.Element {
  return (
    <>
      <div role="cell" class="c-mood"><MoodMark mood={mood} /></div>
      <div role="cell" class="c-name"><a href={to(["device", device.site, device.device])}><span class="dim">{device.site}/</span>{device.device}</a></div>
      <div role="cell" class="c-what" title={what.slice(0, 2000)}><bdi>{what.slice(0, 500) || `${cameras} camera${cameras === 1 ? "" : "s"}, ${objects.toLocaleString()} in sight`}</bdi></div>
      <div role="cell" class="c-num">{device.health ? figure(fps, 1) : "–"}</div>
      <div role="cell" class="c-num">{device.health ? figure(age_ms, 0, "ms") : "–"}</div>
      <div role="cell" class="c-bundle" title={bundle.slice(0, 500)}>{bundle.slice(0, 200) || "–"}</div>
      <div role="cell" class="c-heard">{device.heardAt ? ago(Date.now() - device.heardAt) : "kept"}</div>
    </>
  );
}

function NoDevices({ online, broker }: { online: boolean; broker: string }): JSX.Element {
  if (!online) return <Note title="Waiting for the broker…" />;
  const plain = /^ws:/.test(broker) ? `mqtt://${new URL(broker).hostname}` : `mqtts://${new URL(broker).hostname}`;
  return (
    <div class="page narrow">
      <h1>No devices yet</h1>
      <p>The broker answers, and no device has told it anything. This makes one that is simulated:</p>
      <Copy text={`tinysight simulate --broker ${plain}`} />
      <p class="dim">A real one: <code>tinysight run</code>, or <code>tinysight device add user@host</code>.</p>
    </div>
  );
}
