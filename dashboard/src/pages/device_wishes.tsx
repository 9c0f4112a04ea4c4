// What operators want of the device, and what it has made of that.
import type { JSX } from "preact";
import type { Gate, Reported, Update, UpdateState } from "../contract";
import type { Device } from "../fleet";
import { Note, Tag, clock, figure, short } from "../ui/bits";
import { Said } from "../ui/fleet_bits";

type Tone = "plain" | "good" | "warn" | "bad";
const STATES: Record<Reported["state"], [Tone, string]> = {
  none: ["plain", "Nothing is desired; its own file holds."],
  waiting: ["warn", "It is not taken yet."],
  trial: ["warn", "It runs on trial."],
  applied: ["good", "It holds."],
  refused: ["bad", "It was not taken, or not all of it."],
  "rolled-back": ["bad", "It was tried and taken back."],
};
const UPDATES: Record<UpdateState, [Tone, string]> = {
  queued: ["plain", "It waits for its turn."],
  downloading: ["warn", "It is fetched."],
  verified: ["warn", "It is here, whole and signed."],
  selftest: ["warn", "It is tested on this device."],
  trial: ["warn", "It sees the real cameras on trial."],
  confirmed: ["good", "It is in use."],
  rejected: ["bad", "It was not installed."],
  failed: ["bad", "It failed its test or its trial."],
  "rolled-back": ["bad", "It was taken back."],
};
const GATES: Record<string, [string, string]> = {
  golden: ["Golden vectors, worst difference", ""], p95_ms: ["Inference p95, self-test", "ms"], memory_mib: ["Memory, self-test", "MiB"],
  frames: ["Frames on trial", ""], trial_p95_ms: ["Inference p95, trial", "ms"], agreement: ["Agreement with the one before", ""],
};
const AT_LEAST = new Set(["agreement", "frames"]);
const SHOWN = 4000;

export function Wishes({ device }: { device: Device }): JSX.Element {
  const { desired, reported } = device;
  const behind = desired !== null && reported !== null && reported.revision < desired.revision;
  const refused = Object.entries(reported?.refused ?? {});
  const [tone, meaning] = reported ? STATES[reported.state] : (["plain", ""] as const);
  return (
    <section class="card" aria-labelledby="wishes">
      <h2 id="wishes">What is wanted of it</h2>
      <div class="wishes">
        <div>
          <h3>Desired</h3>
          {desired ? (
            <>
              <p>Revision <b>{desired.revision}</b>{desired.rollout && <> by rollout <code>{desired.rollout}</code></>}{desired.window && <>, to begin within {desired.window}, its local time</>}.</p>
              <p>{desired.bundle ? <>The bundle <code title={desired.bundle}>{short(desired.bundle)}</code> {desired.target && <>from <code>{desired.target}</code></>}.</> : "The model stays as it is."}</p>
              {desired.config ? <details><summary>Laid over its own file</summary><pre>{JSON.stringify(desired.config, null, 1).slice(0, SHOWN)}</pre></details> : <p>Its own file holds alone.</p>}
            </>
          ) : <p class="dim">Nothing: the broker keeps no desired state of it.</p>}
        </div>
        <div>
          <h3>Reported</h3>
          {reported ? (
            <>
              <p><Tag tone={tone}>{reported.state}</Tag> revision <b>{reported.revision}</b> at {clock(reported.at)}. {meaning} {refused.length === 0 && reported.reason && <span class="wrap"><Said text={reported.reason} /></span>}</p>
              {behind && <Note tone="warn" title={`It has not taken revision ${desired.revision} yet.`}>It does when it is connected, one every 10 s.</Note>}
              {reported.applied !== null && reported.applied !== undefined && reported.applied !== reported.revision && <p>The configuration of revision <b>{reported.applied}</b> holds.</p>}
              {reported.due_at && <p>It goes on at {clock(reported.due_at, true)}.</p>}
              {reported.restart && reported.restart.length > 0 && <p>Waits for a restart: {reported.restart.slice(0, 20).map((key) => <code key={key}>{key}</code>)}</p>}
              {refused.length > 0 && <dl class="refused">{refused.slice(0, 30).map(([key, why]) => <div key={key} class="fact"><dt><code>{key}</code></dt><dd><Said text={why} /></dd></div>)}</dl>}
            </>
          ) : <p class="dim">It has reported nothing.</p>}
        </div>
        {reported?.update && <UpdateOf update={reported.update} />}
      </div>
    </section>
  );
}

function UpdateOf({ update }: { update: Update }): JSX.Element {
  const [tone, meaning] = UPDATES[update.state];
  const share = Math.min(1, update.share ?? 0);
  const gates = Object.entries(update.gates ?? {});
  return (
    <div class="update">
      <h3>Newest bundle</h3>
      <p><Tag tone={tone}>{update.state}</Tag> <b>{update.bundle ? `${update.bundle.name} ${update.bundle.version}` : update.target}</b> at {clock(update.at)}. {meaning}
        {update.code && <> <code>{update.code}</code></>} <span class="wrap"><Said text={update.reason ?? ""} /></span></p>
      {update.state === "downloading" && <p><label>Fetched <progress max={1} value={share} /> {Math.round(share * 100)} %</label></p>}
      {update.transfer && <p class="dim">{update.transfer === "delta" ? "Only the difference was moved" : `Moved whole${update.why_full ? ` (${update.why_full})` : ""}`}: {figure((update.moved_bytes ?? 0) / 1e6, 2, "MB")}. {(update.attempts ?? 0) > 1 && `${update.attempts} attempts.`}</p>}
      {gates.length > 0 && (
        <div class="table-box" tabIndex={0} role="region" aria-label="Gates">
          <table class="gates">
            <caption>What decided</caption>
            <thead><tr><th scope="col">Gate</th><th scope="col">Passed</th><th scope="col">Here</th><th scope="col">Limit</th><th scope="col">Before</th></tr></thead>
            <tbody>{gates.slice(0, 20).map(([name, gate]) => <GateRow key={name} name={name} gate={gate} />)}</tbody>
          </table>
        </div>
      )}
    </div>
  );
}

function GateRow({ name, gate }: { name: string; gate: Gate }): JSX.Element {
  const [title, unit] = (Object.hasOwn(GATES, name) ? GATES[name] : undefined) ?? [name, ""];
  const digits = Number.isInteger(gate.value) && Number.isInteger(gate.limit) ? 0 : Math.abs(gate.limit) < 10 ? 3 : 1;
  return (
    <tr>
      <th scope="row" title={title}>{title}</th>
      <td><Tag tone={gate.ok ? "good" : "bad"}>{gate.ok ? "yes" : "no"}</Tag></td>
      <td>{figure(gate.value, digits, unit)}</td>
      <td>{AT_LEAST.has(name) ? "≥" : "≤"} {figure(gate.limit, digits, unit)}</td>
      <td>{figure(gate.before, digits, unit)}</td>
    </tr>
  );
}
