// All objects that this page has heard of, newest first, as they come; filtered by what stands in the address.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { app } from "../app";
import { csvOf, fileName, jsonOf, save } from "../export";
import { type Facet, modelOf } from "../facets";
import type { Gap, Log, Seen } from "../log";
import { ask, route, to } from "../router";
import { useTick } from "../tick";
import { Note, Tag, clock, figure } from "../ui/bits";
import { Rows } from "../ui/rows";
import { Lasts, Tags, gapWords, linkOf, meaningOf, picturesOf } from "./event_words";
import { type Entry, type Wanted, entries, wantedOf } from "./events_view";
import "./events.css";

const STATES: readonly [string, string][] = [["", "All"], ["present", "In sight"], ["ended", "Ended"], ["replayed", "Replayed"], ["gaps", "Gaps only"]];
const SELECTS: readonly [Facet, string][] = [["site", "Site"], ["camera", "Camera"], ["label", "Label"], ["zone", "Zone"], ["model", "Model"]];

/** The list as it was when it was halted. */
interface Halted {
  seen: Seen[];
  gaps: Gap[];
  objects: number;
  at: number;
}

export function Events(): JSX.Element {
  useTick();
  const now = app.value;
  const [halted, halt] = useState<Halted | null>(null);
  const [filtering, filter] = useState(false); // a narrow screen shows the filters on demand
  const wanted = wantedOf(route.value.query);
  const pictures = picturesOf(wanted.site, wanted.device, wanted.camera);
  useEffect(() => now?.link.watch(pictures), [now?.link, pictures]);
  if (!now) return <Note title="Beginning…" />;
  const { log } = now.fleet;
  const gaps = log.gaps();
  const shown = entries(halted?.seen ?? log.seen, halted?.gaps ?? gaps, wanted);
  const objects = shown.reduce((sum, each) => sum + (each.seen ? 1 : 0), 0);
  const came = halted ? log.objects - halted.objects : 0;
  return (
    <div class="page fill">
      <div class="events-top">
        <h1>Events</h1>
        <span class="dim">{objects.toLocaleString()} of {log.seen.length.toLocaleString()} objects · {figure(log.perSecond, 1)} events/s</span>
        <Gaps gaps={gaps} log={log} />
        <span class="push" />
        <button type="button" class="open-filters" aria-expanded={filtering} onClick={() => filter(!filtering)}>Filter</button>
        <button type="button" aria-pressed={halted !== null} onClick={() => halt(halted ? null : { seen: log.seen.map((each) => ({ ...each })), gaps, objects: log.objects, at: Date.now() })}>
          {halted ? "Live" : "Pause"}
        </button>
        <Export events={() => shown.flatMap((each) => (each.seen ? [each.seen.event] : []))} />
      </div>
      <Filters log={log} wanted={wanted} open={filtering} />
      {halted && <p class="list-halted" role="status">Paused. {came === 0 ? "Nothing came since." : `${came.toLocaleString()} ${came === 1 ? "object" : "objects"} came since.`}</p>}
      {shown.length === 0 ? (
        <Empty log={log} />
      ) : (
        <Rows class="events" label="Events" height={52} rows={shown} keyOf={keyOf}
          heads={["Heard", "Picture", "Where", "What", "Zones, lines, rules", "Lasted", "Model", "Special"]}
          draw={(entry) => (entry.gap ? <GapCells gap={entry.gap} /> : <Cells seen={entry.seen} log={log} now={halted?.at ?? Date.now()} />)} />
      )}
    </div>
  );
}

const keyOf = ({ seen, gap }: Entry): string | number => (gap ? `${gap.device} ${gap.boot} ${gap.to}` : seen.number);

function Cells({ seen, log, now }: { seen: Seen; log: Log; now: number }): JSX.Element {
  const { event } = seen;
  const meaning = meaningOf(event);
  const picture = log.byKey.get(seen.key)?.picture ?? ""; // of a halted list, too, since old ones are let go
  return (
    <>
      <div role="cell" class="c-time"><a href={linkOf(event)} title={`Captured ${clock(event.started_at, true)}`}>{clock(seen.heardAt)}</a></div>
      <div role="cell" class="c-pic">{picture ? <img src={picture} alt={`${event.label.slice(0, 60)} at its best moment`} /> : null}</div>
      <div role="cell" class="c-where" title={`${event.site}/${event.device}, camera ${event.camera}`}>
        <a href={to(["device", event.site, event.device])}><span class="dim">{event.site}/</span>{event.device}</a>
        <span class="dim below">{event.camera}</span>
      </div>
      <div role="cell" class="c-what" title={event.label.slice(0, 500)}><bdi>{event.label.slice(0, 200)}</bdi> <span class="dim">{figure(event.best_score, 2)}</span></div>
      <div role="cell" class="c-mean" title={meaning}><bdi>{meaning || "–"}</bdi></div>
      <div role="cell" class="c-lasts"><Lasts seen={seen} now={now} /></div>
      <div role="cell" class="c-model" title={modelOf(event).slice(0, 500)}>{modelOf(event).slice(0, 200)}</div>
      <div role="cell" class="c-tags"><Tags event={event} /></div>
    </>
  );
}

function GapCells({ gap }: { gap: Gap }): JSX.Element {
  return (
    <>
      <div role="cell" class="c-time">{clock(gap.at)}</div>
      <div role="cell" class="c-gap" aria-colspan={7} title={`Run ${gap.boot}. The row shrinks when they come after all.`}>
        <Tag tone="warn">gap</Tag> {gapWords(gap)}
      </div>
    </>
  );
}

function Gaps({ gaps, log }: { gaps: readonly Gap[]; log: Log }): JSX.Element {
  const many = gaps.reduce((sum, { from, to: last }) => sum + last - from + 1, 0);
  if (gaps.length > 0) return <Tag tone="warn">{gaps.length === 1 ? "1 gap" : `${gaps.length.toLocaleString()} gaps`}: {many.toLocaleString()} events missing</Tag>;
  return log.watchedSince > Date.now() ? <Tag tone="warn">gaps are not looked for</Tag> : <span class="dim">no gaps since {clock(log.watchedSince)}</span>;
}

function Export({ events }: { events: () => Seen["event"][] }): JSX.Element {
  return (
    <>
      <button type="button" onClick={() => save(fileName("csv"), csvOf(events()), "text/csv")}>Save CSV</button>
      <button type="button" onClick={() => save(fileName("json"), jsonOf(events()), "application/json")}>Save JSON</button>
    </>
  );
}

/** Change one thing of what the address asks for. */
function want(name: string, value: string): void {
  ask({ ...Object.fromEntries(route.value.query), [name]: value });
}

function Filters({ log, wanted, open }: { log: Log; wanted: Wanted; open: boolean }): JSX.Element {
  const { version } = log.facets;
  const asked = SELECTS.map(([facet]) => wanted[facet]).join("\n");
  // the same element again is not compared: lists of choices are long and change seldom
  const selects = useMemo(() => SELECTS.map(([facet, name]) => <Choice key={facet} name={name} facet={facet} value={wanted[facet]} log={log} />), [version, asked]);
  const devices = useMemo(() => <datalist id="heard-devices">{log.facets.of("device").map((each) => <option key={each} value={each} />)}</datalist>, [version]);
  const filtered = [...route.value.query.values()].some(Boolean);
  return (
    <div class={`filters events-filters ${open ? "" : "closed"}`} role="group" aria-label="Filter">
      {selects}
      <label>Device <input type="search" list="heard-devices" value={wanted.device} placeholder="Any" onInput={(event) => want("device", event.currentTarget.value)} /></label>
      {devices}
      <Least value={wanted.min} />
      <label>State
        <select value={wanted.state} onChange={(event) => want("state", event.currentTarget.value)}>
          {STATES.map(([value, name]) => <option key={value} value={value}>{name}</option>)}
        </select>
      </label>
      <button type="button" disabled={!filtered} onClick={() => ask({})}>Show all</button>
    </div>
  );
}

function Choice({ name, facet, value, log }: { name: string; facet: Facet; value: string; log: Log }): JSX.Element {
  const offered = log.facets.of(facet);
  if (value && !offered.includes(value)) offered.unshift(value); // of a shared address
  return (
    <label>{name}
      <select value={value} onChange={(event) => want(facet, event.currentTarget.value)}>
        <option value="">Any</option>
        {offered.map((each) => <option key={each} value={each}>{each.slice(0, 60)}</option>)}
      </select>
    </label>
  );
}

/** The least score; what is typed is not changed under the typist's hands. */
function Least({ value }: { value: number }): JSX.Element {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (field.current && document.activeElement !== field.current) field.current.value = value > 0 ? String(value) : "";
  }, [value]);
  return <label>Score from <input ref={field} type="number" min="0" max="1" step="0.05" placeholder="0" onInput={(event) => want("min", event.currentTarget.value)} /></label>;
}

function Empty({ log }: { log: Log }): JSX.Element {
  if (log.seen.length > 0) return <Note title="Nothing of what was heard fits the filter.">Choose “Show all”, or wait: what comes is shown.</Note>;
  return <Note title="No event came yet.">Events are shown as they come; the broker keeps none. This page holds the newest 5,000 objects for as long as it is open.</Note>;
}
