// One bundle: how sure its devices are, of what, and how far each has drifted from what was signed.
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { type Device, moodOf } from "../fleet";
import { BINS, type Found, MAX_DRIFT, type Running, driftOf, drifts, foundBy, metricsOf, p95Of, reached } from "../models";
import { to } from "../router";
import { Fact, MoodMark, figure, short } from "../ui/bits";
import { Boxed } from "../ui/fleet_bits";
import { Rows } from "../ui/rows";

const SORTS = { drift: "Worst drift", slow: "Slowest", name: "Name" } as const;
type Sort = keyof typeof SORTS;
const MOST_LABELS = 12;
const percent = (share: number): string => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

export function BundleDetail({ running: { bundle, devices, sites } }: { running: Running }): JSX.Element {
  const turn = devices.length < 50 ? Date.now() : Math.floor(Date.now() / 2000); // many devices with many labels are not summed at each draw
  const found = useMemo(() => foundBy(devices), [turn, bundle.digest]);
  return (
    <section class="card bundle" aria-labelledby="bundle">
      <div class="filters"><h2 id="bundle">{bundle.name} {bundle.version}</h2><a href={to(["models"])}>Close</a></div>
      <dl>
        <Fact name="Release">{bundle.release}</Fact>
        <Fact name="Digest"><code title={bundle.digest}>{short(bundle.digest)}</code></Fact>
        <Fact name="Task">{bundle.task}</Fact>
        <Fact name="Numbers">{bundle.scheme}</Fact>
        <Fact name="Labels">{bundle.labels.length}</Fact>
        <Fact name="Sites">{[...sites].sort().slice(0, 6).join(", ")}{sites.size > 6 && ` and ${sites.size - 6} more`}</Fact>
      </dl>
      <div class="grid">
        <Confidence found={found} devices={devices.length} />
        <Mix found={found} />
      </div>
      <Drift devices={devices} />
    </section>
  );
}

/** Bars of how sure the models were; the sentence below says the same. */
function Confidence({ found: { scores, total, frames, told }, devices }: { found: Found; devices: number }): JSX.Element {
  const most = Math.max(1, ...scores), wide = 400, high = 130, bar = wide / BINS;
  const below = total ? scores.slice(0, BINS / 2).reduce((sum, each) => sum + each, 0) / total : 0;
  return (
    <figure class="chart" aria-labelledby="sure">
      <figcaption id="sure">How sure <span class="dim">findings by confidence</span></figcaption>
      {total === 0 ? <p class="dim">None of the {devices} devices has told what it found with it.</p> : (
        <>
          <svg class="bars" viewBox={`0 -4 ${wide} ${high + 24}`} role="img" aria-label="Findings by confidence; the sentence below says what it shows.">
            <line class="half" x1={0} x2={wide} y1={high / 2} y2={high / 2} />
            {scores.map((count, at) => {
              const tall = count ? Math.max(1.5, (count / most) * high) : 0;
              return <rect key={at} x={at * bar + 1} width={bar - 2} y={high - tall} height={tall}><title>{`${(at / BINS).toFixed(2)} to ${((at + 1) / BINS).toFixed(2)}: ${count.toLocaleString()} (${percent(count / total)})`}</title></rect>;
            })}
            <line class="base" x1={0} x2={wide} y1={high} y2={high} />
            {[0, 0.25, 0.5, 0.75, 1].map((each) => <text key={each} x={each * wide} y={high + 15} text-anchor={each === 0 ? "start" : each === 1 ? "end" : "middle"}>{each}</text>)}
          </svg>
          <p>
            {total.toLocaleString()} findings in {frames.toLocaleString()} frames of {told} of {devices} devices. Half are at {reached(scores, 0.5).toFixed(2)} or
            above, nine in ten at {reached(scores, 0.9).toFixed(2)} or above; {below ? `${percent(below)} are` : "none is"} below 0.5. The tallest bar stands for {most.toLocaleString()}.
          </p>
        </>
      )}
    </figure>
  );
}

function Mix({ found: { labels, total } }: { found: Found }): JSX.Element {
  const shown = labels.slice(0, MOST_LABELS), most = Math.max(1, shown[0]?.[1] ?? 1);
  const all = Math.max(1, total, labels.reduce((sum, [, count]) => sum + count, 0));
  const rest = labels.slice(MOST_LABELS).reduce((sum, [, count]) => sum + count, 0);
  return (
    <figure class="chart" aria-labelledby="mix">
      <figcaption id="mix">What was found <span class="dim">findings by label</span></figcaption>
      {shown.length === 0 && <p class="dim">Nothing yet.</p>}
      <ul class="mix">
        {shown.map(([label, count]) => (
          <li key={label}>
            <span class="label" title={label}>{label}</span>
            <svg class="bars" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width={(count / most) * 100} height="10" /></svg>
            <span class="count">{count.toLocaleString()} <span class="dim">{percent(count / all)}</span></span>
          </li>
        ))}
      </ul>
      {labels.length > MOST_LABELS && <p class="dim">And {labels.length - MOST_LABELS} more labels with {rest.toLocaleString()} findings.</p>}
    </figure>
  );
}

function Drift({ devices }: { devices: readonly Device[] }): JSX.Element {
  const [sort, by] = useState<Sort>("drift");
  const value = (device: Device): number => (sort === "slow" ? p95Of(device) ?? -1 : drifts(device) ? 1 + (driftOf(device) ?? 0) : driftOf(device) ?? -1);
  const keyed = devices.map((device) => ({ device, value: sort === "name" ? 0 : value(device) }));
  keyed.sort((a, b) => b.value - a.value || (a.device.key < b.device.key ? -1 : 1));
  const bad = devices.filter(drifts).length, untold = devices.filter((each) => driftOf(each) === null).length;
  return (
    <>
      <h3>Devices</h3>
      <p class="dim">
        Drift is how far what a device finds is from what was signed, 0 (alike) to 1 (nothing in common); above {MAX_DRIFT} it is told, unless its file sets another limit.
        {" "}{bad === 0 ? "None drifts." : `${bad} drift${bad === 1 ? "s" : ""}.`}{untold > 0 && ` ${untold} cannot say yet: that takes 200 findings and a signed reference.`}
      </p>
      <div class="filters" role="group" aria-label="Sort">
        {(Object.keys(SORTS) as Sort[]).map((each) => <button type="button" key={each} aria-pressed={sort === each} onClick={() => by(each)}>{SORTS[each]}</button>)}
      </div>
      <Boxed rows={keyed.length} height={52}>
        <Rows class="drift" label="Devices of this bundle" height={52} rows={keyed} keyOf={(row) => row.device.key}
          heads={["State", "Device", "Drift", "Labels' drift", "A run, p95", "Frames"]} draw={({ device }) => <DriftRow device={device} />} />
      </Boxed>
    </>
  );
}

function DriftRow({ device }: { device: Device }): JSX.Element {
  const model = metricsOf(device), drift = model?.drift ?? null, over = drifts(device);
  const other = device.model && model === null ? `Another bundle sees: ${device.model.name} ${device.model.version}` : "";
  return (
    <>
      <div role="cell" class="c-mood"><MoodMark mood={moodOf(device).mood} /></div>
      <div role="cell" class="c-name"><a href={to(["device", device.site, device.device])}><span class="dim">{device.site}/</span>{device.device}</a></div>
      <div role="cell" class="c-drift" title={device.alerts.get("model-drifted")?.what ?? other}>
        <svg class={over ? "meter over" : "meter"} viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">
          <rect class="all" width="100" height="12" />
          {drift !== null && <rect class="much" y="2" width={Math.max(1, drift * 100)} height="8" />}
          <line x1={MAX_DRIFT * 100} x2={MAX_DRIFT * 100} y1="0" y2="12" />
        </svg>
        <span class={over ? "mood degraded" : ""}>{figure(drift, 2)} {over ? "▲ drifts" : other ? "on trial" : ""}</span>
      </div>
      <div role="cell" class="c-num c-mix">{figure(model?.mix ?? null, 2)}</div>
      <div role="cell" class="c-num c-p95">{figure(p95Of(device), 1, "ms")}</div>
      <div role="cell" class="c-num c-frames">{model ? model.frames.toLocaleString() : "–"}</div>
    </>
  );
}
