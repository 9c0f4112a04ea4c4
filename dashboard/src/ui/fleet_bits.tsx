// What the pages about rollouts show the same way: phases, outcomes, gates, and why nothing is shown.
import type { ComponentChildren, JSX } from "preact";
import type { Api } from "../api";
import { app } from "../app";
import type { Check, Outcome, Phase } from "../fleet_types";
import type { Polled } from "../poll";
import { to } from "../router";
import { Note } from "./bits";

const PHASES: Record<Phase, [string, string, string]> = {
  running: ["▶", "Running", "ok"],
  paused: ["‖", "Paused", "degraded"],
  halted: ["■", "Halted", "failing"],
  aborted: ["✕", "Aborted", "offline"],
  done: ["✓", "Done", "ok"],
};
const OUTCOMES: Record<Outcome, [string, string]> = {
  confirmed: ["✓", "ok"],
  going: ["▶", "accent"],
  failed: ["■", "failing"],
  silent: ["?", "failing"],
  away: ["○", "offline"],
  left: ["↷", "offline"],
  held: ["‖", "offline"],
};
export const OUTCOME_ORDER: readonly Outcome[] = ["failed", "silent", "going", "away", "confirmed", "left"];

const MOST_SAID = 10_000;
const MOST_CODES = 50;

/** What the server or a device says, with its commands set as such; plain when it is mostly those. */
export function Said({ text }: { text: string }): JSX.Element {
  const said = text.length > MOST_SAID ? `${text.slice(0, MOST_SAID)}…` : text, parts = said.split("`");
  return <>{parts.length > 2 * MOST_CODES ? said : parts.map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part))}</>;
}

/** A table as high as its rows, up to 420 pixels. */
export function Boxed({ rows, height, children }: { rows: number; height: number; children: ComponentChildren }): JSX.Element {
  return <div class="boxed" style={{ height: `${Math.min(420, 38 + rows * height)}px` }}>{children}</div>;
}

/** What nothing follows. */
export const isOver = (phase: Phase): boolean => phase === "aborted" || phase === "done";

function Mark({ shape, word, tone }: { shape: string; word: string; tone: string }): JSX.Element {
  return <span class={`mood ${tone}`}><span aria-hidden="true">{shape}</span> {word}</span>;
}

export function PhaseMark({ phase }: { phase: Phase }): JSX.Element {
  const [shape, word, tone] = PHASES[phase] ?? ["?", phase, "unknown"];
  return <Mark shape={shape} word={word} tone={tone} />;
}

export function OutcomeMark({ outcome, count }: { outcome: Outcome; count?: number }): JSX.Element {
  const [shape, tone] = OUTCOMES[outcome] ?? ["?", "unknown"];
  return <Mark shape={shape} word={count === undefined ? outcome : `${count.toLocaleString()} ${outcome}`} tone={tone} />;
}

function Passes({ ok, waits }: { ok: boolean | null; waits: boolean }): JSX.Element {
  if (ok === null) return <Mark shape="◌" word="Not yet" tone="unknown" />;
  if (ok) return <Mark shape="✓" word="Yes" tone="ok" />;
  return waits ? <Mark shape="‖" word="Waits" tone="degraded" /> : <Mark shape="■" word="No" tone="failing" />;
}

/** Figures against limits, one line each. */
export function Checks({ checks, label }: { checks: readonly Check[]; label: string }): JSX.Element {
  return (
    <table class="checks" aria-label={label}>
      <thead><tr><th scope="col">Passes</th><th scope="col">What</th><th scope="col">Figure</th><th scope="col">Limit</th></tr></thead>
      <tbody>
        {checks.map(({ name, ok, value, limit, what }, at) => (
          <tr key={at}>
            <td><Passes ok={ok} waits={name === "approval"} /></td>
            <th scope="row">{name}</th>
            <td class="figure">{value || "–"}</td>
            <td>{limit}{what && <p class="dim"><Said text={what} /></p>}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The server, when it may be asked; else what is to be done so that it may. */
export function reader(): { api: Api; none: null } | { api: null; none: JSX.Element } {
  const now = app.value;
  if (!now?.api) return { api: null, none: <Note title="Rollouts are led by a fleet's server, and this page knows none.">Serve it with <code>tinysight dashboard --api https://…</code>.</Note> };
  const { api } = now, me = api.me.value;
  if (!api.signedIn) return { api: null, none: <Note title="Sign in to see rollouts."><a href={to(["sign-in"])}>Sign in</a> with a token: <code>tinysight fleet token add NAME --role read</code>.</Note> };
  if (me === null) {
    if (api.refused.value) return { api: null, none: <Note tone="bad" title="The token is not taken.">{api.refused.value} <a href={to(["sign-in"])}>Sign in again.</a></Note> };
    return { api: null, none: api.trouble.value ? <Note tone="bad" title="The fleet's server does not say who you are.">{api.trouble.value} It is asked again by itself.</Note> : <Note title="Asking the fleet's server…" /> };
  }
  if (!me.may.includes("read")) return { api: null, none: <Note tone="warn" title="This token is a device's.">Rollouts need one of role read or operate: <code>tinysight fleet token add NAME --role read</code>.</Note> };
  return { api, none: null };
}

/** Why one may not act; empty when one may. */
export function whyNot(): string {
  return app.value?.api?.why ?? "This page was served without a fleet's server.";
}

/** That the newest answer is missing. */
export function Missing({ polled: { value, why, again_s }, what }: { polled: Polled<unknown>; what: string }): JSX.Element | null {
  if (why) return <Note tone="bad" title={`${what} cannot be read${value === null ? "" : " now; this is what was said last"}.`}>{why} It is asked again in {again_s} s.</Note>;
  return value === null ? <p class="dim" role="status">Asking the fleet's server…</p> : null;
}

/** A button that is greyed with its reason in words beside it, said once for several. */
export function Acts({ label, children }: { label?: string; children: ComponentChildren }): JSX.Element {
  const why = whyNot();
  return (
    <div class="may">
      <div class="filters" role={label ? "group" : undefined} aria-label={label}>{children}</div>
      {why && <p class="dim" id="why-not">{why}</p>}
    </div>
  );
}
