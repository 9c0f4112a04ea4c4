// Saving zones: what is wanted of the device, with the change in it, written through the fleet's server; then what the device makes of it.
import type { Desired } from "./contract";
import type { Api } from "./api";
import { Problem } from "./api";
import { redraw } from "./draw";
import type { Device } from "./fleet";
import type { Draft } from "./zone_draft";
import { type Fate, allAlike, fateOf, mergedConfig, shapesOf } from "./zones";

/** What became of what was sent, for people: in a word, what it means, and what the device says. */
export function told(device: Device, draft: Draft): { fate: Fate; title: string; what: string; reasons: [string, string][] } | null {
  if (!draft.sent) return null;
  const { revision, back } = draft.sent, now = fateOf(device.reported, revision), { reported } = device;
  const away = device.status?.state === "offline";
  const reason = now !== "sent" && now !== "passed" ? (reported?.reason ?? "") : "";
  const reasons: [string, string][] = now === "refused" || now === "rolled-back" ? Object.entries(reported?.refused ?? {}).slice(0, 20) : [];
  const named = back ? `Taking back (revision ${revision})` : `Revision ${revision}`;
  const kept = back ? "" : " What you drew is kept: change it and save again, or take back what is wanted of the device.";
  const says: Record<Fate, [string, string]> = {
    sent: away
      ? [`${named} waits at the broker.`, "The device is offline; it takes it when it is back."]
      : [`${named} is sent; the device has not answered yet.`, "It takes one every 10 s."],
    waiting: [`${named} waits.`, "The device has it and has not taken it yet."],
    trial: [`${named} is on trial.`, "It holds when the trial is over; the device takes it back by itself when the camera goes blind."],
    holds: [`${named} holds.`, "The device has applied it."],
    refused: [`The device has refused revision ${revision}.`, `What held before goes on.${kept}`],
    "rolled-back": [`The device has tried revision ${revision} and taken it back.`, `What held before goes on.${kept}`],
    passed: [`Something newer than revision ${revision} is wanted of the device.`, "Load again to see what holds."],
  };
  const [title, what] = says[now];
  return { fate: now, title, what: reason && reasons.length === 0 ? `${what} It says: ${reason}` : what, reasons };
}

/** Take in, once, what became of what was sent; and what the device has otherwise, while nothing is changed here. */
export function settle(device: Device, draft: Draft): void {
  const { sent } = draft;
  if (sent && draft.pending) {
    const now = fateOf(device.reported, sent.revision);
    if (now === "sent" || now === "waiting" || now === "trial") return;
    draft.settled = true;
    if (now === "passed") draft.overtaken = true;
    if (now === "holds" && !sent.back) draft.base = sent.shapes;
    // The next one begins at what holds: nothing of what was refused stays in it. What was drawn stays.
    if (now === "refused" || now === "rolled-back") draft.wanted = { revision: sent.revision, config: sent.before ?? null };
  }
  if (sent && draft.settled && !draft.overtaken && fateOf(device.reported, sent.revision) === "passed") draft.sent = null; // it is history
  if (differs(device, draft) && !draft.changed && !draft.drawing) draft.refresh(device);
}

/** Whether the device has other zones than editing began with. */
export const differs = (device: Device, draft: Draft): boolean => !draft.pending && !allAlike(draft.base, shapesOf(device.info?.cameras[draft.camera]));

const at = (device: Device): string => `/v1/devices/${device.site}/${device.device}`;

/** What is wanted when the device did not take it, and nothing was sent from here since; with what holds instead. */
export function untaken(device: Device, { wanted, sent }: Draft): { revision: number; applied: number | null } | null {
  if (!wanted?.config || sent?.revision === wanted.revision) return null;
  const now = fateOf(device.reported, wanted.revision);
  return now === "refused" || now === "rolled-back" ? { revision: wanted.revision, applied: device.reported?.applied ?? null } : null;
}

/** Begin at the device's own file, so that nothing that it did not take is wanted again. */
export function beginAtFile(device: Device, draft: Draft): void {
  const found = untaken(device, draft);
  if (!found) return;
  draft.wanted = { revision: found.revision, config: null };
  draft.whole = found.applied !== null;
  redraw();
}

/** Read what is wanted. */
export async function load(api: Api, device: Device, draft: Draft): Promise<void> {
  draft.trouble = "";
  try {
    const wanted = await api.get<Desired | null>(`${at(device)}/desired`);
    draft.wanted = { revision: wanted?.revision ?? 0, config: wanted?.config ?? null };
    draft.overtaken = draft.whole = false;
    draft.refresh(device);
  } catch (error) {
    draft.trouble = error instanceof Error ? error.message : String(error);
  }
  redraw();
}

/** Have the draft wanted of the device. */
export async function save(api: Api, device: Device, draft: Draft): Promise<void> {
  const { wanted } = draft;
  if (!wanted) throw new Error("What is wanted of the device was not read. Load again.");
  // over the file alone nothing of what was drawn is there yet, so all of it is said
  const base = draft.whole ? draft.base.map((each) => ({ ...each, uid: 0 })) : draft.base;
  const config = mergedConfig(wanted.config, draft.camera, base, draft.now);
  await put(api, device, draft, config, false);
}

/** Have wanted again what was wanted before. */
export async function takeBack(api: Api, device: Device, draft: Draft): Promise<void> {
  if (!draft.sent) return;
  await put(api, device, draft, draft.sent.before ?? null, true);
}

async function put(api: Api, device: Device, draft: Draft, config: Record<string, unknown> | null, back: boolean): Promise<void> {
  const wanted = draft.wanted ?? { revision: 0, config: null };
  draft.sending = true;
  try {
    const { revision } = await api.ask<{ revision: number }>("PUT", `${at(device)}/config`, { config, based_on: wanted.revision });
    draft.sent = { revision, before: wanted.config ?? null, back, shapes: draft.now };
    draft.wanted = { revision, config };
    draft.whole = false;
    draft.settled = false;
    draft.drawing = null;
  } catch (error) {
    if (!(error instanceof Problem && error.status === 409)) throw error;
    draft.overtaken = true;
    throw new Problem(409, error.what, "Nothing was written. Load again: what you changed is kept, over what is wanted now.");
  } finally {
    draft.sending = false;
    redraw();
  }
}

const LOOK_MS = 200;
/** For a device that waits 10 s with its next one, and a trial of half a minute. */
const PATIENCE_MS = 120_000;

/** Wait until it holds, or is refused; `say` hears how far it is. Gives up when the device is offline, or silent. */
export async function outcome(device: Device, draft: Draft, say: (progress: string) => void): Promise<{ fate: Fate; what: string; reasons: [string, string][] }> {
  const until = performance.now() + PATIENCE_MS;
  let last = "";
  for (;;) {
    const now = told(device, draft);
    if (!now) throw new Error("Nothing was sent.");
    const what = `${now.title} ${now.what}`;
    const over = now.fate !== "sent" && now.fate !== "waiting" && now.fate !== "trial";
    if (over || (now.fate === "sent" && device.status?.state === "offline") || performance.now() > until) return { fate: now.fate, what, reasons: now.reasons };
    if (what !== last) say((last = what));
    await new Promise((done) => window.setTimeout(done, LOOK_MS));
  }
}
