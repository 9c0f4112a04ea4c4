// Why a device is, in a rollout, where it is: everything that was looked at, with its figure and its limit.
import type { JSX } from "preact";
import type { Api } from "../api";
import type { Check, Why } from "../fleet_types";
import { EVERY_MS, usePoll } from "../poll";
import { to } from "../router";
import { Checks, Missing, OutcomeMark, PhaseMark, isOver } from "../ui/fleet_bits";

export function WhyPage({ api, id, site, device }: { api: Api; id: string; site: string; device: string }): JSX.Element {
  const path = [id, "why", site, device].map(encodeURIComponent).join("/");
  const polled = usePoll<Why>(api, `why ${path}`, (server) => server.get(`/v1/rollouts/${path}`), ({ phase }) => (isOver(phase) ? EVERY_MS * 5 : EVERY_MS));
  const why = polled.value, own: Check[] = [], ofStage: Check[] = [];
  let stage = "";
  for (const check of why?.checks ?? []) {
    const found = /^(stage \d+): (.*)$/.exec(check.name);
    if (found?.[1]) stage = found[1];
    if (found) ofStage.push({ ...check, name: found[2] ?? "" });
    else if (check.name === "failures of all stages") ofStage.push(check);
    else own.push(check);
  }
  return (
    <div class="page rollout-page">
      <div class="filters">
        <h1>{site}/{device}</h1>
        {why && <OutcomeMark outcome={why.outcome} />}
        <a href={to(["device", site, device])}>The device</a>
      </div>
      <p>In <a href={to(["rollout", id])}>{id}</a>{why && <>, which is <PhaseMark phase={why.phase} /></>}. Each thing that decides about it, in order.</p>
      <Missing polled={polled} what="Why it is where it is" />
      {own.length > 0 && <section class="card"><h2>This device</h2><Checks checks={own} label="What decides about this device" /></section>}
      {ofStage.length > 0 && <section class="card"><h2>The open stage {stage && <span class="dim">{stage}</span>}</h2><Checks checks={ofStage} label="Gates of the open stage" /></section>}
    </div>
  );
}
