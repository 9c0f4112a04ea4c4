// One device: how it does and what to do, what its cameras see now and saw before, what it is and what it was told.
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { app } from "../app";
import { ID, ROOT } from "../contract";
import { type Device as Known, MAX_SKEW_MS, moodOf } from "../fleet";
import { ask, route, to } from "../router";
import { useTick } from "../tick";
import { MoodMark, Note, ago, clock } from "../ui/bits";
import { Said } from "../ui/fleet_bits";
import { DeviceActs } from "./device_acts";
import { CameraPanel, CameraTab, camerasOf } from "./device_camera";
import { Charts, Facts } from "./device_facts";
import { Timeline } from "./device_timeline";
import { Wishes } from "./device_wishes";
import "./device.css";

/** What a page of one device asks for beside what every page does; a stage asks for frames and pictures itself. */
const WATCHED = ["model", "desired", "reported", "camera/+/snapshot/+"];
const TICK_MS = 1000;
const PATIENCE_MS = 3000;

export function Device({ site, device: name }: { site: string; device: string }): JSX.Element {
  const now = app.value;
  const valid = ID.test(site) && ID.test(name); // else a filter could be made of them
  const link = now?.link;
  useEffect(() => {
    if (!valid || !link) return;
    const undo = WATCHED.map((tail) => link.watch(`${ROOT}/${site}/${name}/${tail}`));
    return () => undo.forEach((each) => each());
  }, [link, valid, site, name]);
  useTick(TICK_MS);
  if (!now) return <Note title="Beginning…" />;
  if (!valid) return <Nobody site={site} name={name} why="An id has 1 to 63 of a-z, 0-9 and -." />;
  const device = now.fleet.device(site, name);
  if (device) return <Page device={device} />;
  const state = now.link.state.value;
  if (state.kind !== "online" || Date.now() - state.since < PATIENCE_MS) {
    return <div class="page"><h1 class="wide-id">{site}/{name}</h1><Note title={state.kind === "online" ? "Asking the broker…" : "Waiting for the broker…"} /></div>;
  }
  return <Nobody site={site} name={name} why="The broker keeps nothing of it and nothing came from it." />;
}

function Nobody({ site, name, why }: { site: string; name: string; why: string }): JSX.Element {
  const near = [...(app.value?.fleet.devices.values() ?? [])].filter((each) => each.site === site || each.device === name).slice(0, 8);
  return (
    <div class="page">
      <h1 class="wide-id">{site}/{name}</h1>
      <Note tone="warn" title="Nobody has heard of this device.">
        {why} Check the address, and that the device speaks to this broker. <a href={to([])}>All devices</a>
        {near.length > 0 && <ul class="plain">{near.map((each) => <li key={each.key}><a href={to(["device", each.site, each.device])}>{each.key}</a></li>)}</ul>}
      </Note>
    </div>
  );
}

function Page({ device }: { device: Known }): JSX.Element {
  const { mood, what, mend } = moodOf(device);
  const listed = [...device.alerts.values()].some((alert) => alert.what === what); // then its mend stands there
  const cameras = camerasOf(device);
  const asked = route.value.query.get("camera") ?? "";
  const chosen = cameras.includes(asked) ? asked : (cameras[0] ?? "");
  return (
    <div class="page device">
      <header class="device-head">
        <div>
          <h1 class="wide-id"><span class="dim">{device.site}/</span>{device.device}</h1>
          <p class="device-mood"><MoodMark mood={mood} /> <span><Said text={`${what || "All is as it should be."} ${listed ? "" : mend}`} /></span></p>
        </div>
        <DeviceActs device={device} camera={chosen} />
      </header>
      <Notes device={device} />
      <section class="card" aria-labelledby="cameras">
        <div class="device-tabs" role="group" aria-label="Camera">
          <h2 id="cameras">{cameras.length > 1 ? "Cameras" : "Camera"}</h2>
          {cameras.map((id) => <CameraTab key={id} device={device} id={id} chosen={id === chosen} choose={() => ask({ camera: id })} />)}
        </div>
        {asked && asked !== chosen && <Note tone="warn" title={`It has no camera ${asked.slice(0, 63)}.`}>{chosen && `This is ${chosen}.`}</Note>}
        {chosen ? <CameraPanel key={chosen} device={device} id={chosen} /> : <p class="dim">It has told of no camera yet.</p>}
      </section>
      <Timeline device={device} />
      <Charts device={device} />
      <Wishes device={device} />
      <Facts device={device} />
    </div>
  );
}

/** All that is wrong, and what to do; the gravest stands in the head as well. */
function Notes({ device }: { device: Known }): JSX.Element {
  const status = device.status;
  const skew = device.skewMs ?? 0;
  return (
    <>
      {status?.state === "offline" && (
        <Note tone="warn" title="It is offline.">
          Its last word is of {clock(status.at, true)}, {ago(Date.now() - Date.parse(status.at))} ago. {device.heardAt === 0 ? "It did not come back since this page was opened: what stands here is what the broker has kept." : `It was heard last at ${clock(device.heardAt)}; what stands here is from before.`}
        </Note>
      )}
      {device.heardAt === 0 && status?.state !== "offline" && <Note title="Nothing came from it yet since this page was opened.">What stands here is what the broker has kept. A report comes every 30 s.</Note>}
      {device.alerts.size > 0 && <Alerts alerts={device.alerts} />}
      {device.broken.count > 0 && (
        <Note tone="warn" title="Not all of its messages fit the contract.">
          {device.broken.count} did not, and {device.broken.count === 1 ? "is" : "are"} not shown. The last: <code>{device.broken.why}</code>. Look who writes there beside the device, and for a newer version of the page or of the device.
        </Note>
      )}
      {Math.abs(skew) > MAX_SKEW_MS && (
        <Note tone="warn" title={`Its clock is ${skew > 0 ? "ahead of" : "behind"} this page's.`}>
          It is off by {ago(Math.abs(skew))}. Its times are not to be trusted. Give it a time server; if others are off by the same, set this machine's clock.
        </Note>
      )}
    </>
  );
}

function Alerts({ alerts }: { alerts: Known["alerts"] }): JSX.Element {
  const grave = (severity: string): boolean => severity === "error";
  const sorted = [...alerts].sort(([a, one], [b, two]) => Number(grave(two.severity)) - Number(grave(one.severity)) || (a < b ? -1 : 1));
  return (
    <section class="card" aria-labelledby="alerts">
      <h2 id="alerts">Alerts <span class="dim">{alerts.size}</span></h2>
      <ul class="device-alerts">
        {sorted.map(([code, { severity, what, mend, since }]) => (
          <li key={code}>
            <span class={`mood ${grave(severity) ? "failing" : "degraded"}`}><span aria-hidden="true">{grave(severity) ? "■" : "▲"}</span> {grave(severity) ? "Error" : "Warning"}</span>
            <span><strong><Said text={what} /></strong> <Said text={mend} /></span>
            <span class="dim"><code>{code}</code> since {clock(since, true)}, {ago(Date.now() - Date.parse(since))}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
