// Small things that every page shows the same way.
import type { ComponentChildren, JSX } from "preact";
import type { Mood } from "../fleet";

/** A state as a shape, a word and a colour; any of the three is enough. */
const MARKS: Record<Mood, [string, string]> = {
  ok: ["●", "OK"],
  degraded: ["▲", "Degraded"],
  failing: ["■", "Failing"],
  offline: ["○", "Offline"],
  unknown: ["?", "Unknown"],
};

export function MoodMark({ mood, short = false }: { mood: Mood; short?: boolean }): JSX.Element {
  const [shape, word] = MARKS[mood];
  return (
    <span class={`mood ${mood}`}>
      <span aria-hidden="true">{shape}</span> <span class={short ? "unseen" : ""}>{word}</span>
    </span>
  );
}

/** Words in a frame, such as `replayed`; `tone` colours them. */
export function Tag({ tone = "plain", children }: { tone?: "plain" | "good" | "warn" | "bad"; children: ComponentChildren }): JSX.Element {
  return <span class={`tag ${tone}`}>{children}</span>;
}

/** How long ago, in one unit: `now`, `12 s`, `5 min`, `3 h`, `8 d`. */
export function ago(ms: number): string {
  const s = Math.max(0, ms / 1000);
  if (s < 2) return "now";
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} d`;
}

/** A time of the contract in the reader's own zone, or `–`. */
export function clock(time: string | number | null | undefined, day = false): string {
  const at = new Date(time ?? Number.NaN);
  if (Number.isNaN(at.getTime())) return "–";
  return day ? `${at.toLocaleDateString()} ${at.toLocaleTimeString()}` : at.toLocaleTimeString();
}

/** A number with so many digits behind the point, or `–`. */
export function figure(value: number | null | undefined, digits = 0, unit = ""): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : `${value.toFixed(digits)}${unit && ` ${unit}`}`;
}

/** The first characters of a digest. */
export const short = (digest: string | null | undefined): string => (digest ? digest.slice(0, 8) : "–");

/**
 * A message that stands in the page: what is so, what to do. Its title is read out when it changes, so figures that tick
 * belong below it; with `whole` all of it is read out.
 */
export function Note({ tone = "plain", title, whole = false, children }: { tone?: "plain" | "warn" | "bad"; title: string; whole?: boolean; children?: ComponentChildren }): JSX.Element {
  const role = tone === "bad" ? "alert" : "status";
  return (
    <section class={`note ${tone}`} role={whole ? role : undefined}>
      <strong role={whole ? undefined : role}>{title}</strong>
      {children && <div>{children}</div>}
    </section>
  );
}

/** A name and its value, one below the other in a grid. */
export function Fact({ name, children }: { name: string; children: ComponentChildren }): JSX.Element {
  return (
    <div class="fact">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** Text to copy, with a button that does where the browser lets it: on pages that come over HTTPS or from this machine. */
export function Copy({ text }: { text: string }): JSX.Element {
  const clipboard = navigator.clipboard as Clipboard | undefined;
  return (
    <span class="copy">
      <code>{text}</code>
      {clipboard && <button type="button" onClick={() => void clipboard.writeText(text)}>Copy</button>}
    </span>
  );
}
