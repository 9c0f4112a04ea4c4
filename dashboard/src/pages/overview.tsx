// Every site and device, the gravest first.
import type { JSX } from "preact";
import { app } from "../app";
import { type Device, type Mood, moodOf } from "../fleet";
import { ask, route, to } from "../router";
import { Copy, MoodMark, Note, ago, figure } from "../ui/bits";
import { Rows } from "../ui/rows";

const GRAVITY: Record<Mood, number> = { failing: 0, degraded: 1, offline: 2, unknown: 3, ok: 4 };
const MOODS: readonly Mood[] = ["failing", "degraded", "offline", "unknown", "ok"];

interface Line {
  device: Device;
  mood: Mood;
  what: string;
}

export function Overview(): JSX.Element {
  const now = app.value;
  if (!now) return <Note title="Beginning…" />;
  const { fleet, link } = now;
  const only = route.value.query.get("state") ?? "", sought = (route.value.query.get("find") ?? "").toLowerCase();
  const lines = [...fleet.devices.values()].map((device): Line => ({ device, ...moodOf(device) }));
  const counts = new Map<Mood, number>();
  for (const line of lines) counts.set(line.mood, (counts.get(line.mood) ?? 0) + 1);
  const shown = lines.filter((line) => (!only || line.mood === only) && (!sought || textOf(line).includes(sought)));
  shown.sort((a, b) => GRAVITY[a.mood] - GRAVITY[b.mood] || (a.device.key < b.device.key ? -1 : 1));
  if (lines.length === 0) return <NoDevices online={link.state.value.kind === "online"} broker={now.config.broker} />;
  return (
    <div class="page fill">
      <h1 class="unseen">Overview</h1>
      <div class="filters" role="group" aria-label="Filter">
        <button type="button" aria-pressed={only === ""} onClick={() => ask({ find: sought })}>All {lines.length}</button>
        {MOODS.filter((mood) => counts.has(mood)).map((mood) => (
          <button type="button" key={mood} aria-pressed={only === mood} onClick={() => ask({ state: only === mood ? "" : mood, find: sought })}>
            <MoodMark mood={mood} /> {counts.get(mood)}
          </button>
        ))}
        <label class="find"><span class="unseen">Find a device, a bundle or a problem</span>
          <input type="search" placeholder="Find" value={sought} onInput={(event) => ask({ state: only, find: event.currentTarget.value })} />
        </label>
        <span class="dim">{figure(fleet.log.perSecond)} events/s</span>
      </div>
      <Rows class="devices" label="Devices" height={52} rows={shown} keyOf={(line) => line.device.key}
        heads={["State", "Device", "What is so", "fps", "Frame age", "Bundle", "Heard"]} draw={(line) => <Row {...line} />} />
    </div>
  );
}

const textOf = ({ device, what }: Line): string => `${device.key} ${device.info?.bundle.name ?? ""} ${device.info?.bundle.version ?? ""} ${what}`.toLowerCase();

function Row({ device, mood, what }: Line): JSX.Element {
  const cameras = Object.values(device.health?.cameras ?? {});
  const fps = cameras.reduce((sum, each) => sum + each.fps, 0), age = Math.max(0, ...cameras.map((each) => each.frame_age_ms.p95));
  const bundle = device.info?.bundle;
  const present = [...device.cameras.values()].reduce((sum, each) => sum + each.present.size, 0);
  return (
    <>
      <div role="cell" class="c-mood"><MoodMark mood={mood} /></div>
      <div role="cell" class="c-name"><a href={to(["device", device.site, device.device])}><span class="dim">{device.site}/</span>{device.device}</a></div>
      <div role="cell" class="c-what" title={what}>{what || `${device.cameras.size} camera${device.cameras.size === 1 ? "" : "s"}, ${present} in sight`}</div>
      <div role="cell" class="c-num">{cameras.length ? figure(fps, 1) : "–"}</div>
      <div role="cell" class="c-num">{cameras.length ? figure(age, 0, "ms") : "–"}</div>
      <div role="cell" class="c-bundle">{bundle ? `${bundle.name} ${bundle.version}` : "–"}</div>
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
