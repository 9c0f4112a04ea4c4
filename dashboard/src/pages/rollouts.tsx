// The rollouts, the newest first, as the fleet's server tells them every three seconds.
import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Api } from "../api";
import type { Outcome, RolloutRows, View } from "../fleet_types";
import { EVERY_MS, usePoll } from "../poll";
import { stageText } from "../policy";
import { to } from "../router";
import { clock } from "../ui/bits";
import { Acts, Missing, PhaseMark, isOver, reader, whyNot } from "../ui/fleet_bits";
import "./rollout.css";

const FIRST = 10;
const MOST = 200;

interface Told {
  rows: RolloutRows;
  /** By id. */
  views: Map<string, View>;
}

export function Rollouts(): JSX.Element {
  const { api, none } = reader();
  return (
    <section class="card" aria-labelledby="rollouts">
      <h2 id="rollouts">Rollouts</h2>
      {none ?? <List api={api as Api} />}
    </section>
  );
}

function List({ api }: { api: Api }): JSX.Element {
  const [most, setMost] = useState(FIRST);
  const over = useRef(new Map<string, View>());
  const polled = usePoll<Told>(api, `rollouts ${most}`, async (server) => {
    const rows = await server.get<RolloutRows>(`/v1/rollouts?most=${most}`), views = new Map<string, View>();
    for (const { id, phase } of rows.items) {
      const known = isOver(phase) ? over.current.get(id) : undefined;
      const view = known ?? (await server.get<View>(`/v1/rollouts/${encodeURIComponent(id)}`));
      views.set(id, view);
      if (isOver(view.rollout.phase)) over.current.set(id, view); // what is over does not change
    }
    return { rows, views };
  }, ({ rows }) => Math.max(EVERY_MS, rows.items.length * 100));
  const told = polled.value;
  return (
    <>
      <Acts><button type="button" class="main" disabled={whyNot() !== ""} aria-describedby={whyNot() ? "why-not" : undefined} onClick={() => (location.hash = to(["rollout", "new"]))}>Start a rollout</button></Acts>
      <Missing polled={polled} what="The rollouts" />
      {told && told.rows.items.length === 0 && <p class="dim">There was none yet.</p>}
      {told && told.rows.items.length > 0 && (
        <table class="rollouts">
          <thead><tr><th scope="col">Rollout</th><th scope="col">Phase</th><th scope="col" class="wide">Stage</th><th scope="col">Devices</th><th scope="col" class="wide">Begun</th></tr></thead>
          <tbody>
            {told.rows.items.map(({ id }) => {
              const view = told.views.get(id);
              return view && <Row key={id} {...view} />;
            })}
          </tbody>
        </table>
      )}
      {told?.rows.next && most < MOST && <p class="more"><button type="button" onClick={() => setMost(Math.min(MOST, most * 3))}>Show older ones</button></p>}
      {told?.rows.next && most >= MOST && <p class="dim">There are more: <code>tinysight rollout list</code> tells all.</p>}
    </>
  );
}

function Row({ rollout, stages, members }: View): JSX.Element {
  const sum = (outcome: Outcome): number => stages.reduce((all, each) => all + (each.outcomes[outcome] ?? 0), 0);
  const stage = rollout.policy.stages[rollout.stage];
  const asked = stages.reduce((all, each) => all + Object.values(each.outcomes).reduce((one, count) => one + count, 0), 0);
  return (
    <tr>
      <th scope="row"><a href={to(["rollout", rollout.id])}>{rollout.id}</a><p class="dim">{rollout.target}</p></th>
      <td><PhaseMark phase={rollout.phase} /></td>
      <td class="wide">{rollout.stage}{stage && <span class="dim"> ({stageText(stage)}), the last is {rollout.policy.stages.length - 1}</span>}</td>
      <td>
        <b>{sum("confirmed").toLocaleString()}</b> confirmed of {(members ?? asked).toLocaleString()}
        {sum("failed") > 0 && <span class="mood failing"> ■ {sum("failed")} failed</span>}
        {sum("silent") > 0 && <span class="mood failing"> ? {sum("silent")} silent</span>}
      </td>
      <td class="wide">{clock(rollout.begun_at, true)}<p class="dim">by {rollout.begun_by}</p></td>
    </tr>
  );
}
