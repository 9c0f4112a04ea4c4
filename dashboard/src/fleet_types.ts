// The fleet's API, for browsers. Made by `make schemas`; do not edit.
//
// What the server answers has all its fields, null where there is nothing. A field with a question mark may be missing,
// or left out of what is sent; `...Given` is a type as it is sent. New fields may come in answers. Nothing is checked
// here: `(await response.json()) as View` believes the server. What was not done is answered as `Told`.

import type { Ack, Desired, DesiredState, Digest, Id, Release, Time } from "./contract.js";

/** Whether the server does what it is for. */
export interface Health {
  /** that it answers. */
  ok: boolean;
  /** whether its controller leads; another may. */
  leads: boolean;
  /** whether it hears the broker. */
  connected: boolean;
  /** whether nothing keeps its controller from going on; what does stands in the server's log. */
  well: boolean;
}

/** Whose token it is that was sent. */
export interface Me {
  /** of whoever has it, as the audit log says it. */
  name: string;
  /** what it was made for. */
  role: Role;
  /** the roles whose routes it lets use; of a device none, for it has its own alone. */
  may: Role[];
  /** of the device that it belongs to; null unless the role is `device`. */
  site: Id | null;
  /** likewise. */
  device: Id | null;
}

/** What a token lets do. Each of the first three may do what those before it may. */
export type Role = "admin" | "device" | "operate" | "read";

/** Devices, by site and id. */
export interface DeviceRows {
  /** at most as many as were asked for. */
  items: DeviceRow[];
  /** what to give as `after` to go on; null at the end. */
  next: string | null;
}

/** A device, as it is known from the broker. */
export interface DeviceRow {
  /** its site. */
  site: Id;
  /** its id. */
  device: Id;
  /** whether it is connected; null when that is not known. */
  online: boolean | null;
  /** SHA-256 of the bundle that it runs. */
  active: Digest | null;
  /** SHA-256 of the bundle that is wanted of it. */
  wanted: Digest | null;
  /** of the desired state that it has seen. */
  revision: number;
  /** what became of that. */
  state: DesiredState | null;
  /** why, in its words. */
  reason: string;
  /** of its model, 0..1; null if not told. */
  drift: number | null;
}

/** The broker has it; what the device makes of it stands in its `Reported`. */
export interface Configured {
  /** of the desired state that says so. */
  revision: number;
}

/** What has become of a command. */
export interface Ordered {
  /** of the command. */
  id: Id;
  /** the device's own answer; null when none came in time. */
  ack: Ack | null;
  /** for it. */
  waited_s: number;
}

/** What may be rolled out. */
export interface Releases {
  /** the newest of each name first; none when the server has no repository. */
  items: Release[];
}

/** Rollouts, the newest first. */
export interface RolloutRows {
  /** at most as many as were asked for. */
  items: Rollout[];
  /** what to give as `after` to go on; null at the end. */
  next: string | null;
}

/** One rollout, as far as it is. */
export interface Rollout {
  /** names it; begins with the bundle's name. */
  id: Id;
  /** of devices: `all`, `site:NAME`, or a group of the inventory. */
  group: string;
  /** the release's path in the devices' repository. */
  target: string;
  /** SHA-256 of the bundle. */
  bundle: Digest;
  /** of the bundle. */
  size_bytes: number;
  /** that puts each device in its place, another one in each rollout. */
  salt: string;
  /** its rules. */
  policy: Policy;
  /** by stage, the place below which a device belongs to it or to one before, 0..1. */
  cutoffs: number[];
  /** UTC, by the machine that began it; decides nothing. */
  begun_at: Time;
  /** who began it. */
  begun_by: string;
  /** what it does. */
  phase: Phase;
  /** the open one, from 0. */
  stage: number;
  /** when that was opened. */
  opened_s: number;
  /** what was settled before is not counted, because a person has resumed since. */
  window_s: number;
  /** since when all of the stage that can be reached is settled; null while it is not. */
  soaked_from_s: number | null;
  /** the highest stage that somebody has approved. */
  approved: number;
  /** of the phase, with what to do. */
  reason: string;
  /** the rollout's clock. */
  clock_s: number;
  /** the rollout that this one takes back; null when it takes back none. */
  reverts: Id | null;
}

/** The rules of a rollout. What is null is not asked for. */
export interface Policy {
  /** in their order; each has all devices of those before. */
  stages: Stage[];
  /** how long a stage is watched, once all of it that can be reached has an outcome. */
  soak_s: number;
  /** share that may fail of a stage's judged devices, and of those of all stages up to the open one. */
  max_failures: number;
  /** share of a stage's reached devices that have to confirm. */
  min_confirmed: number;
  /** by how much of itself the median device's 95th percentile of a run may grow. */
  max_latency_regression: number | null;
  /** how far from all the median share of what both models see alike may be, 0..1. */
  max_agreement_drop: number | null;
  /** distance from the signed reference at which a device counts as failing. */
  max_drift: number | null;
  /** a device that was reached and has no outcome after so long is silent, which is failing. */
  deadline_s: number;
  /** wishes that are sent in a minute at most. */
  per_min: number;
  /** devices that may be on their way at once. */
  at_once: number;
  /** in each device's local time, as in `Desired`. */
  window: string | null;
  /** numbers of the stages, from 0, that wait for somebody's approval before they begin. */
  hold: number[];
}

/** So many devices, or such a share of them, have the bundle when this stage is over. One of both is set. */
export interface Stage {
  count: number | null;
  share: number | null;
}

/** What a rollout does. `paused` is a person's, `halted` a gate's; both send no wish and open no stage. */
export type Phase = "aborted" | "done" | "halted" | "paused" | "running";

/** What a rollout would do. */
export interface Preview {
  /** of the release. */
  target: string;
  /** SHA-256 of it. */
  bundle: Digest;
  /** of it. */
  size_bytes: number;
  /** of devices. */
  group: string;
  /** that are in the group now. */
  devices: number;
  /** of those. */
  online: number;
  /** of those, how many run the bundle already. */
  have_it: number;
  /** that the devices would fetch, if none of them fetched a difference. */
  bytes_at_most: number;
  /** with about how many devices each. */
  stages: StageRow[];
}

/** A stage, and how far it is. */
export interface StageRow {
  /** as it was written, such as `5%`. */
  stage: string;
  /** that belong to it and not to one before; before a rollout begins it is about so many. */
  devices: number;
  /** how many of those that were asked have come how far, by `Outcome`. */
  outcomes: Record<string, number>;
}

/** A rollout, and how far it is. */
export interface View {
  /** as it is kept. */
  rollout: Rollout;
  /** each with its figures. */
  stages: StageRow[];
  /** how many devices are in its group now; null when no device can be heard. */
  members: number | null;
  /** the open stage's gates, each with its figure; empty when it is over, or no device can be heard. */
  checks: Check[];
  /** how long the open stage is still watched; null while it does not soak. */
  soak_left_s: number | null;
}

/** One thing that was looked at, with its figure. */
export interface Check {
  /** of the gate, such as `failures`. */
  name: string;
  /** whether it lets through; null when it cannot be said yet. */
  ok: boolean | null;
  /** the figure, in words, such as `3 of 120 (2.5%)`. */
  value: string;
  /** what it may be, in words; empty without one. */
  limit: string;
  /** one sentence for people, empty where the figures say all. */
  what: string;
}

/** Devices of a rollout, by site and id. */
export interface MemberRows {
  /** at most as many as were asked for. */
  items: MemberRow[];
  /** what to give as `after` to go on; null at the end. */
  next: string | null;
}

/** A device that was asked in a rollout. */
export interface MemberRow {
  /** its site. */
  site: Id;
  /** its id. */
  device: Id;
  /** in which it was asked, from 0. */
  stage: number;
  /** what has become of it. */
  outcome: Outcome;
  /** why, for people. */
  reason: string;
  /** of its desired state. */
  revision: number;
  /** when it was asked, by the rollout's clock. */
  sent_s: number;
  /** since when it is known that it was there; null while it was not. */
  reached_s: number | null;
  /** when it first had an outcome; null while it has none. */
  settled_s: number | null;
  /** its 95th percentile of a run against the bundle's before; null if not told. */
  slowdown: number | null;
  /** share of what both models see alike; null if not told. */
  agreement: number | null;
}

/** What has become of one device in a rollout. */
export type Outcome = "away" | "confirmed" | "failed" | "going" | "held" | "left" | "silent";

/** What has become of a rollout. */
export interface Acted {
  /** as it is now. */
  rollout: Rollout;
  /** the rollout that takes it back, if one was begun. */
  reverting: Rollout | null;
}

/** Why a device is, in a rollout, where it is. */
export interface Why {
  /** its id. */
  rollout: Id;
  /** what it does. */
  phase: Phase;
  /** of the device. */
  site: Id;
  /** its id. */
  device: Id;
  /** what has become of it; `held` when it was not asked. */
  outcome: Outcome;
  /** all that was looked at, each with its figure. */
  checks: Check[];
}

/** Entries of the audit log, in their order. */
export interface Audit {
  /** at most as many as were asked for. */
  items: Entry[];
  /** what to give as `after` to go on; null at the end. */
  next: number | null;
}

/** One thing that was done. */
export interface Entry {
  /** its number, from 1, without gaps. */
  seq: number;
  /** when, by the clock of the machine that wrote it; decides nothing. */
  at: Time;
  /** a person's or a controller's name. */
  who: string;
  /** in a word, such as `begin`, `ask`, `halt`. */
  what: string;
  /** what is needed to do it again. */
  detail: Record<string, unknown>;
  /** hash of the entry before; 64 zeros in the first. */
  before: Digest;
  /** SHA-256 over all of that. */
  hash: Digest;
}

/** Examples, by site, device and digest. */
export interface ExampleRows {
  /** at most as many as were asked for. */
  items: Arrived[];
  /** what to give as `after` to go on; null at the end. */
  next: string | null;
}

/** One example that is here. */
export interface Arrived {
  /** of the device that sent it. */
  site: Id;
  /** likewise. */
  device: Id;
  /** SHA-256 of the file. */
  digest: Digest;
  /** of the file. */
  size_bytes: number;
  /** that took it. */
  camera: Id;
  /** when, by the device's clock. */
  captured_at: Time;
  /** why the device kept it. */
  reason: string;
  /** SHA-256 of the bundle whose model saw it. */
  bundle: string;
}

/** A problem, as RFC 9457 writes it. */
export interface Told {
  /** `about:blank`: the status says which kind it is. */
  type: string;
  /** the status in words. */
  title: string;
  /** of the answer. */
  status: number;
  /** what is wrong. */
  detail: string;
  /** what to do. */
  mend: string;
  /** of the desired state as it is now, when another one was given; else it is missing. */
  revision?: number;
}

/** What shall lie over a device's own file. All else that is wanted of it stays. */
export interface Configure {
  /** as in `Desired`; null for the file alone. */
  config: Record<string, unknown> | null;
  /** the revision of the desired state that whoever asks has seen; 0 for none. */
  based_on: number;
}

/** A command for one device. */
export interface Order {
  /** what the command needs, by name. */
  args?: Record<string, unknown>;
  /** how long its answer is waited for; it is not carried out later. */
  seconds?: number;
}

/** What shall be rolled out, to whom, by which rules. */
export interface Begin {
  /** a release of the server's repository: `NAME@VERSION`, its target's path, or the bundle's SHA-256. */
  bundle: string;
  /** of devices: `all`, `site:NAME`, or a group of the inventory. */
  group: string;
  /** the rules. */
  policy: PolicyGiven;
}

/** The rules of a rollout. What is null is not asked for. */
export interface PolicyGiven {
  /** in their order; each has all devices of those before. */
  stages: StageGiven[];
  /** how long a stage is watched, once all of it that can be reached has an outcome. */
  soak_s?: number;
  /** share that may fail of a stage's judged devices, and of those of all stages up to the open one. */
  max_failures?: number;
  /** share of a stage's reached devices that have to confirm. */
  min_confirmed?: number;
  /** by how much of itself the median device's 95th percentile of a run may grow. */
  max_latency_regression?: number | null;
  /** how far from all the median share of what both models see alike may be, 0..1. */
  max_agreement_drop?: number | null;
  /** distance from the signed reference at which a device counts as failing. */
  max_drift?: number | null;
  /** a device that was reached and has no outcome after so long is silent, which is failing. */
  deadline_s?: number;
  /** wishes that are sent in a minute at most. */
  per_min?: number;
  /** devices that may be on their way at once. */
  at_once?: number;
  /** in each device's local time, as in `Desired`. */
  window?: string | null;
  /** numbers of the stages, from 0, that wait for somebody's approval before they begin. */
  hold?: number[];
}

/** So many devices, or such a share of them, have the bundle when this stage is over. One of both is set. */
export interface StageGiven {
  count?: number | null;
  share?: number | null;
}

/** What goes with pausing, resuming, aborting and approving. */
export interface Act {
  /** for the audit log. */
  reason?: string;
  /** with `abort`: the release to go back to, as `Begin.bundle` names one; null to go back to none. */
  revert?: string | null;
}

/** What each route answers that did what was asked, by method and path. */
export interface Answers {
  "GET /healthz": Health;
  "GET /v1/me": Me;
  "GET /v1/devices": DeviceRows;
  "GET /v1/devices/{site}/{device}/desired": Desired;
  "PUT /v1/devices/{site}/{device}/config": Configured;
  "POST /v1/devices/{site}/{device}/commands/{name}": Ordered;
  "GET /v1/releases": Releases;
  "GET /v1/rollouts": RolloutRows;
  "POST /v1/rollouts": Rollout;
  "POST /v1/rollouts/preview": Preview;
  "GET /v1/rollouts/{rollout}": View;
  "GET /v1/rollouts/{rollout}/devices": MemberRows;
  "POST /v1/rollouts/{rollout}/pause": Acted;
  "POST /v1/rollouts/{rollout}/resume": Acted;
  "POST /v1/rollouts/{rollout}/abort": Acted;
  "POST /v1/rollouts/{rollout}/approve": Acted;
  "GET /v1/rollouts/{rollout}/why/{site}/{device}": Why;
  "GET /v1/audit": Audit;
  "GET /v1/examples": ExampleRows;
}

/** What each route takes that takes a body; the role that a token needs stands in `ROLES`. */
export interface Bodies {
  "PUT /v1/devices/{site}/{device}/config": Configure;
  "POST /v1/devices/{site}/{device}/commands/{name}": Order;
  "POST /v1/rollouts": Begin;
  "POST /v1/rollouts/preview": Begin;
  "POST /v1/rollouts/{rollout}/pause": Act;
  "POST /v1/rollouts/{rollout}/resume": Act;
  "POST /v1/rollouts/{rollout}/abort": Act;
  "POST /v1/rollouts/{rollout}/approve": Act;
}

/** The least role that each route needs; null for none. A device's token lets read what is its own. */
export const ROLES = {
  "GET /healthz": null,
  "GET /openapi.json": null,
  "GET /v1/me": "device",
  "GET /v1/devices": "read",
  "GET /v1/devices/{site}/{device}/desired": "device",
  "PUT /v1/devices/{site}/{device}/config": "operate",
  "POST /v1/devices/{site}/{device}/commands/{name}": "operate",
  "GET /v1/releases": "read",
  "GET /v1/rollouts": "read",
  "POST /v1/rollouts": "operate",
  "POST /v1/rollouts/preview": "operate",
  "GET /v1/rollouts/{rollout}": "read",
  "GET /v1/rollouts/{rollout}/devices": "read",
  "POST /v1/rollouts/{rollout}/pause": "operate",
  "POST /v1/rollouts/{rollout}/resume": "operate",
  "POST /v1/rollouts/{rollout}/abort": "operate",
  "POST /v1/rollouts/{rollout}/approve": "operate",
  "GET /v1/rollouts/{rollout}/why/{site}/{device}": "read",
  "GET /v1/audit": "read",
  "GET /v1/examples": "read",
  "HEAD /v1/examples/{site}/{device}/{digest}": "device",
  "PATCH /v1/examples/{site}/{device}/{digest}": "device",
  "GET /v1/examples/{site}/{device}/{digest}": "read",
  "DELETE /v1/examples/{site}/{device}/{digest}": "operate",
} as const satisfies Record<string, Role | null>;
