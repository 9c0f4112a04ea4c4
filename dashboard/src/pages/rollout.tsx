// One rollout: what it does and why, stage by stage, its gates, its devices, who did what.
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import type { Api } from "../api";
import { AuditOf, type Line } from "../audit";
import type { MemberRow, MemberRows, Outcome, Rollout, View } from "../fleet_types";
import { EVERY_MS, usePoll } from "../poll";
import { bytes, span, stageText } from "../policy";
import { ask, route, to } from "../router";
import { Fact, clock, figure, short } from "../ui/bits";
import { Boxed, Checks, Missing, OUTCOME_ORDER, OutcomeMark, PhaseMark, Said, isOver, reader } from "../ui/fleet_bits";
import { Rows } from "../ui/rows";
import { BeginRollout } from "./begin_rollout";
import { RolloutActs } from "./rollout_acts";
import { WhyPage } from "./why";
import "./models.css";
import "./rollout.css";

const PAGES = 10;
const OVER_MS = 15_000;

export function RolloutPage({ id, site, device }: { id: string; site: string; device: string }): JSX.Element {
  const { api, none } = reader();
  if (!api) return <div class="page"><h1>{id === "new" ? "Start a rollout" : id}</h1>{none}</div>;
  if (id === "new") return <BeginRollout api={api} />;
  return site && device ? <WhyPage api={api} id={id} site={site} device={device} /> : <Whole api={api} id={id} />;
}

function Whole({ api, id }: { api: Api; id: string }): JSX.Element {
  const polled = usePoll<View>(api, `rollout ${id}`, (server) => server.get(`/v1/rollouts/${encodeURIComponent(id)}`), ({ rollout }) => (isOver(rollout.phase) ? OVER_MS : EVERY_MS));
  const view = polled.value;
  return (
    <div class="page rollout-page">
      <div class="filters"><h1>{id}</h1>{view && <PhaseMark phase={view.rollout.phase} />}<a href={to(["models"])}>All rollouts</a></div>
      <Missing polled={polled} what="This rollout" />
      {view && (
        <>
          {view.rollout.reason && <p class={`reason ${view.rollout.phase}`}><Said text={view.rollout.reason} /></p>}
          <RolloutActs api={api} view={view} />
          <Stages view={view} />
          {view.checks.length > 0 && (
            <section class="card"><h2>Gates of {isOver(view.rollout.phase) ? "the last stage" : `stage ${view.rollout.stage}, which is open`}</h2><Checks checks={view.checks} label="Gates" /></section>
          )}
          <Facts view={view} />
          <Members api={api} view={view} />
          <Who api={api} rollout={view.rollout} />
        </>
      )}
    </div>
  );
}

/** What a stage does, as a shape and words. */
function stateOf({ phase, stage, approved, policy }: Rollout, at: number, soaks: boolean): [string, string, string] {
  if (phase === "done" || at < stage) return ["✓", "passed", "ok"];
  const held = policy.hold.includes(at) && approved < at;
  if (at > stage) return phase === "aborted" ? ["○", "not begun", "offline"] : held ? ["‖", "waits for approval", "degraded"] : ["○", "later", "offline"];
  if (phase === "aborted") return ["✕", "aborted", "offline"];
  if (phase === "paused") return ["‖", "open, paused", "degraded"];
  if (phase === "halted") return ["■", "halted here", "failing"];
  return held ? ["‖", "waits for approval", "degraded"] : soaks ? ["▶", "open, watched", "ok"] : ["▶", "open", "ok"];
}

function Stages({ view: { rollout, stages, soak_left_s: left } }: { view: View }): JSX.Element {
  return (
    <ol class="steps" aria-label="Stages">
      {stages.map(({ stage, devices, outcomes }, at) => {
        const [shape, word, tone] = stateOf(rollout, at, left !== null), soaks = at === rollout.stage && left !== null;
        const asked = Object.values(outcomes).reduce((sum, count) => sum + count, 0), all = Math.max(1, devices, asked);
        const confirmed = outcomes["confirmed"] ?? 0, bad = (outcomes["failed"] ?? 0) + (outcomes["silent"] ?? 0);
        return (
          <li key={at} class={at === rollout.stage && !isOver(rollout.phase) ? "open" : ""} aria-current={at === rollout.stage && !isOver(rollout.phase) ? "step" : undefined}>
            <h2>Stage {at} <span class="dim">{stage.endsWith("%") ? `up to ${stage}` : `${stage} device${stage === "1" ? "" : "s"}`}</span></h2>
            <p class={`mood ${tone}`}><span aria-hidden="true">{shape}</span> {word}</p>
            <svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
              <rect class="all" width="100" height="10" />
              <rect class="much" width={(confirmed / all) * 100} height="10" />
              <rect class="bad" x={(confirmed / all) * 100} width={(bad / all) * 100} height="10" />
            </svg>
            <p>{asked.toLocaleString()} of {devices.toLocaleString()} asked</p>
            <p class="outcomes">{OUTCOME_ORDER.filter((each) => outcomes[each]).map((each) => <OutcomeMark key={each} outcome={each} count={outcomes[each] ?? 0} />)}</p>
            {soaks && (
              <label class="soak">{left > 0 ? `Watched for another ${span(left)}` : "Watched for long enough"}
                <progress max={Math.max(rollout.policy.soak_s, 0.001)} value={Math.max(0, rollout.policy.soak_s - left)} />
              </label>
            )}
          </li>
        );
      })}
    </ol>
  );
}

function Facts({ view: { rollout, members } }: { view: View }): JSX.Element {
  const { policy } = rollout;
  const most = (share: number | null): string => (share === null ? "any" : `at most ${Number((share * 100).toPrecision(4))} %`);
  return (
    <section class="card" aria-label="What it is">
      <dl>
        <Fact name="Release">{rollout.target}</Fact>
        <Fact name="Bundle"><a href={to(["models"], { bundle: rollout.bundle })} title={rollout.bundle}>{short(rollout.bundle)}</a>, {bytes(rollout.size_bytes)}</Fact>
        <Fact name="Group">{rollout.group}{members !== null && `, ${members.toLocaleString()} now`}</Fact>
        <Fact name="Begun">{clock(rollout.begun_at, true)} by {rollout.begun_by}</Fact>
        <Fact name="Has run for">{span(rollout.clock_s)}</Fact>
        <Fact name="Stages">{policy.stages.map(stageText).join(", ")}</Fact>
        <Fact name="Each watched for">{span(policy.soak_s)}</Fact>
        <Fact name="Failures">{most(policy.max_failures)}</Fact>
        <Fact name="Confirmed">at least {Number((policy.min_confirmed * 100).toPrecision(4))} %</Fact>
        <Fact name="Slower by">{most(policy.max_latency_regression)}</Fact>
        <Fact name="Drift">{policy.max_drift === null ? "any" : `at most ${policy.max_drift}`}</Fact>
        <Fact name="Silent after">{span(policy.deadline_s)}</Fact>
        {policy.window !== null && <Fact name="Window">{policy.window}, devices' time</Fact>}
        {policy.hold.length > 0 && <Fact name="Approval before">{policy.hold.map((each) => `stage ${each}`).join(", ")}</Fact>}
        {rollout.reverts !== null && <Fact name="Takes back"><a href={to(["rollout", rollout.reverts])}>{rollout.reverts}</a></Fact>}
      </dl>
    </section>
  );
}

function Members({ api, view: { rollout, stages } }: { api: Api; view: View }): JSX.Element {
  const id = rollout.id, only = route.value.query.get("outcome") ?? "";
  const polled = usePoll<{ items: MemberRow[]; more: boolean }>(api, `members ${id} ${only}`, async (server) => {
    const items: MemberRow[] = [];
    let after = "";
    for (let page = 0; page < PAGES; page += 1) {
      const asked = new URLSearchParams({ most: "1000", ...(only && { outcome: only }), ...(after && { after }) });
      const rows = await server.get<MemberRows>(`/v1/rollouts/${encodeURIComponent(id)}/devices?${asked.toString()}`);
      items.push(...rows.items);
      if (rows.next === null) return { items, more: false };
      after = rows.next;
    }
    return { items, more: true };
  }, ({ items }) => (isOver(rollout.phase) ? OVER_MS : EVERY_MS * Math.ceil((items.length + 1) / 1000)));
  const counts = new Map<string, number>();
  for (const { outcomes } of stages) for (const [name, count] of Object.entries(outcomes)) counts.set(name, (counts.get(name) ?? 0) + count);
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const told = polled.value;
  return (
    <section class="card" aria-labelledby="members">
      <h2 id="members">Devices that were asked</h2>
      <div class="filters" role="group" aria-label="Filter by outcome">
        <button type="button" aria-pressed={only === ""} onClick={() => ask({})}>All {total.toLocaleString()}</button>
        {OUTCOME_ORDER.filter((each) => counts.has(each) || each === only).map((each) => (
          <button type="button" key={each} aria-pressed={only === each} onClick={() => ask(only === each ? {} : { outcome: each })}><OutcomeMark outcome={each} count={counts.get(each) ?? 0} /></button>
        ))}
      </div>
      <Missing polled={polled} what="The devices" />
      {told && told.items.length === 0 && <p class="dim">{only ? `None is ${only} now.` : "None yet."}</p>}
      {told && told.items.length > 0 && (
        <Boxed rows={told.items.length} height={52}>
          <Rows class="members" label="Devices of this rollout" height={52} rows={told.items} keyOf={(row) => `${row.site}/${row.device}`}
            heads={["Outcome", "Device", "Stage", "Why", "A run", "Seen alike"]} draw={(row) => <Member id={id} row={row} />} />
        </Boxed>
      )}
      {told?.more && <p class="dim">The first {told.items.length.toLocaleString()} are shown; filter for those you look for.</p>}
    </section>
  );
}

function Member({ id, row: { site, device, stage, outcome, reason, slowdown, agreement } }: { id: string; row: MemberRow }): JSX.Element {
  return (
    <>
      <div role="cell" class="c-mood"><OutcomeMark outcome={outcome as Outcome} /></div>
      <div role="cell" class="c-name"><a href={to(["rollout", id, site, device])} title="Why it is where it is"><span class="dim">{site}/</span>{device}</a></div>
      <div role="cell" class="c-num c-stage">{stage}</div>
      <div role="cell" class="c-what" title={reason}>{reason}</div>
      <div role="cell" class="c-num c-p95" title="Its 95th percentile of a run, against the bundle's before">{slowdown === null ? "–" : `× ${figure(slowdown, 2)}`}</div>
      <div role="cell" class="c-num c-alike">{agreement === null ? "–" : `${figure(agreement * 100, 1)} %`}</div>
    </>
  );
}

function Who({ api, rollout }: { api: Api; rollout: Rollout }): JSX.Element {
  const log = useMemo(() => new AuditOf(rollout.id, rollout.begun_at), [api, rollout.id]);
  const polled = usePoll<Line[]>(api, `audit ${rollout.id}`, (server) => log.more(server), () => (isOver(rollout.phase) ? OVER_MS : EVERY_MS));
  return (
    <section class="card" aria-labelledby="who">
      <h2 id="who">Who did what</h2>
      <Missing polled={polled} what="The audit log" />
      {polled.value && polled.value.length > 0 && (
        <Boxed rows={polled.value.length} height={44}>
          <Rows class="audit" label="Audit log of this rollout" height={44} rows={polled.value} keyOf={(line) => line.seq} heads={["When", "Who", "What", "Of what"]}
            draw={({ at, who, what, told }) => (
              <>
                <div role="cell" class="c-when" title={at}>{clock(at)}</div>
                <div role="cell" class="c-who" title={who}>{who}</div>
                <div role="cell" class="c-did"><b>{what}</b></div>
                <div role="cell" class="c-what" title={told}>{told}</div>
              </>
            )} />
        </Boxed>
      )}
    </section>
  );
}
