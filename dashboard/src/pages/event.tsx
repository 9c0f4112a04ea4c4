// One event: as this page heard it, else as the link tells it. Nobody keeps events, so a link carries its own.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { app } from "../app";
import { type Event, ID } from "../contract";
import { modelOf } from "../facets";
import type { Seen } from "../log";
import { pack, unpack } from "../permalink";
import { read } from "../read";
import { route, to } from "../router";
import { useTick } from "../tick";
import { Fact, Note, Tag, ago, clock, figure } from "../ui/bits";
import { CopyLink, Lasts, Tags, lasting, linkOf, picturesOf } from "./event_words";
import { Stage } from "./event_stage";
import "./event.css";

/** What a link tells: an event, or why it tells none; null when it carries nothing. */
type Told = { event: Event; why: "" } | { event: null; why: string } | null;

export function EventPage({ at }: { at: readonly string[] }): JSX.Element {
  useTick();
  const now = app.value;
  const [site = "", device = "", camera = "", id = ""] = at;
  const named = at.length === 4 && at.every((each) => ID.test(each));
  const last = useRef<Seen | null>(null);
  const carried = route.value.query.get("e") ?? "";
  const told = useMemo(() => (named ? toldBy(carried, at) : null), [carried, named, at.join("/")]);
  useEffect(() => (named ? now?.link.watch(picturesOf(site, device, camera, id)) : undefined), [now?.link, named, at.join("/")]);
  if (!now) return <Note title="Beginning…" />;
  if (!named) return <Note tone="warn" title="The address names no event.">It is <code>#/event/SITE/DEVICE/CAMERA/ID</code>. <a href={to(["events"])}>See what was heard.</a></Note>;
  const kept = now.fleet.log.byKey.get(at.join("/")) ?? null; // let go of while it is looked at, when many others came
  const heard = kept ?? (last.current && { ...last.current, picture: "" });
  if (kept) last.current = { ...kept };
  const later = told?.event && heard && told.event.boot_id === heard.event.boot_id && told.event.seq > heard.event.seq;
  const event = heard && !later ? heard.event : told?.event;
  if (!event) return <Unheard at={at} why={told?.why ?? ""} />;
  return (
    <div class="page event-page">
      <h1><bdi>{event.label.slice(0, 300) || "An object"}</bdi> <span class="dim">at <a href={to(["device", site, device])}>{site}/{device}</a>, camera {camera}</span></h1>
      <div class="event-top">
        {heard && !later ? <Tag tone="good">heard by this page</Tag> : <Tag tone="warn">as the link tells it</Tag>}
        <Tags event={event} clocks />
        <CopyLink hash={linkOf(event)} />
        <a href={to(["events"], { site, device })}>All events of {site}/{device}</a>
      </div>
      {!(heard && !later) && (
        <Note tone="warn" title={later ? "As the link tells it; this page has heard an earlier step of it." : "As the link tells it; this page has not heard it."}>
          Anybody can write such a link. What it says fits the contract, and nothing more is known of it.
        </Note>
      )}
      {heard && !later && told?.event && told.event.seq < heard.event.seq && <p class="dim">The link tells of an earlier step of it; this is the newest.</p>}
      {heard && !kept && <p class="dim">It is no longer kept: this page holds the newest 5,000 objects. What it heard last stands here until you leave.</p>}
      {heard && told?.why && <p class="dim">What the link carries is not read: {told.why}.</p>}
      {pack(event) === null && <p class="dim">It is too long to be carried by a link: the copied one opens only where it was heard.</p>}
      <div class="event-body">
        <Stage event={event} picture={heard?.picture ?? ""} />
        <Facts event={event} heard={heard && !later ? heard : null} />
      </div>
      <Latency event={event} />
    </div>
  );
}

function toldBy(carried: string, at: readonly string[]): Told {
  if (!carried) return null;
  const bytes = unpack(carried);
  if (!bytes) return { event: null, why: "it is no base64url, or longer than 8 KiB" };
  const got = read("event", bytes);
  if (!got.ok) return { event: null, why: got.why };
  const { site, device, camera, id } = got.value;
  return at.join("/") === [site, device, camera, id].join("/") ? { event: got.value, why: "" } : { event: null, why: "it carries another event than it names" };
}

function Unheard({ at, why }: { at: readonly string[]; why: string }): JSX.Element {
  const [site = "", device = ""] = at;
  return (
    <div class="page">
      <h1>Event {at.join("/")}</h1>
      <Note tone="warn" title={why ? `The link cannot be read: ${why}.` : "This page has not heard this event, and the link does not carry it."}>
        Nobody keeps events but the device and who hears them. Ask for a link made with “Copy link”, or wait: if the object tells anything more, it is shown here.
      </Note>
      <p><a href={to(["events"], { site, device })}>What was heard of {site}/{device}</a></p>
    </div>
  );
}

function Facts({ event, heard }: { event: Event; heard: Seen | null }): JSX.Element {
  const { zones, crossed = [], rules = [] } = event;
  const dwell = new Map(Object.entries(zones.dwell_s ?? {}));
  const late_ms = heard ? heard.lastAt - Date.parse(event.seen_at) : Number.NaN;
  const delay = Number.isFinite(late_ms) && late_ms >= 0 && !event.replayed && heard?.event === event;
  return (
    <dl class="card">
      <Fact name="Score now / best">{figure(event.score, 2)} / {figure(event.best_score, 2)}</Fact>
      <Fact name="Lasted">{heard ? <Lasts seen={heard} now={Date.now()} /> : event.type === "end" ? lasting(event.track.age_s) : `${lasting(event.track.age_s)} so far`}</Fact>
      <Fact name="Rests">{event.track.stationary ? "yes" : "no"}</Fact>
      <Fact name="Zones entered">{zones.entered.length ? zones.entered.slice(0, 50).map((zone) => `${zone}${dwell.has(zone) ? ` (${lasting(dwell.get(zone) ?? 0)})` : ""}`).join(", ") : "none"}</Fact>
      <Fact name="In zones now">{zones.now.length ? zones.now.slice(0, 50).join(", ") : "none"}</Fact>
      <Fact name="Lines crossed">{crossed.length ? crossed.slice(0, 50).map(({ line, direction }) => `${line} (${direction})`).join(", ") : "none"}</Fact>
      <Fact name="Rules fulfilled">{rules.length ? rules.slice(0, 50).join(", ") : "none"}</Fact>
      <Fact name="First seen"><time dateTime={event.started_at}>{clock(event.started_at, true)}</time></Fact>
      <Fact name="Last seen"><time dateTime={event.seen_at}>{clock(event.seen_at, true)}</time></Fact>
      <Fact name="Ended">{event.ended_at ? `${clock(event.ended_at, true)}${event.reason ? `, ${event.reason.slice(0, 200)}` : ""}` : event.type === "end" ? event.reason ?? "yes" : "not yet told"}</Fact>
      <Fact name="Heard here">{heard ? `${clock(heard.lastAt)}, ${ago(Date.now() - heard.lastAt)} ago` : "no"}{delay ? `, ${lasting(late_ms / 1000)} after the frame` : ""}</Fact>
      <Fact name="Clock">{event.clock_synced === null ? "not known" : event.clock_synced ? "in step" : "not set: its times are not to be trusted"}</Fact>
      <Fact name="Sent">{event.replayed ? "replayed: it waited on the device for the broker" : "live"}</Fact>
      <Fact name="Step">{event.type}, seq {event.seq.toLocaleString()} of run <code>{event.boot_id}</code></Fact>
      <Fact name="Object"><code>{event.id}</code></Fact>
      <Fact name="Model">{modelOf(event).slice(0, 300)}</Fact>
      <div class="fact wide"><dt>Bundle</dt><dd><code>{event.model.digest}</code></dd></div>
    </dl>
  );
}

/** Where the time went, as parts of a bar, and the same in figures. */
function Latency({ event }: { event: Event }): JSX.Element {
  const { wait, preprocess, inference, decode, track, total } = event.latency_ms;
  const parts: [string, number][] = [["wait", wait], ["preprocess", preprocess], ["inference", inference], ["decode", decode], ["track", track]];
  const rest = total - parts.reduce((sum, [, ms]) => sum + ms, 0);
  if (rest > 0.05) parts.push(["other", rest]);
  const whole = Math.max(1e-6, ...[parts.reduce((sum, [, ms]) => sum + ms, 0)]);
  let left = 0;
  return (
    <section class="card">
      <h2>From the frame to the event: {figure(total, 1, "ms")}</h2>
      <svg class="latency" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true">
        {parts.map(([name, ms], n) => {
          const [x, width] = [left, (Math.max(0, ms) / whole) * 1000];
          left += width;
          return <rect key={name} x={x} y="0" width={width} height="12" class={`part${n + 1}`} />;
        })}
      </svg>
      <ul class="legend">
        {parts.map(([name, ms], n) => (
          <li key={name}><svg width="10" height="10" aria-hidden="true"><rect width="10" height="10" class={`part${n + 1}`} /></svg> {name} <b>{figure(ms, 1)}</b></li>
        ))}
      </ul>
    </section>
  );
}
