// How events are said in words, in the list and on their own page.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { type Event, ID, ROOT } from "../contract";
import { SILENT_MS } from "../fleet";
import type { Gap, Seen } from "../log";
import { pack } from "../permalink";
import { to } from "../router";
import { Tag, ago } from "../ui/bits";

/** The address of an event, which carries it; without it when it is too long for that. */
export function linkOf(event: Event): string {
  return to(["event", event.site, event.device, event.camera, event.id], { e: pack(event) ?? "" });
}

/** Such as `1.4 s`, `3:05 min`, `2:10 h`. */
export function lasting(s: number): string {
  if (!Number.isFinite(s) || s < 0) return "–";
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  const [big, small, unit] = s < 3600 ? [s / 60, s % 60, "min"] : [s / 3600, (s / 60) % 60, "h"];
  return `${Math.floor(big).toLocaleString()}:${String(Math.floor(small)).padStart(2, "0")} ${unit}`;
}

/** Whether the object is there, by what was heard; an object of which nothing came for long is neither there nor gone. */
export function whereabouts({ event, lastAt }: Pick<Seen, "event" | "lastAt">, now: number): "ended" | "silent" | "present" {
  if (event.type === "end") return "ended";
  return now - lastAt > SILENT_MS ? "silent" : "present";
}

export function Lasts({ seen, now }: { seen: Pick<Seen, "event" | "lastAt">; now: number }): JSX.Element {
  const state = whereabouts(seen, now);
  if (state === "ended") return <>{lasting(seen.event.track.age_s)}</>;
  return state === "present" ? <Tag tone="good">in sight</Tag> : <span class="dim">not heard of for {ago(now - seen.lastAt)}</span>;
}

/** What is special about it, each in a word. */
export function Tags({ event, clocks = false }: { event: Event; clocks?: boolean }): JSX.Element {
  return (
    <>
      {event.replayed && <Tag tone="warn">replayed</Tag>}
      {clocks && event.clock_synced === false && <Tag tone="warn">clock not set</Tag>}
      {event.reason && <Tag>{event.reason.slice(0, 60)}</Tag>}
    </>
  );
}

/** Zones, lines and rules in one line; each begins with what it is. */
export function meaningOf({ zones, crossed = [], rules = [] }: Event): string {
  const said: string[] = [];
  if (zones.entered.length) said.push(`zones ${zones.entered.slice(0, 20).join(", ")}`);
  if (crossed.length) said.push(`lines ${crossed.slice(0, 20).map(({ line, direction }) => `${line} ${direction}`).join(", ")}`);
  if (rules.length) said.push(`rules ${rules.slice(0, 20).join(", ")}`);
  return said.join(" · ").slice(0, 2000);
}

export function gapWords({ device, from, to: last }: Gap): string {
  const many = last - from + 1;
  return `${device}: ${many.toLocaleString()} ${many === 1 ? "event" : "events"} missing, seq ${from === last ? from : `${from}–${last}`}`;
}

/** The filter of pictures, as narrow as the ids of an address allow; ids that are none ask for all. */
export function picturesOf(site: string, device: string, camera: string, id = "+"): string {
  const level = (text: string): string => (ID.test(text) ? text : "+");
  return `${ROOT}/${level(site)}/${level(device)}/camera/${level(camera)}/snapshot/${level(id)}`;
}

/** Copies an address of this page; where the browser does not let it, shows it to be copied by hand. */
export function CopyLink({ hash, label = "Copy link" }: { hash: string; label?: string }): JSX.Element {
  const [said, say] = useState<"" | "copied" | "shown">("");
  const address = location.href.split("#", 1)[0] + hash;
  const copy = (): void => {
    const clipboard = navigator.clipboard as Clipboard | undefined; // only where the page comes over HTTPS or from this machine
    if (!clipboard) return say("shown");
    clipboard.writeText(address).then(() => say("copied"), () => say("shown"));
  };
  return (
    <>
      <button type="button" onClick={copy}>{label}</button>
      <span role="status" class="dim">{said === "copied" && "Copied."}</span>
      {said === "shown" && <label class="by-hand">Copy this by hand: <input readOnly value={address} onFocus={(event) => event.currentTarget.select()} /></label>}
    </>
  );
}
