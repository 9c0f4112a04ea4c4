// Which bundle runs where, what its devices find with it, what is on its way to which; and the rollouts.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { app } from "../app";
import { ROOT } from "../contract";
import type { Mood } from "../fleet";
import { type Changing, type Running, bundlesOf, changing, median } from "../models";
import { route, to } from "../router";
import { MoodMark, Note, Tag, ago, figure, short } from "../ui/bits";
import { Boxed } from "../ui/fleet_bits";
import { Rows } from "../ui/rows";
import { BundleDetail } from "./bundle";
import { Rollouts } from "./rollouts";
import "./models.css";

const MOODS: readonly Mood[] = ["failing", "degraded", "offline", "unknown", "ok"];
const FIRST = 30;

export function Models(): JSX.Element {
  const now = app.value, link = now?.link;
  useEffect(() => {
    const undo = ["model", "reported"].map((each) => link?.watch(`${ROOT}/+/+/${each}`, each === "reported" ? 1 : 0));
    return () => undo.forEach((each) => each?.());
  }, [link]);
  if (!now) return <Note title="Beginning…" />;
  const { running, untold } = bundlesOf(now.fleet.devices.values());
  const asked = route.value.query.get("bundle") ?? "";
  const chosen = running.find((each) => each.bundle.digest === asked);
  const moving = changing(now.fleet.devices.values());
  return (
    <div class="page rollout-page">
      <h1>Models</h1>
      <Bundles running={running} untold={untold} asked={asked} />
      {asked && (chosen ? <BundleDetail key={asked} running={chosen} /> : <Note tone="warn" title={`No device says that it runs the bundle ${short(asked)}.`}><a href={to(["models"])}>See all bundles.</a></Note>)}
      {moving.length > 0 && <Updates moving={moving} />}
      <Rollouts />
    </div>
  );
}

function Bundles({ running, untold, asked }: { running: readonly Running[]; untold: number; asked: string }): JSX.Element {
  const [all, showAll] = useState(false);
  const shown = all ? running.slice(0, 1000) : running.slice(0, FIRST);
  if (running.length === 0) return <Note title={untold ? `${untold} devices, and none has told its bundle.` : "No device has told its bundle yet."}>A device tells it when it connects.</Note>;
  return (
    <section class="card" aria-labelledby="bundles">
      <h2 id="bundles">What runs where</h2>
      <table class="bundles">
        <thead>
          <tr>
            <th scope="col">Bundle</th><th scope="col" class="wide num">Release</th><th scope="col" class="wide">Digest</th><th scope="col" class="wide">Task</th>
            <th scope="col">Devices</th><th scope="col" class="wide num">Sites</th><th scope="col" class="num">A run, p95</th>
          </tr>
        </thead>
        <tbody>{shown.map((each) => <Bundle key={each.bundle.digest} {...each} chosen={each.bundle.digest === asked} />)}</tbody>
      </table>
      {running.length > FIRST && <p class="more"><button type="button" onClick={() => showAll(!all)}>{all ? "Show fewer" : `Show all ${running.length.toLocaleString()}`}</button></p>}
      {untold > 0 && <p class="dim">{untold} more device{untold === 1 ? " has" : "s have"} not told which bundle {untold === 1 ? "it runs" : "they run"}.</p>}
    </section>
  );
}

function Bundle({ bundle, devices, moods, sites, inference, drifting, chosen }: Running & { chosen: boolean }): JSX.Element {
  const worst = inference[inference.length - 1];
  return (
    <tr class={chosen ? "chosen" : ""}>
      <th scope="row">
        <a href={to(["models"], chosen ? {} : { bundle: bundle.digest })} aria-current={chosen ? "true" : undefined} title={chosen ? "Close" : "Show its devices and what they find"}>{bundle.name} {bundle.version}</a>
      </th>
      <td class="wide num">{bundle.release}</td>
      <td class="wide"><code title={bundle.digest}>{short(bundle.digest)}</code></td>
      <td class="wide">{bundle.task}, {bundle.scheme}</td>
      <td>
        <span class="moods">
          <b>{devices.length.toLocaleString()}</b>
          {MOODS.filter((mood) => moods.has(mood)).map((mood) => <span key={mood}><MoodMark mood={mood} /> {moods.get(mood)}</span>)}
          {drifting > 0 && <Tag tone="warn">{drifting} drift{drifting === 1 ? "s" : ""}</Tag>}
        </span>
      </td>
      <td class="wide num">{sites.size}</td>
      <td class="num" title="Of the middle device, and of the slowest">{figure(median(inference), 1, "ms")}{worst !== undefined && inference.length > 1 && <span class="dim"> ≤ {figure(worst, 1)}</span>}</td>
    </tr>
  );
}

const WORDS: Readonly<Record<string, string>> = {
  trial: "on trial", selftest: "testing itself", verified: "verified", downloading: "downloading", queued: "queued", "rolled-back": "rolled back", failed: "failed", rejected: "rejected",
};
const ENDED = new Set(["rolled-back", "failed", "rejected"]);

function Updates({ moving }: { moving: readonly Changing[] }): JSX.Element {
  const counts = new Map<string, number>();
  for (const { update } of moving) counts.set(update.state, (counts.get(update.state) ?? 0) + 1);
  return (
    <section class="card" aria-labelledby="updates">
      <h2 id="updates">Updates that are not confirmed</h2>
      <p class="tags">{[...counts].map(([state, count]) => <Tag key={state} tone={ENDED.has(state) ? "bad" : "plain"}>{count} {WORDS[state] ?? state}</Tag>)}</p>
      <Boxed rows={moving.length} height={52}>
        <Rows class="updates" label="Updates" height={52} rows={moving} keyOf={(row) => row.device.key} heads={["Device", "Bundle", "How far", "Why", "Since"]} draw={(row) => <Update {...row} />} />
      </Boxed>
    </section>
  );
}

function Update({ device, update }: Changing): JSX.Element {
  const bundle = update.bundle ? `${update.bundle.name} ${update.bundle.version}` : update.target;
  const share = update.state === "downloading" ? ` ${Math.round((update.share ?? 0) * 100)} %` : "";
  return (
    <>
      <div role="cell" class="c-name"><a href={to(["device", device.site, device.device])}><span class="dim">{device.site}/</span>{device.device}</a></div>
      <div role="cell" class="c-bundle" title={update.target}>{bundle}</div>
      <div role="cell" class="c-how"><Tag tone={ENDED.has(update.state) ? "bad" : "plain"}>{WORDS[update.state] ?? update.state}{share}</Tag></div>
      <div role="cell" class="c-what" title={update.reason}>{update.code ? `${update.code}: ` : ""}{update.reason ?? ""}</div>
      <div role="cell" class="c-heard">{Number.isNaN(Date.parse(update.at)) ? "–" : ago(Date.now() - Date.parse(update.at))}</div>
    </>
  );
}
