// Doing something to a device or a fleet: ask once, say who and what, then show what the device itself answered.
import { cell } from "../draw";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { app } from "../app";
import { Note } from "./bits";

export interface Act {
  /** Such as `Identify plant-1/gate-1`. */
  title: string;
  /** What will happen, one sentence or more. */
  what: ComponentChildren;
  /** The word on the button that does it. */
  verb: string;
  /** Does it; what comes back is shown. An error is shown with its mend. */
  run: (say: (progress: string) => void) => Promise<Outcome>;
}

/** What the device, or the fleet's server, said; `good` as it said, not as was clicked; null when nobody knows. */
export interface Outcome {
  good: boolean | null;
  what: ComponentChildren;
}

const asked = cell<Act | null>(null);

/** Ask for it in a dialog. */
export function act(what: Act): void {
  asked.value = what;
}

type Step = { kind: "ask" } | { kind: "running"; say: string } | { kind: "done"; outcome: Outcome };

export function Acting(): JSX.Element | null {
  const now = asked.value;
  return now && <Dialog key={now.title} act={now} />;
}

function Dialog({ act: { title, what, verb, run } }: { act: Act }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const [step, setStep] = useState<Step>({ kind: "ask" });
  const who = app.value?.api?.me.value;
  useEffect(() => dialog.current?.showModal(), []);
  const begin = async (): Promise<void> => {
    setStep({ kind: "running", say: "Asked; waiting for the answer…" });
    try {
      setStep({ kind: "done", outcome: await run((say) => setStep({ kind: "running", say })) });
    } catch (error) {
      setStep({ kind: "done", outcome: { good: false, what: error instanceof Error ? error.message : String(error) } });
    }
  };
  return (
    <dialog ref={dialog} onClose={() => (asked.value = null)} aria-labelledby="act-title">
      <h2 id="act-title">{title}</h2>
      {step.kind === "ask" && <div>{what}</div>}
      {step.kind === "ask" && <p class="dim">As {who ? `${who.name} (${who.role})` : "nobody"}; it is written in the audit log.</p>}
      {step.kind === "running" && <p role="status" class="running">{step.say}</p>}
      {step.kind === "done" && <Note whole tone={step.outcome.good ? "plain" : "bad"} title={step.outcome.good ? "Done" : step.outcome.good === null ? "Not known" : "Not done"}>{step.outcome.what}</Note>}
      <div class="buttons">
        {step.kind === "ask" && <button type="button" class="main" onClick={() => void begin()}>{verb}</button>}
        <button type="button" onClick={() => dialog.current?.close()}>{step.kind === "ask" ? "Cancel" : "Close"}</button>
      </div>
    </dialog>
  );
}

/** A button that opens the dialog; within `Acts`, which says beside it why not when nobody may. */
export function ActButton({ children, make }: { children: ComponentChildren; make: () => Act }): JSX.Element | null {
  const api = app.value?.api;
  if (!api) return null;
  const { why } = api;
  return (
    <button type="button" disabled={why !== ""} aria-describedby={why ? "why-not" : undefined} onClick={() => act(make())}>{children}</button>
  );
}
