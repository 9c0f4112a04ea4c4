// What one camera delivers now: the picture, its state, its flow, what is counted.
import type { JSX } from "preact";
import type { CameraState, Counts } from "../contract";
import type { Device } from "../fleet";
import { Fact, Note, ago, clock, figure } from "../ui/bits";
import { Stage } from "../ui/stage";
import { EditZones, ZoneEditor, draftOf } from "../ui/zone_editor";

const STATES: Record<CameraState, [string, string, string]> = {
  online: ["●", "ok", "Pictures come and show something."],
  reconnecting: ["▲", "degraded", "It cannot be opened, or the connection broke; it is tried again. Look at its power, its cable and its address."],
  stalled: ["■", "failing", "The connection stands and no picture comes, or a call of its driver does not return. Restart the camera."],
  frozen: ["■", "failing", "The pictures repeat to the bit. Restart the camera."],
  dark: ["▲", "degraded", "Hardly any light. Look at the light and the exposure."],
  covered: ["▲", "degraded", "Hardly any structure left of what it used to show. Look what is before the lens."],
  disabled: ["○", "offline", "A file has ended, a command has switched it off, or it failed for good."],
};
const DROPS: Record<string, string> = {
  stale: "a newer one came first", still: "nothing moved", governed: "held back for heat or lateness", rate: "above the configured rate",
  damaged: "undecodable", reloaded: "the configuration changed meanwhile", stopped: "the camera or the agent ended first",
};
const MOST_LABELS = 200;
const MOST_ZONES = 24;
const MOST_LINES = 100;

/** Ids of cameras that are configured or that were heard of, in their order. */
export function camerasOf(device: Device): string[] {
  return [...new Set([...Object.keys(device.info?.cameras ?? {}), ...device.cameras.keys()])].sort();
}

/** A camera's state; `stale` when its device is not there to say another. */
export function StateMark({ state, stale }: { state: CameraState | undefined; stale: boolean }): JSX.Element {
  if (state && stale) return <span class="mood offline"><span aria-hidden="true">○</span> was {state}</span>;
  const [shape, mood] = state ? STATES[state] : ["?", "unknown"];
  return <span class={`mood ${mood}`}><span aria-hidden="true">{shape}</span> {state ?? "unknown"}</span>;
}

const isGone = (device: Device): boolean => device.status?.state === "offline";

export function CameraTab({ device, id, chosen, choose }: { device: Device; id: string; chosen: boolean; choose: () => void }): JSX.Element {
  return <button type="button" aria-pressed={chosen} onClick={choose}><span class="clip">{id}</span> <StateMark state={device.cameras.get(id)?.status?.state} stale={isGone(device)} /></button>;
}

export function CameraPanel({ device, id }: { device: Device; id: string }): JSX.Element {
  const camera = device.cameras.get(id);
  if (!camera) return <Note title={`Nothing came of ${id} yet.`}>The device is configured for it. Its state comes when it is opened.</Note>;
  const { status, counts } = camera;
  if (draftOf(device, id)) return <ZoneEditor device={device} camera={camera} />;
  return (
    <div class="camera">
      <Stage device={device} camera={camera} />
      <div class="camera-side">
        {status ? (
          <p class="camera-state">
            <StateMark state={status.state} stale={isGone(device)} /> <span>since {clock(status.since)}, {ago(Date.now() - Date.parse(status.since))}{status.reason && <span class="camera-reason" title={status.reason.slice(0, 2000)}>{status.reason}</span>} 
              {status.state !== "online" && STATES[status.state][2]}</span>
          </p>
        ) : <p class="dim">It has told no state.</p>}
        <EditZones device={device} id={id} />
        <Flow device={device} id={id} />
        {counts ? <CountsTables counts={counts} /> : <p class="dim">It has counted nothing yet.</p>}
      </div>
    </div>
  );
}

function Flow({ device, id }: { device: Device; id: string }): JSX.Element {
  const told = device.info?.cameras[id], health = device.health?.cameras[id];
  const dropped = Object.entries(health?.dropped ?? {}).filter(([, count]) => count > 0);
  const limit = health?.limit_fps;
  return (
    <>
      <dl class="tight">
        <Fact name="Model sees">{figure(health?.fps, 1, "fps")}</Fact>
        <Fact name="Comes in">{figure(health?.fps_in, 1, "fps")}</Fact>
        <Fact name="Frame age p95">{figure(health?.frame_age_ms.p95, 0, "ms")}</Fact>
        <Fact name="p50">{figure(health?.frame_age_ms.p50, 0, "ms")}</Fact>
        {limit !== null && limit !== undefined && <Fact name="Held back to">{figure(limit, 1, "fps")}</Fact>}
        <Fact name="Frame">{told && told.width > 0 ? `${told.width}×${told.height}` : "–"}</Fact>
        <Fact name="Source"><span class="wrap">{told?.source || "–"}</span></Fact>
      </dl>
      {health && (
        <p class="drops dim">
          {dropped.length === 0 ? `None of the last ${health.frames} frames was left out.` : <>Left out of the last {health.frames} frames: {dropped.map(([cause, count], at) => (
            <span key={cause}>{at > 0 && ", "}<b>{count}</b> {cause}{DROPS[cause] && ` (${DROPS[cause]})`}</span>
          ))}.</>}
        </p>
      )}
    </>
  );
}

/** Exactly what the device counted: objects and zones in one table, crossings in another. */
function CountsTables({ counts }: { counts: Counts }): JSX.Element {
  const told = Object.entries(counts.zones), zones = told.slice(0, MOST_ZONES), lines = Object.entries(counts.lines);
  const labels = [...new Set([...Object.keys(counts.objects), ...zones.flatMap(([, each]) => Object.keys(each))])];
  const own = (of: Record<string, number>, label: string): number | undefined => (Object.hasOwn(of, label) ? of[label] : undefined);
  const sum = (of: Record<string, number>): number => Object.values(of).reduce((all, each) => all + each, 0);
  return (
    <>
      <div class="table-box" tabIndex={0} role="region" aria-label="Counts">
        <table class="counts" data-at={counts.at}>
          <caption>In sight <span class="dim">counted in the frame of {clock(counts.at)}</span></caption>
          <thead>
            <tr><th scope="col">Label</th><th scope="col">Frame</th>{zones.map(([zone]) => <th scope="col" key={zone} title={zone}>{zone}</th>)}</tr>
          </thead>
          <tbody>
            {labels.slice(0, MOST_LABELS).map((label) => (
              <tr key={label}>
                <th scope="row" title={label}>{label}</th>
                <Count value={own(counts.objects, label)} />
                {zones.map(([zone, each]) => <Count key={zone} value={own(each, label)} />)}
              </tr>
            ))}
          </tbody>
          <tfoot>
            <tr><th scope="row">All</th><Count value={sum(counts.objects)} />{zones.map(([zone, each]) => <Count key={zone} value={sum(each)} />)}</tr>
          </tfoot>
        </table>
        {labels.length > MOST_LABELS && <p class="dim">{labels.length - MOST_LABELS} more labels are not shown.</p>}
        {told.length > MOST_ZONES && <p class="dim">{told.length - MOST_ZONES} more zones are not shown.</p>}
      </div>
      {lines.length > 0 && (
        <div class="table-box" tabIndex={0} role="region" aria-label="Crossings">
          <table class="crossings">
            <caption>Crossings <span class="dim">so far</span></caption>
            <thead><tr><th scope="col">Line</th><th scope="col">In</th><th scope="col">Out</th></tr></thead>
            <tbody>
              {lines.slice(0, MOST_LINES).map(([line, each]) => <tr key={line}><th scope="row" title={line}>{line}</th><Count value={own(each, "in")} /><Count value={own(each, "out")} /></tr>)}
            </tbody>
          </table>
          {lines.length > MOST_LINES && <p class="dim">{lines.length - MOST_LINES} more lines are not shown.</p>}
        </div>
      )}
    </>
  );
}

function Count({ value }: { value: number | undefined }): JSX.Element {
  return <td class={value ? "" : "zero"}>{value ?? "–"}</td>;
}
