// Starting a rollout: the rules as they are written, what the server says would happen, then one confirmation.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Api } from "../api";
import { app } from "../app";
import type { Begin, Preview, Releases, Rollout } from "../fleet_types";
import { Mistake, USUAL, type Written, bytes, policyOf, span } from "../policy";
import { route, to } from "../router";
import { act } from "../ui/act";
import { Fact, Note, short } from "../ui/bits";
import { whyNot } from "../ui/fleet_bits";
import { until } from "./rollout_acts";

interface Fields extends Written {
  bundle: string;
  group: string;
}

type Name = keyof Fields;

/** The fields that are always shown, then the others: name, label, what is written. */
const FIRST: [Name, string, string][] = [
  ["stages", "Stages", "Numbers of devices, then shares, rising; the last is 100%."],
  ["soak", "Each watched for", "Once all of a stage that can be reached has an outcome: 90s, 30m, 1h."],
  ["failures", "Failures at most", "Share of a stage that may fail or stay silent."],
  ["confirmed", "Confirmed at least", "Share of a stage's reached devices."],
  ["hold", "Wait for approval before", "Stages as above, such as 25%,100%; empty for none."],
];
const MORE: [Name, string, string][] = [
  ["latency", "Slower by at most", "How much longer the median device's runs may take; none for any."],
  ["agreement", "Seen differently at most", "Percentage points, such as 2pt; none for any."],
  ["drift", "Drift at most", "Distance from the signed reference, 0 to 1; none for any."],
  ["deadline", "Silent after", "A reached device without an outcome by then is failing."],
  ["window", "Window", "When devices may begin, in their own time: 01:00-05:00; empty for any."],
  ["rate", "Asked in a minute, at most", ""],
  ["atOnce", "On their way at once, at most", ""],
];

export function BeginRollout({ api }: { api: Api }): JSX.Element {
  const [fields, setFields] = useState<Fields>({ ...USUAL, bundle: route.value.query.get("bundle") ?? "", group: "all" });
  const [bad, setBad] = useState<{ field: string; text: string } | null>(null);
  const [shown, show] = useState<{ form: Begin; preview: Preview } | null>(null);
  const [asking, setAsking] = useState(false);
  const [releases, setReleases] = useState<string[]>([]);
  useEffect(() => void api.get<Releases>("/v1/releases").then(({ items }) => setReleases(items.map(({ name, version, target }) => (items.filter((each) => each.name === name && each.version === version).length > 1 ? target : `${name}@${version}`))), () => undefined), [api]);
  const turn = useRef(0); // an answer for fields that have changed since is not shown
  const why = whyNot();
  const change = (name: Name, value: string): void => {
    turn.current += 1;
    setAsking(false);
    setFields({ ...fields, [name]: value });
    show(null);
    setBad(null);
  };
  const look = async (): Promise<void> => {
    show(null);
    setBad(null);
    setAsking(true);
    const mine = (turn.current += 1);
    try {
      const form: Begin = { bundle: fields.bundle.trim(), group: fields.group.trim(), policy: policyOf(fields) };
      const preview = await api.ask<Preview>("POST", "/v1/rollouts/preview", form);
      if (mine === turn.current) show({ form, preview });
    } catch (error) {
      if (mine !== turn.current) return;
      setBad({ field: error instanceof Mistake ? error.field : "", text: error instanceof Error ? error.message : String(error) });
    }
    if (mine === turn.current) setAsking(false);
  };
  const field = ([name, label, help]: [Name, string, string], list = ""): JSX.Element => (
    <div class="field" key={name}>
      <label>
        {label}
        <input name={name} value={fields[name]} list={list || undefined} autocomplete="off" required={name === "bundle" || name === "group"} maxLength={300}
          aria-invalid={bad?.field === name} aria-describedby={`about-${name}`} onInput={(event) => change(name, event.currentTarget.value)} />
      </label>
      <span class={bad?.field === name ? "mood failing help" : "dim help"} id={`about-${name}`} role={bad?.field === name ? "alert" : undefined}>{bad?.field === name ? bad.text : help}</span>
    </div>
  );
  const sites = [...new Set([...(app.value?.fleet.devices.values() ?? [])].map((each) => each.site))].sort().slice(0, 100);
  return (
    <div class="page form-page">
      <h1>Start a rollout</h1>
      {why && <Note tone="warn" title={why}><a href={to(["sign-in"])}>Sign in with another token.</a></Note>}
      <form class="card" onSubmit={(event) => { event.preventDefault(); void look(); }}>
        <div class="fields">
          {field(["bundle", "Release", "NAME@VERSION, its target or its SHA-256, of the server's repository."], "releases")}
          {field(["group", "Group", "all, site:NAME, or a group of the inventory."], "groups")}
          {FIRST.map((each) => field(each))}
        </div>
        <datalist id="releases">{releases.map((each) => <option key={each} value={each} />)}</datalist>
        <datalist id="groups"><option value="all" />{sites.map((each) => <option key={each} value={`site:${each}`} />)}</datalist>
        <details open={MORE.some(([name]) => name === bad?.field) || undefined}>
          <summary>More rules</summary>
          <div class="fields">{MORE.map((each) => field(each))}</div>
        </details>
        {bad && bad.field === "" && <Note whole tone="bad" title="It cannot begin so.">{bad.text}</Note>}
        <div class="buttons"><button type="submit" class={shown ? "" : "main"} disabled={why !== "" || asking}>{asking ? "Asking the server…" : "Show what would happen"}</button></div>
      </form>
      {shown && <Shown {...shown} begin={() => act(beginning(api, shown.form, shown.preview))} />}
    </div>
  );
}

function Shown({ preview: told, form, begin }: { preview: Preview; form: Begin; begin: () => void }): JSX.Element {
  const hold = form.policy.hold ?? [];
  return (
    <section class="card" aria-labelledby="would">
      <h2 id="would">What would happen</h2>
      <dl>
        <Fact name="Release">{told.target}</Fact>
        <Fact name="Bundle"><span title={told.bundle}>{short(told.bundle)}</span>, {bytes(told.size_bytes)}</Fact>
        <Fact name="Devices">{told.devices.toLocaleString()} in {told.group}</Fact>
        <Fact name="Online">{told.online.toLocaleString()}</Fact>
        <Fact name="Have it already">{told.have_it.toLocaleString()}</Fact>
        <Fact name="To fetch">{bytes(told.bytes_at_most)} at most</Fact>
      </dl>
      <ol class="would">
        {told.stages.map(({ stage, devices }, at) => <li key={at}>{hold.includes(at) && "After approval: "}{stage}, about {devices.toLocaleString()} more device{devices === 1 ? "" : "s"}, watched for {span(form.policy.soak_s ?? 1800)}</li>)}
      </ol>
      {told.devices === 0 && <Note tone="warn" title="No device is in this group now.">It could not begin.</Note>}
      <div class="buttons"><button type="button" class="main" disabled={told.devices === 0} onClick={begin}>Begin it</button></div>
    </section>
  );
}

function beginning(api: Api, form: Begin, told: Preview): Parameters<typeof act>[0] {
  return {
    title: `Begin the rollout of ${told.target}`,
    what: <p>{told.devices.toLocaleString()} devices of {told.group} will be asked in {told.stages.length} stage{told.stages.length === 1 ? "" : "s"}, the first about {told.stages[0]?.devices ?? 0}. It stops by itself when a gate fails.</p>,
    verb: "Begin",
    run: async (say) => {
      const { id } = await api.ask<Rollout>("POST", "/v1/rollouts", form);
      say(`The server has begun ${id}. Waiting until it asks the first device…`);
      location.hash = to(["rollout", id]);
      return until(api, id, (view) => {
        const asked = Object.values(view.stages[0]?.outcomes ?? {}).reduce((sum, count) => sum + count, 0);
        if (asked) return { good: true, what: `${id} is ${view.rollout.phase}: ${asked} device${asked === 1 ? " was" : "s were"} asked.` };
        return view.rollout.phase === "running" && !view.rollout.reason ? null : { good: view.rollout.phase === "running", what: `${id} is ${view.rollout.phase}. ${view.rollout.reason}` };
      }, `${id} is begun, and has asked nobody yet: look at its page.`);
    },
  };
}
