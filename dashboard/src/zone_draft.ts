// Zones and lines of one camera while they are edited. Kept until they are saved or thrown away, also when another page
// is looked at meanwhile.
import type { Desired, Point } from "./contract";
import { redraw } from "./draw";
import type { Device } from "./fleet";
import { FEWEST, MOST, type Shape, type ShapeKind, allAlike, fault, freeName, nextUid, polygonFault, rebased, rounded, shapesOf } from "./zones";

const MOST_STEPS = 100;

/** What is being drawn; `loose` follows the pointer and is no corner yet. */
export interface Drawing {
  kind: ShapeKind;
  points: Point[];
  loose: Point | null;
}

/** What was sent: its revision, and the `config` that was wanted before, for taking it back. */
export interface Sent {
  revision: number;
  before: Desired["config"];
  /** Whether it takes another one back. */
  back: boolean;
  /** What was drawn when it was sent. */
  shapes: Shape[];
}

export class Draft {
  base: Shape[];
  now: Shape[];
  /** `uid` of the chosen one, and which of its corners. */
  chosen = 0;
  corner = -1;
  drawing: Drawing | null = null;
  /** Why a polygon could not be closed. */
  complaint = "";
  /** What is wanted of the device, as read when editing began; undefined before. */
  wanted: Pick<Desired, "revision" | "config"> | undefined;
  /** Whether it begins at the device's file while the device holds something else. */
  whole = false;
  trouble = "";
  /** Somebody else has written since. */
  overtaken = false;
  sent: Sent | null = null;
  /** What became of `sent` was taken in. */
  settled = false;
  /** The fleet's server has not answered yet. */
  sending = false;
  leaving = false;
  private readonly steps: Shape[][] = [];

  readonly camera: string;

  constructor(device: Device, camera: string) {
    this.camera = camera;
    this.base = shapesOf(device.info?.cameras[camera]);
    this.now = [...this.base];
  }

  get shape(): Shape | undefined {
    return this.now.find((each) => each.uid === this.chosen);
  }

  /** Whether the device has not answered yet to what was sent. */
  get pending(): boolean {
    return this.sent !== null && !this.settled;
  }

  /** Whether there is anything that was not sent. */
  get changed(): boolean {
    return !allAlike(this.sent && this.pending && !this.sent.back ? this.sent.shapes : this.base, this.now);
  }

  get faults(): Map<number, string> {
    return new Map(this.now.map((shape) => [shape.uid, fault(shape, this.now)] as const).filter(([, why]) => why));
  }

  /** Note how it is, so that `undo` comes back here. */
  step(): void {
    if (this.steps.at(-1) === this.now) return;
    this.steps.push(this.now);
    if (this.steps.length > MOST_STEPS) this.steps.shift();
  }

  get undoable(): boolean {
    return this.steps.some((each) => each !== this.now);
  }

  undo(): void {
    let last = this.steps.pop();
    while (last === this.now) last = this.steps.pop();
    if (last) this.now = last;
    this.corner = -1;
    redraw();
  }

  choose(uid: number, corner = -1): void {
    this.chosen = uid;
    this.corner = corner;
    redraw();
  }

  /** Replace one; `step` before for what shall be taken back at once. */
  set(uid: number, part: Partial<Omit<Shape, "uid" | "kind">>): void {
    this.now = this.now.map((each) => (each.uid === uid ? { ...each, ...part } : each));
    redraw();
  }

  put(uid: number, at: number, point: Point): void {
    const shape = this.now.find((each) => each.uid === uid);
    if (shape) this.set(uid, { points: shape.points.map((each, n) => (n === at ? rounded(point) : each)) });
  }

  /** Another corner behind one. */
  insert(uid: number, after: number, point: Point): void {
    const shape = this.now.find((each) => each.uid === uid);
    if (!shape || shape.kind !== "zone" || shape.points.length >= MOST) return;
    this.step();
    this.corner = after + 1;
    this.set(uid, { points: [...shape.points.slice(0, after + 1), rounded(point), ...shape.points.slice(after + 1)] });
  }

  /** Take a corner out; three stay. */
  cut(uid: number, at: number): void {
    const shape = this.now.find((each) => each.uid === uid);
    if (!shape || shape.kind !== "zone" || shape.points.length <= FEWEST || at < 0) return;
    this.step();
    this.corner = Math.min(at, shape.points.length - 2);
    this.set(uid, { points: shape.points.filter((_, n) => n !== at) });
  }

  remove(uid: number): void {
    this.step();
    this.now = this.now.filter((each) => each.uid !== uid);
    this.choose(0);
  }

  add(kind: ShapeKind, points: Point[]): void {
    this.step();
    const shape: Shape = { uid: nextUid(), kind, name: freeName(kind, [...this.now, ...this.base]), points: points.map(rounded), labels: null };
    this.now = [...this.now, shape];
    this.drawing = null;
    this.choose(shape.uid);
  }

  // --- drawing ---

  draw(kind: ShapeKind): void {
    this.drawing = { kind, points: [], loose: null };
    this.complaint = "";
    this.choose(0);
  }

  stop(): void {
    this.drawing = null;
    this.complaint = "";
    redraw();
  }

  /** One more corner; the second of a line ends it. */
  corners(point: Point): void {
    const { drawing } = this;
    if (!drawing) return;
    const points = [...drawing.points, rounded(point)];
    this.complaint = "";
    if (drawing.kind === "line" && points.length === 2) return this.add("line", points);
    if (points.length <= MOST) drawing.points = points;
    else this.complaint = `A zone may have ${MOST} corners. Close it.`;
    redraw();
  }

  /** The last corner somewhere else. */
  place(point: Point): void {
    const { drawing } = this;
    if (drawing) drawing.points = [...drawing.points.slice(0, -1), rounded(point)];
    redraw();
  }

  /** The last corner away; without any the drawing ends. */
  back(): void {
    const { drawing } = this;
    if (!drawing) return;
    if (drawing.points.length === 0) return this.stop();
    drawing.points = drawing.points.slice(0, -1);
    this.complaint = "";
    redraw();
  }

  close(): void {
    const { drawing } = this;
    if (drawing?.kind !== "zone") return;
    this.complaint = polygonFault(drawing.points);
    if (this.complaint) return redraw();
    this.add("zone", drawing.points);
  }

  /** The device says something else than at the beginning: keep what was changed here, take the rest. */
  refresh(device: Device): void {
    Object.assign(this, rebased(this.base, this.now, shapesOf(device.info?.cameras[this.camera])));
    this.steps.length = 0;
    if (!this.shape) this.chosen = 0;
    redraw();
  }
}

const drafts = new Map<string, Draft>();
const keyOf = (device: Device, camera: string): string => `${device.key}/${camera}`;

export const draftOf = (device: Device, camera: string): Draft | undefined => drafts.get(keyOf(device, camera));

export function beginDraft(device: Device, camera: string): Draft {
  const made = new Draft(device, camera);
  drafts.set(keyOf(device, camera), made);
  redraw();
  return made;
}

export function endDraft(device: Device, camera: string): void {
  drafts.delete(keyOf(device, camera));
  redraw();
}

// Whoever closes the tab with changes is asked, by the browser.
addEventListener("beforeunload", (event) => {
  if ([...drafts.values()].some((each) => each.changed || each.drawing)) event.preventDefault();
});
