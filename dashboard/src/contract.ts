// The MQTT contract of TinySight, version 1, for browsers. Made by `make schemas`; do not edit.
//
// A field with a question mark may be missing; others are always there. New fields may come within version 1.
// What comes over the wire is not checked here: `JSON.parse(text) as Event` believes the device.

/** In 0..1 of the frame. */
export type Box = [x1: number, y1: number, x2: number, y2: number];

/** SHA-256 in lower-case hexadecimal. */
export type Digest = string;

/** 1 to 63 of a-z, 0-9 and "-", beginning with a letter or a digit. */
export type Id = string;

/** In 0..1 of the frame. */
export type Point = [x: number, y: number];

/** UTC, ISO 8601. */
export type Time = string;

/** `status`: whether the device is connected; retained, and the will. */
export interface Status {
  /** whether it is there. */
  state: State;
  /** names the agent's run; keeps a late will from marking a new session dead. */
  boot_id: Id;
  /** why, for people. */
  reason: string;
  /** when it was so; of the will: when the connection was opened. */
  at: Time;
}

/** Whether the device is connected. */
export type State = "offline" | "online";

/** `info`: what the device is; published at every connect, and when any of it changes. */
export interface Info {
  /** names the agent's run. */
  boot_id: Id;
  /** when it began. */
  started_at: Time;
  /** versions by name: `tinysight`, `python`, `os`. */
  software: Record<string, string>;
  /** what runs the model: `name`, `version`, `file`. */
  runtime: Record<string, string>;
  /** `model`, `machine`, `cpus`, `memory_mib`. */
  hardware: Record<string, string | number>;
  /** by the camera's id. */
  cameras: Record<Id, CameraInfo>;
  /** the active bundle. */
  bundle: BundleRef;
  /** what the configuration lets it send beside events, counts and states: `frame`, `snapshot`. */
  publishes?: string[];
}

/** One configured camera. What it blacks out for privacy is not told. */
export interface CameraInfo {
  /** its address or device, never with credentials. */
  source: string;
  /** pixels of the frame; 0 until the camera delivers. */
  width: number;
  /** pixels of the frame; 0 until the camera delivers. */
  height: number;
  /** frames per second it offers; 0 when unknown. */
  fps: number;
  /** by name, where its zones are; empty as well when those of all cameras are too much for a message. */
  zones?: Record<Id, ZoneShape>;
  /** by name, where its lines are; likewise. */
  lines?: Record<Id, LineShape>;
}

/** Where a zone is in the camera's frame. */
export interface ZoneShape {
  /** its corners in their order, 3 to 64; the last is joined to the first. */
  polygon: Point[];
  /** what counts in it; null when everything does. */
  labels?: string[] | null;
}

/** Where a line is in the camera's frame: `in` is from its left side to its right, seen from its start to its end. */
export interface LineShape {
  /** one end. */
  start: Point;
  /** the other. */
  end: Point;
  /** what counts; null when everything does. */
  labels?: string[] | null;
}

/** The active bundle. */
export interface BundleRef {
  /** the bundle's name. */
  name: string;
  /** the bundle's version, such as `1.2.0`. */
  version: string;
  /** rises with each release. */
  release: number;
  /** SHA-256 of the bundle file. */
  digest: Digest;
  /** `detect` or `classify`. */
  task: string;
  /** what the numbers of the file in use are, such as `int8`. */
  scheme: string;
  /** all that the model can name; `class_id` is a place in it. */
  labels: string[];
}

/** `health`: how the device does, every 30 s. A figure the machine does not offer is null. */
export interface Health {
  /** when it was measured. */
  at: Time;
  /** names the agent's run. */
  boot_id: Id;
  /** seconds since it began. */
  uptime_s: number;
  /** by the camera's id. */
  cameras: Record<Id, CameraHealth>;
  /**
   * by stage: `wait`, `preprocess`, `inference`, `decode`, `track`, `meaning`, `pictures`; and `age_at_publish`, how
   * old the frame was when its event was handed to the connection (of events that did not wait for the broker).
   */
  latency_ms: Record<string, Percentiles>;
  /** of the agent; 100 is one core. */
  cpu_percent: number;
  /** held by the agent. */
  memory_mib: number;
  /** the processor's. */
  temperature_c: number | null;
  /** where the agent keeps its state. */
  disk_free_mib: number;
  /** events on their way. */
  outbox: OutboxHealth;
  /** how it does, and why. */
  verdict?: Verdict;
  /** whether the machine slows itself down, for heat or want of power. */
  throttled?: boolean | null;
  /** the connection; null of agents that do not tell. */
  broker?: BrokerHealth | null;
}

/** One camera's flow since the last report. Until the last one frames may be on their way, and neither. */
export interface CameraHealth {
  /** frames per second that the model saw. */
  fps: number;
  /** frames that came from it. */
  frames: number;
  /** frames that the model saw. */
  inferred: number;
  /**
   * frames by cause: `stale` (a newer one came first), `still` (nothing moved), `governed` (see `limit_fps`), `rate`
   * (above the configured one), `damaged` (undecodable), `reloaded` (the configuration changed while it was looked
   * at), `stopped` (its camera or the agent ended first).
   */
  dropped: Record<string, number>;
  /** how old a frame was when its events were ready. */
  frame_age_ms: Percentiles;
  /** what the governor allows; null when that is all. */
  limit_fps?: number | null;
  /** frames per second that came from it. */
  fps_in?: number;
}

/** The middle and the tail of a duration since the last report. */
export interface Percentiles {
  /** milliseconds; half took no longer. */
  p50: number;
  /** milliseconds; 95 of 100 took no longer. */
  p95: number;
}

/** Events that wait for the broker's acknowledgement, and those that were given up. */
export interface OutboxHealth {
  /** events that wait for the broker's acknowledgement. */
  depth: number;
  /** events that were given up, by cause. */
  discarded: Record<string, number>;
  /** the highest `seq` so far. */
  last_seq: number;
}

/** How the device does, the gravest reason for it and its remedy. */
export interface Verdict {
  /** the whole in one word. */
  state: Well;
  /** stable, such as `camera.stalled`; docs/health.md has all. */
  code?: string;
  /** the gravest reason, for people. */
  what?: string;
  /** its remedy, one sentence. */
  mend?: string;
}

/** How the device does, in one word. */
export type Well = "degraded" | "failing" | "ok";

/** The connection since the agent began. */
export interface BrokerHealth {
  /** how often the broker took us in. */
  sessions: number;
  /** sessions that ended, by cause. */
  ended: Record<string, number>;
  /** messages that the broker refused, or would have refused for their size, by cause. */
  refused: Record<string, number>;
}

/** `model`: what the model that sees has found since it began to, in one frame a second of each camera at most. */
export interface ModelMetrics {
  /** when it was so. */
  at: Time;
  /** names the agent's run. */
  boot_id: Id;
  /** SHA-256 of the bundle that sees, be it active or on trial. */
  bundle: Digest;
  /** the bundle's name. */
  name: string;
  /** the bundle's version. */
  version: string;
  /** when it began to see in this run. */
  since: Time;
  /** that were counted. */
  frames: number;
  /**
   * what was found in them above the threshold, or a classifier's first answer to each, by how sure the model was: 20
   * equal parts of 0..1.
   */
  scores: number[];
  /** the same by label, the 500 found most. */
  labels: Record<string, number>;
  /** of the newest thousand runs; null as long as there are fewer than twenty. */
  inference_ms?: Percentiles | null;
  /**
   * how far the newest thousand scores are from those in the signed manifest, 0 (alike) to 1 (nothing in common);
   * null without a reference, or as long as there are fewer than 200.
   */
  drift?: number | null;
  /** the same of the labels. */
  mix?: number | null;
}

/** `camera/<cam>/status`: what a camera delivers. */
export interface CameraStatus {
  /** what it delivers. */
  state: CameraState;
  /** when it became so. */
  since: Time;
  /** why, for people. */
  reason: string;
  /** names the agent's run. */
  boot_id: Id;
}

/** What a camera delivers. */
export type CameraState = "covered" | "dark" | "disabled" | "frozen" | "online" | "reconnecting" | "stalled";

/** `camera/<cam>/counts`: objects present now, and line crossings so far. */
export interface Counts {
  /** capture of the frame that was counted. */
  at: Time;
  /** names the agent's run. */
  boot_id: Id;
  /** objects present now, by label, zeros included. */
  objects: Record<string, number>;
  /** the same by zone, then label. */
  zones: Record<string, Record<string, number>>;
  /** crossings so far, by line, then direction (`in`, `out`). */
  lines: Record<string, Record<string, number>>;
}

/** `camera/<cam>/event`: one step in an object's life; (`boot_id`, `seq`) names it. */
export interface Event {
  /** names the object, the same from `start` to `end`. */
  id: Id;
  /** which step. */
  type: EventType;
  /** names the agent's run. */
  boot_id: Id;
  /** rises by one with each event of one `boot_id`, over all cameras, from 1; a gap is a lost event. */
  seq: number;
  /** as in the topic. */
  site: Id;
  /** as in the topic. */
  device: Id;
  /** as in the topic. */
  camera: Id;
  /** which model saw it. */
  model: ModelRef;
  /** what it is, in the model's words. */
  label: string;
  /** the label's place in the model's list, from 0. */
  class_id: number;
  /** how sure the model is, in this frame. */
  score: number;
  /** the highest score so far. */
  best_score: number;
  /** where it is in the frame. */
  box: Box;
  /** the frame's size. */
  frame: FrameSize;
  /** zones it is in, and was in. */
  zones: Zones;
  /** how long it has been followed, and whether it rests. */
  track: Track;
  /** capture of the first frame that shows it. */
  started_at: Time;
  /** capture of the frame that last showed it. */
  seen_at: Time;
  /** of an `end`: when it was last seen; else null. */
  ended_at: Time | null;
  /** whether the device's kernel believes its clock to be right; null where it cannot be asked. */
  clock_synced: boolean | null;
  /** true when the event waited on the device for the broker. */
  replayed: boolean;
  /** where the time went between the capture of the frame and this event. */
  latency_ms: LatencyMs;
  /** the lines it has crossed so far, in order. */
  crossed?: Crossing[];
  /** the names of the configured rules that it has fulfilled so far. */
  rules?: string[];
  /** of an `end`: `left`, `changed`, `camera lost`, `stopped`, `restarted` or `model changed`; else null. */
  reason?: string | null;
}

/** A step in an object's life. */
export type EventType = "end" | "start" | "update";

/** Which model saw it. */
export interface ModelRef {
  /** the bundle's name. */
  name: string;
  /** the bundle's version, such as `1.2.0`. */
  version: string;
  /** SHA-256 of the bundle file. */
  digest: Digest;
}

/** The camera frame in pixels. */
export interface FrameSize {
  /** pixels. */
  width: number;
  /** pixels. */
  height: number;
}

/** Where the object is, and has been. */
export interface Zones {
  /** names of the zones it is in now. */
  now: string[];
  /** names of all zones that it has entered so far. */
  entered: string[];
  /** by zone: seconds from the first to the last sighting within, over all visits. */
  dwell_s?: Record<string, number>;
}

/** How long the object has been followed, and whether it rests. */
export interface Track {
  /** seconds between the first and the last frame that show it. */
  age_s: number;
  /** true when it rests. */
  stationary: boolean;
}

/** Where the time went between the capture of the frame and this event, in milliseconds. */
export interface LatencyMs {
  /** from the capture to the begin of the work on it. */
  wait: number;
  /** fitting the frame into the model's input. */
  preprocess: number;
  /** the model. */
  inference: number;
  /** from the model's outputs to boxes. */
  decode: number;
  /** from boxes to objects. */
  track: number;
  /** from the capture until the event was made. */
  total: number;
}

/** A line that the object has crossed. */
export interface Crossing {
  /** the line's name. */
  line: string;
  /** `in` is from the line's left side to its right, seen from its start to its end. */
  direction: "in" | "out";
}

/** `camera/<cam>/frame`: every frame's detections (opt-in). */
export interface Frame {
  /** names the agent's run. */
  boot_id: Id;
  /** the frame's size. */
  frame: FrameSize;
  /** capture of the frame. */
  seen_at: Time;
  /** which model saw it. */
  model: ModelRef;
  /** all objects in it, strongest first. */
  detections: Detection[];
}

/** One object in one frame. */
export interface Detection {
  /** what it is, in the model's words. */
  label: string;
  /** the label's place in the model's list, from 0. */
  class_id: number;
  /** how sure the model is. */
  score: number;
  /** where it is in the frame. */
  box: Box;
  /** the `id` of the object's events; null while it is in none. */
  track_id: Id | null;
}

/** `alert/<code>`: a standing problem and its remedy; an empty payload clears it. */
export interface Alert {
  /** `warning` or `error`. */
  severity: "error" | "warning";
  /** what is wrong, for people. */
  what: string;
  /** its remedy, one sentence. */
  mend: string;
  /** when it was found. */
  since: Time;
  /** names the agent's run. */
  boot_id: Id;
}

/** `desired`: what the operator wants, instead of what an earlier one wanted. */
export interface Desired {
  /** the operator's number of this wish; one below the newest that the device knows is passed over. */
  revision: number;
  /** SHA-256 of the bundle that shall run; null leaves the model as it is. */
  bundle?: Digest | null;
  /** where the device's repository has it, `<project>/<name>-<version>.bundle`; only what is signed is installed. */
  target?: string | null;
  /** the rollout that asks for it; null when a person does. */
  rollout?: Id | null;
  /**
   * when the device may begin to fetch and try the bundle, in its local time, such as `01:00-05:00`; null for at any
   * time. One that ends before it begins ends on the next day.
   */
  window?: string | null;
  /** laid over the device's own agent.toml as a JSON merge patch (RFC 7396); null for that file alone. */
  config?: Record<string, unknown> | null;
}

/** `reported`: what the device has made of the desired state. */
export interface Reported {
  /** the newest that was asked for. */
  revision: number;
  /** when it was so. */
  at: Time;
  /** SHA-256 of the active bundle. */
  bundle: Digest | null;
  /** what became of that revision. */
  state: DesiredState;
  /** why, for people; empty when all took effect. */
  reason?: string;
  /** of each part that was not taken, by its key, why. */
  refused?: Record<string, string>;
  /** the revision whose `config` holds now; null when the device's file alone does. */
  applied?: number | null;
  /** of the configuration that runs. */
  config_digest?: string | null;
  /** what the file changes that waits for a restart. */
  restart?: string[];
  /** of the process that says so. */
  boot_id?: Id | null;
  /** when it goes on, of a bundle that waits for its window; else null. */
  due_at?: Time | null;
  /** of the newest bundle that was to be installed, by whatever way; null when there was none. */
  update?: Update | null;
}

/** What became of a desired state. */
export type DesiredState = "applied" | "none" | "refused" | "rolled-back" | "trial" | "waiting";

/** What has become of one bundle so far. */
export interface Update {
  /** where it was asked for in the repository. */
  target: string;
  /** how far it has come. */
  state: UpdateState;
  /** since when. */
  at: Time;
  /** why it did not come further, for programs; null while it may, and when it is confirmed. */
  code?: Code | null;
  /** the same for people, with what to do. */
  reason?: string;
  /** what was signed under that path; null as long as nothing is known of it. */
  bundle?: Release | null;
  /** how often its self-test, or later its trial, was begun. */
  attempts?: number;
  /** of its bytes that are here. */
  share?: number;
  /** what was transferred for it. */
  moved_bytes?: number;
  /** `full`, or `delta` when only the difference to the active bundle was; empty before that is known. */
  transfer?: string;
  /** why it was not a delta. */
  why_full?: string;
  /**
   * by name, the figures of its self-test and its trial: `golden`, `p95_ms`, `memory_mib`, `frames`, `trial_p95_ms`,
   * `agreement`.
   */
  gates?: Record<string, Gate>;
}

/** How far a bundle has come. */
export type UpdateState = "confirmed" | "downloading" | "failed" | "queued" | "rejected" | "rolled-back" | "selftest" | "trial" | "verified";

/** Why a bundle was not installed, or did not stay. Stable: programs may depend on them. */
export type Code = "broke" | "crashed" | "disagrees" | "disk" | "expired" | "failed-before" | "hardware" | "hung" | "malformed" | "memory" | "no-frames" | "no-space" | "not-found" | "operator" | "replayed" | "runtime" | "schema" | "slow" | "superseded" | "tampered" | "too-large" | "too-old" | "too-slow" | "unreachable" | "unsigned" | "wrong";

/** A bundle as its project signed it. */
export interface Release {
  /** its path in the repository, `<project>/<name>-<version>.bundle`. */
  target: string;
  /** SHA-256 of the bundle file. */
  digest: Digest;
  /** of the bundle file. */
  size_bytes: number;
  /** the bundle's name. */
  name: string;
  /** the bundle's version, such as `1.2.0`. */
  version: string;
  /** rises with each release. */
  release: number;
}

/** One figure that decided. */
export interface Gate {
  /** measured on this device. */
  value: number;
  /** what it may be at most; for `agreement` and `frames` at least. */
  limit: number;
  /** whether it is. */
  ok: boolean;
  /** the same figure of the bundle that was active; null where there is none. */
  before?: number | null;
}

/** `cmd/<name>`: do this once, not after `expires_at`. */
export interface Command {
  /** names the command: one that comes twice is carried out once, and `ack/<id>` answers. */
  id: Id;
  /** not carried out after this. */
  expires_at: Time;
  /** what the command needs, by name. */
  args?: Record<string, unknown>;
}

/** `ack/<id>`: what became of a command. */
export interface Ack {
  /** of the command. */
  id: Id;
  /** of the command, as in its topic. */
  name: Id;
  /** whether it was carried out. */
  ok: boolean;
  /** when that was known. */
  at: Time;
  /** what it gave, by name. */
  result?: Record<string, unknown>;
  /** why not, and what to do, for people; null when it was. */
  error?: string | null;
  /** the same for programs. */
  code?: AckCode;
}

/** What became of a command. All but `ok` mean that it was not carried out, `interrupted` that nobody knows. */
export type AckCode = "clock" | "expired" | "failed" | "interrupted" | "malformed" | "ok" | "refused" | "retained" | "unknown";

/** Online or offline; also the will. */
export interface StatusTopic {
  kind: "status";
  site: Id;
  device: Id;
}

/** What the device is: software, runtime, hardware, cameras, active bundle. */
export interface InfoTopic {
  kind: "info";
  site: Id;
  device: Id;
}

/** How the device does, every 30 s. */
export interface HealthTopic {
  kind: "health";
  site: Id;
  device: Id;
}

/** What the model that sees has found so far: how sure it was, of what, and how far that is from its reference. */
export interface ModelTopic {
  kind: "model";
  site: Id;
  device: Id;
}

/** Whether a camera delivers pictures. */
export interface CameraStatusTopic {
  kind: "cameraStatus";
  site: Id;
  device: Id;
  camera: Id;
}

/** Objects present now, zeros included. */
export interface CountsTopic {
  kind: "counts";
  site: Id;
  device: Id;
  camera: Id;
}

/** An object's life: start, update, end. */
export interface EventTopic {
  kind: "event";
  site: Id;
  device: Id;
  camera: Id;
}

/** Every frame's detections (opt-in). */
export interface FrameTopic {
  kind: "frame";
  site: Id;
  device: Id;
  camera: Id;
}

/** A JPEG of an event (opt-in). */
export interface SnapshotTopic {
  kind: "snapshot";
  site: Id;
  device: Id;
  camera: Id;
  event: Id;
}

/** A standing problem and its remedy; an empty payload clears it. */
export interface AlertTopic {
  kind: "alert";
  site: Id;
  device: Id;
  code: Id;
}

/** The state the operator wants. */
export interface DesiredTopic {
  kind: "desired";
  site: Id;
  device: Id;
}

/** What the device has made of the desired state. */
export interface ReportedTopic {
  kind: "reported";
  site: Id;
  device: Id;
}

/** A one-shot command; a retained one is refused. */
export interface CommandTopic {
  kind: "command";
  site: Id;
  device: Id;
  name: Id;
}

/** The answer to the command with this id. */
export interface AckTopic {
  kind: "ack";
  site: Id;
  device: Id;
  id: Id;
}

export const ROOT = "tinysight/v1";

/** What may stand as one level of a topic. */
export const ID = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** Every topic, told apart by `kind`. */
export type Topic =
  | StatusTopic
  | InfoTopic
  | HealthTopic
  | ModelTopic
  | CameraStatusTopic
  | CountsTopic
  | EventTopic
  | FrameTopic
  | SnapshotTopic
  | AlertTopic
  | DesiredTopic
  | ReportedTopic
  | CommandTopic
  | AckTopic;
export type Kind = Topic["kind"];

/** What each kind of topic carries, JSON or a JPEG's bytes. An empty payload takes back what was retained. */
export interface Payloads {
  status: Status;
  info: Info;
  health: Health;
  model: ModelMetrics;
  cameraStatus: CameraStatus;
  counts: Counts;
  event: Event;
  frame: Frame;
  snapshot: Uint8Array;
  alert: Alert;
  desired: Desired;
  reported: Reported;
  command: Command;
  ack: Ack;
}

export const RULES: Readonly<Record<Kind, Rules>> = {
  status: { tail: "status", retain: true, qos: 1, toDevice: false },
  info: { tail: "info", retain: true, qos: 1, toDevice: false },
  health: { tail: "health", retain: true, qos: 0, toDevice: false },
  model: { tail: "model", retain: true, qos: 0, toDevice: false },
  cameraStatus: { tail: "camera/{camera}/status", retain: true, qos: 1, toDevice: false },
  counts: { tail: "camera/{camera}/counts", retain: true, qos: 1, toDevice: false },
  event: { tail: "camera/{camera}/event", retain: false, qos: 1, toDevice: false },
  frame: { tail: "camera/{camera}/frame", retain: false, qos: 0, toDevice: false },
  snapshot: { tail: "camera/{camera}/snapshot/{event}", retain: false, qos: 0, toDevice: false },
  alert: { tail: "alert/{code}", retain: true, qos: 1, toDevice: false },
  desired: { tail: "desired", retain: true, qos: 1, toDevice: true },
  reported: { tail: "reported", retain: true, qos: 1, toDevice: false },
  command: { tail: "cmd/{name}", retain: false, qos: 1, toDevice: true },
  ack: { tail: "ack/{id}", retain: false, qos: 1, toDevice: false },
};

/** The part of a topic below its device, and how its messages are published. */
export interface Rules {
  readonly tail: string;
  readonly retain: boolean;
  readonly qos: 0 | 1;
  /** Published by operators and heard by the device; all else the other way round. */
  readonly toDevice: boolean;
}

const build = (kind: Kind, levels: Record<string, string>): string => {
  const fill = (_: string, name: string): string => {
    const level = levels[name] ?? "";
    if (!ID.test(level)) throw new RangeError(`${name} ${JSON.stringify(level)} is not a valid id`);
    return level;
  };
  return `${ROOT}/{site}/{device}/${RULES[kind].tail}`.replace(/\{(\w+)\}/g, fill);
};

/** Read any topic back; null when it is none of the contract. The inverse of `topicOf`. */
export function parse(text: string): Topic | null {
  const levels = text.split("/");
  for (const kind of Object.keys(RULES) as Kind[]) {
    const want = `${ROOT}/{site}/{device}/${RULES[kind].tail}`.split("/");
    const found: Record<string, string> = { kind };
    const fits = (level: string, at: number): boolean => {
      const pattern = want[at] ?? "";
      if (!pattern.startsWith("{")) return level === pattern;
      found[pattern.slice(1, -1)] = level;
      return ID.test(level);
    };
    if (levels.length === want.length && levels.every(fits)) return found as unknown as Topic;
  }
  return null;
}

/** `topicOf.event({ site, device, camera })` is a topic's text. A level that is no id is a RangeError. */
export const topicOf = {
  status: (at: { site: Id; device: Id }): string => build("status", at),
  info: (at: { site: Id; device: Id }): string => build("info", at),
  health: (at: { site: Id; device: Id }): string => build("health", at),
  model: (at: { site: Id; device: Id }): string => build("model", at),
  cameraStatus: (at: { site: Id; device: Id; camera: Id }): string => build("cameraStatus", at),
  counts: (at: { site: Id; device: Id; camera: Id }): string => build("counts", at),
  event: (at: { site: Id; device: Id; camera: Id }): string => build("event", at),
  frame: (at: { site: Id; device: Id; camera: Id }): string => build("frame", at),
  snapshot: (at: { site: Id; device: Id; camera: Id; event: Id }): string => build("snapshot", at),
  alert: (at: { site: Id; device: Id; code: Id }): string => build("alert", at),
  desired: (at: { site: Id; device: Id }): string => build("desired", at),
  reported: (at: { site: Id; device: Id }): string => build("reported", at),
  command: (at: { site: Id; device: Id; name: Id }): string => build("command", at),
  ack: (at: { site: Id; device: Id; id: Id }): string => build("ack", at),
};
