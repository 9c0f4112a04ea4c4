// What one may do to a rollout, and what the server and the devices make of it.
import type { JSX } from "preact";
import type { Api } from "../api";
import type { Act as Form, Acted, Outcome as Fate, Rollout, View } from "../fleet_types";
import { pollNow } from "../poll";
import { stageText } from "../policy";
import { to } from "../router";
import { type Act, ActButton, type Outcome } from "../ui/act";
import { Acts, isOver } from "../ui/fleet_bits";

const PATIENCE_MS = 20_000;
const LOOK_MS = 700;

export function RolloutActs({ api, view }: { api: Api; view: View }): JSX.Element {
  const { rollout } = view, { phase } = rollout;
  const coming = [...rollout.policy.hold].sort((a, b) => a - b).find((each) => each > rollout.approved && each >= rollout.stage);
  const approves = !isOver(phase) && coming !== undefined && coming <= rollout.stage + 1;
  return (
    <Acts>
      {phase === "running" && <ActButton make={() => pause(api, rollout)}>Pause</ActButton>}
      {(phase === "paused" || phase === "halted") && <ActButton make={() => resume(api, rollout)}>Resume</ActButton>}
      {approves && <ActButton make={() => approve(api, rollout, coming)}>Approve stage {coming}</ActButton>}
      {!isOver(phase) && <ActButton make={() => abort(api, rollout)}>Abort</ActButton>}
      {isOver(phase) && count(view, "confirmed") > 0 && <ActButton make={() => revert(api, rollout)}>Go back</ActButton>}
    </Acts>
  );
}

function count({ stages }: View, ...outcomes: Fate[]): number {
  return stages.reduce((sum, stage) => sum + outcomes.reduce((all, each) => all + (stage.outcomes[each] ?? 0), 0), 0);
}

function Reason({ form }: { form: Form }): JSX.Element {
  return <label>Reason, for the audit log <input name="reason" maxLength={500} autocomplete="off" onInput={(event) => (form.reason = event.currentTarget.value)} /></label>;
}

function Revert({ form, required }: { form: Form; required: boolean }): JSX.Element {
  return (
    <label>
      {required ? "Release to go back to" : "Go back to this release as well (optional)"}
      <input name="revert" maxLength={300} autocomplete="off" placeholder="NAME@VERSION" onInput={(event) => (form.revert = event.currentTarget.value.trim() || null)} />
      <span class="dim">Devices take no lower release number. So sign the old content again under a higher one: <code>tinysight release add OLD.bundle --release N</code>.</span>
    </label>
  );
}

/** Where it is, in a sentence. */
function whereIs(view: View): string {
  const { rollout } = view, stage = rollout.policy.stages[rollout.stage];
  return `${rollout.id} is ${rollout.phase}, in stage ${rollout.stage}${stage ? ` (${stageText(stage)})` : ""}: ${count(view, "confirmed")} confirmed, ${count(view, "going", "away")} on their way, ${count(view, "failed", "silent")} failed or silent.`;
}

/** Look until something has come of it. The server has taken it: that it does not answer meanwhile does not undo that. */
export async function until(api: Api, id: string, told: (view: View) => Outcome | null, late: string): Promise<Outcome> {
  let trouble = "";
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await new Promise((done) => setTimeout(done, LOOK_MS))) {
    let view: View;
    try {
      view = await api.get<View>(`/v1/rollouts/${encodeURIComponent(id)}`);
    } catch (error) {
      trouble = error instanceof Error ? error.message : String(error);
      continue;
    }
    trouble = "";
    const outcome = told(view);
    if (outcome) {
      pollNow();
      return outcome;
    }
  }
  return trouble ? { good: null, what: `The server took it; what came of it is not known. ${trouble}` } : { good: false, what: late };
}

async function send(api: Api, id: string, what: string, form: Form, say: (progress: string) => void): Promise<Acted> {
  const acted = await api.ask<Acted>("POST", `/v1/rollouts/${encodeURIComponent(id)}/${what}`, form);
  pollNow();
  say(`The server has written down that ${id} is ${acted.rollout.phase}. Looking what comes of it…`);
  return acted;
}

const NOBODY = "The server has it, and the rollout's clock stands still: nobody leads it. Look whether a server leads (GET /healthz), and hears the broker.";

function pause(api: Api, { id }: Rollout): Act {
  const form: Form = {};
  return {
    title: `Pause ${id}`,
    what: <><p>No further device is asked, and no stage opens. Devices that were asked go on.</p><Reason form={form} /></>,
    verb: "Pause",
    run: async (say) => {
      await send(api, id, "pause", form, say);
      return until(api, id, (view) => (view.rollout.phase === "running" ? null : { good: view.rollout.phase === "paused", what: whereIs(view) }), "The server has taken it, and the rollout still runs: look at its page.");
    },
  };
}

function resume(api: Api, { id, phase }: Rollout): Act {
  const form: Form = {};
  return {
    title: `Resume ${id}`,
    what: <><p>It goes on. What was settled before no longer counts in the gates{phase === "halted" ? ", so what has halted it does not halt it again" : ""}.</p><Reason form={form} /></>,
    verb: "Resume",
    run: async (say) => {
      const { rollout } = await send(api, id, "resume", form, say);
      return until(api, id, (view) => {
        if (view.rollout.phase === "halted") return { good: false, what: `It has halted again. ${view.rollout.reason}` };
        return view.rollout.clock_s > rollout.clock_s || isOver(view.rollout.phase) ? { good: true, what: whereIs(view) } : null;
      }, NOBODY);
    },
  };
}

function approve(api: Api, { id, policy }: Rollout, stage: number): Act {
  const form: Form = {};
  const named = policy.stages[stage];
  return {
    title: `Approve stage ${stage} of ${id}`,
    what: <><p>Stage {stage}{named && ` (${stageText(named)})`} may begin, as soon as the one before has passed. No later one.</p><Reason form={form} /></>,
    verb: "Approve",
    run: async (say) => {
      const { rollout } = await send(api, id, "approve", form, say);
      return until(api, id, (view) => {
        if (view.rollout.stage >= stage && view.rollout.approved >= stage) return { good: true, what: whereIs(view) };
        const waits = view.rollout.clock_s > rollout.clock_s + 2 && view.rollout.approved >= stage;
        return waits ? { good: true, what: `It is approved, and begins once the one before has passed. ${whereIs(view)}` } : null;
      }, NOBODY);
    },
  };
}

function aborted({ rollout, reverting }: Acted, view: View | null): Outcome {
  if (!reverting) return { good: true, what: view ? `${whereIs(view)} What is confirmed stays; the rest is taken back.` : rollout.phase };
  return {
    good: true,
    what: <>{rollout.id} is {rollout.phase}. <a href={to(["rollout", reverting.id])} onClick={(event) => event.currentTarget.closest("dialog")?.close()}>{reverting.id}</a> brings {reverting.target} to the devices that run the new bundle.</>,
  };
}

function abort(api: Api, { id }: Rollout): Act {
  const form: Form = {};
  return {
    title: `Abort ${id}`,
    what: <><p>It ends. What is not done is taken back; what is confirmed stays, unless a release to go back to is named.</p><Reason form={form} /><Revert form={form} required={false} /></>,
    verb: "Abort",
    run: async (say) => {
      const acted = await send(api, id, "abort", form, say);
      if (acted.reverting) return aborted(acted, null);
      return until(api, id, (view) => (view.rollout.phase === "aborted" ? aborted(acted, view) : null), "The server has taken it, and the rollout goes on: look at its page.");
    },
  };
}

function revert(api: Api, { id, target }: Rollout): Act {
  const form: Form = {};
  return {
    title: `Go back from ${target}`,
    what: <><p>Another rollout begins at once, in one stage, that brings this release to all devices that run {target}.</p><Revert form={form} required /><Reason form={form} /></>,
    verb: "Go back",
    run: async (say) => {
      if (!form.revert) return { good: false, what: "No release was named. Name one with a higher number than the one that is taken back." };
      return aborted(await send(api, id, "abort", form, say), null);
    },
  };
}
