// One camera's picture, with what is seen in it painted over it while it happens.
//
//   <Stage device={device} camera={camera} />
//   <Stage device={device} camera={camera} hideZones over={<Names/>}><polygon …/></Stage>
//
// `children` are SVG elements. They lie over the picture in a `<svg viewBox="0 0 1 1">` that covers it exactly, so their
// coordinates are those of the contract: 0..1 of the frame. The picture is seldom a square, so strokes need
// `vector-effect="non-scaling-stroke"` (their width is in pixels then), and a round handle is a line of no length:
// `<line x1={x} x2={x} y1={y} y2={y} stroke-width="14" stroke-linecap="round" vector-effect="non-scaling-stroke" />`.
// Text would be distorted; it belongs to `over`: HTML in a box that covers the picture exactly (`left: "40%"`).
// The SVG takes the pointer when there are children; `pointOf(event)` says where it is in 0..1. `hideZones` leaves out
// the zones and lines that the device tells of. Stage asks for frames and pictures itself while it is there.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { app } from "../app";
import { type Point, ROOT } from "../contract";
import type { Camera, Device } from "../fleet";
import { clock } from "./bits";
import { type Marks, frameSize, marksOf, paint } from "./boxes";
import "./stage.css";

interface Props {
  device: Device;
  camera: Camera;
  /** SVG over the picture, in 0..1 of the frame. */
  children?: ComponentChildren;
  /** HTML over the picture. */
  over?: ComponentChildren;
  hideZones?: boolean;
}

const FADE_MS = 500;
const MOST_SHAPES = 200;

export function Stage({ device, camera, children, over, hideZones = false }: Props): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const now = useRef({ device, camera, ask: () => {} });
  now.current.device = device;
  now.current.camera = camera;
  const root = `${ROOT}/${device.key}/camera`;
  useEffect(() => {
    const link = app.value?.link;
    const undo = [link?.watch(`${root}/${camera.id}/frame`), link?.watch(`${root}/+/snapshot/+`)];
    return () => undo.forEach((each) => each?.());
  }, [root, camera.id]);
  useEffect(() => (canvas.current ? keepPainted(canvas.current, now.current) : undefined), []);
  useEffect(() => now.current.ask());
  const told = device.info?.cameras[camera.id];
  const size = frameSize(camera, told);
  const ratio = Math.min(4, Math.max(0.25, size.width / size.height));
  const { picture } = camera;
  const past = !children && picture !== null && marksOf(camera, Date.now()).source !== "none";
  return (
    <figure class="stage">
      <div class={`picture${picture ? (past ? " past" : "") : " none"}`} style={{ aspectRatio: String(ratio), maxWidth: `calc(min(68vh, 720px) * ${ratio})` }}>
        {picture && <img src={picture.url} alt={`What ${camera.id} showed at ${clock(picture.at)}`} />}
        {!hideZones && told && <Shapes zones={some(told.zones)} lines={some(told.lines)} />}
        <canvas ref={canvas} role="img" aria-label={inWords(camera)} />
        {children && <svg class="over" viewBox="0 0 1 1" preserveAspectRatio="none">{children}</svg>}
        {over && <div class="over-text">{over}</div>}
      </div>
      <figcaption class="dim"><Caption device={device} camera={camera} /></figcaption>
    </figure>
  );
}

/** Where a pointer is in the frame, 0..1; of an event of an SVG or HTML element that covers the picture, or lies in one. */
export function pointOf(event: PointerEvent | MouseEvent): Point {
  const element = event.currentTarget as Element;
  const { left, top, width, height } = (element.closest(".picture") ?? element).getBoundingClientRect();
  const within = (value: number): number => Math.min(1, Math.max(0, value));
  return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
}

/** Paint at each frame that comes, at each turn of the page, and twice a second so that what is old fades. */
function keepPainted(canvas: HTMLCanvasElement, now: { device: Device; camera: Camera; ask: () => void }): () => void {
  const fleet = app.value?.fleet;
  const style = getComputedStyle(canvas);
  const colours = [1, 2, 3, 4, 5, 6].map((n) => style.getPropertyValue(`--box${n}`).trim()), back = style.getPropertyValue("--box-back").trim();
  let asked = 0;
  const turn = (): void => {
    asked = 0;
    const { clientWidth: width, clientHeight: height } = canvas;
    const to = canvas.getContext("2d");
    if (!to || width === 0 || height === 0) return;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    to.setTransform(scale, 0, 0, scale, 0, 0);
    const marks = marksOf(now.camera, Date.now());
    paint(to, width, height, marks.marks, colours, back);
    tell(canvas, marks);
  };
  const ask = (): void => {
    asked ||= requestAnimationFrame(turn);
  };
  const hear = (device: Device, camera: Camera): void => {
    if (camera === now.camera && device === now.device) ask();
  };
  now.ask = ask;
  fleet?.onFrame.add(hear);
  const timer = window.setInterval(ask, FADE_MS);
  const watch = new ResizeObserver(ask);
  watch.observe(canvas);
  return () => {
    fleet?.onFrame.delete(hear);
    window.clearInterval(timer);
    watch.disconnect();
    cancelAnimationFrame(asked);
  };
}

/** What was painted, for tests and tools: `data-boxes`, `data-source`, `data-seen-at`. */
function tell(canvas: HTMLCanvasElement, { marks, source, seenAt }: Marks): void {
  canvas.dataset["boxes"] = String(marks.length);
  canvas.dataset["source"] = source;
  canvas.dataset["seenAt"] = seenAt;
}

function inWords(camera: Camera): string {
  const { marks } = marksOf(camera, Date.now());
  const kinds = new Map<string, number>();
  for (const mark of marks) kinds.set(mark.label, (kinds.get(mark.label) ?? 0) + 1);
  const said = [...kinds].slice(0, 12).map(([label, count]) => `${count} ${label.slice(0, 40)}`).join(", ");
  return `Camera ${camera.id}: ${said || "nothing"} in sight`;
}

interface Shape {
  polygon: Point[];
}
interface Stroke {
  start: Point;
  end: Point;
}

const some = <T,>(of: Record<string, T> | undefined): [string, T][] => Object.entries(of ?? {}).slice(0, MOST_SHAPES);

/** Zones and lines as the device tells of them, with their names; `in` is where the arrow of a line points. */
function Shapes({ zones, lines }: { zones: [string, Shape][]; lines: [string, Stroke][] }): JSX.Element {
  return (
    <>
      <svg class="shapes" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">
        {zones.map(([name, { polygon }]) => <polygon key={name} class="zone" points={polygon.map((point) => point.join(",")).join(" ")} />)}
        {lines.map(([name, { start, end }]) => (
          <g key={name}>
            <line class="line back" x1={start[0]} y1={start[1]} x2={end[0]} y2={end[1]} />
            <line class="line" x1={start[0]} y1={start[1]} x2={end[0]} y2={end[1]} />
          </g>
        ))}
      </svg>
      <div class="over-text">
        {zones.map(([name, { polygon }]) => <Name key={name} at={topOf(polygon)} kind="zone">{name}</Name>)}
        {lines.map(([name, { start, end }]) => <Name key={name} at={[(start[0] + end[0]) / 2, (start[1] + end[1]) / 2]} kind="line">{name} {arrow(start, end)}</Name>)}
      </div>
    </>
  );
}

function Name({ at: [x, y], kind, children }: { at: Point; kind: string; children: ComponentChildren }): JSX.Element {
  return <span class={`name ${kind}`} style={{ left: `${Math.min(0.98, x) * 100}%`, top: `${Math.min(0.94, y) * 100}%` }}>{children}</span>;
}

/** The corner that is highest, the leftmost of those. */
function topOf(polygon: readonly Point[]): Point {
  return polygon.reduce<Point>((best, point) => (point[1] < best[1] - 0.01 || (point[1] < best[1] + 0.01 && point[0] < best[0]) ? point : best), [1, 1]);
}

/** Where `in` is: to the right of the line, seen from its start to its end. */
function arrow(start: Point, end: Point): string {
  const x = start[1] - end[1], y = end[0] - start[0]; // y points down, as in pictures
  return ["→", "↘", "↓", "↙", "←", "↖", "↑", "↗"][(Math.round(Math.atan2(y, x) / (Math.PI / 4)) + 8) % 8] ?? "";
}

/** How old what is shown is, and what to do to see more. */
function Caption({ device, camera }: { device: Device; camera: Camera }): JSX.Element {
  const { source } = marksOf(camera, Date.now());
  const sends = device.info?.publishes;
  return (
    <>
      {source === "frame" && "Boxes: every frame, live. "}
      {source === "events" && "Boxes: as events tell, they fade until the next. "}
      {source !== "frame" && sends?.includes("frame") === false && <><code>[publish] frames = 10</code> in agent.toml has them follow every frame. </>}
      {camera.picture ? `Picture: ${clock(camera.picture.at)}, the newest that was sent.` : <NoPicture device={device} />}
    </>
  );
}

function NoPicture({ device }: { device: Device }): JSX.Element {
  if (device.status?.state === "offline") return <>No picture: the device is offline.</>;
  if (device.info?.publishes?.includes("snapshot")) return <>No picture yet: one comes when an object leaves.</>;
  return <>No picture: <code>[publish] snapshots = true</code> in agent.toml has the device send some.</>;
}
