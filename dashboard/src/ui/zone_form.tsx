// Zones and lines in a form: the same as with a pointer, for keyboards, and by exact numbers.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Draft } from "../zone_draft";
import { FEWEST, MOST, type Shape, middles } from "../zones";
import { Tag } from "./bits";

const MANY_LABELS = 24;
const SHOWN_LABELS = 100;

export function ZoneForm({ draft, labels }: { draft: Draft; labels: readonly string[] }): JSX.Element {
  const { shape, faults } = draft;
  return (
    <>
      <ul class="zone-list" aria-label="Zones and lines">
        {draft.now.map(({ uid, kind, name, points }) => (
          <li key={uid}>
            <button type="button" aria-pressed={uid === draft.chosen} onClick={() => draft.choose(uid === draft.chosen ? 0 : uid)}>
              <span aria-hidden="true">{kind === "zone" ? "▱" : "╱"}</span> <span class="clip">{name || "no name"}</span> <span class="dim">{kind === "zone" ? `zone, ${points.length} corners` : "line"}</span>
              {faults.has(uid) && <Tag tone="bad">▲ wrong</Tag>}
            </button>
          </li>
        ))}
        {draft.now.length === 0 && <li class="dim">There is none yet.</li>}
      </ul>
      {shape && !draft.drawing && <Details key={shape.uid} draft={draft} shape={shape} labels={labels} wrong={faults.get(shape.uid) ?? ""} />}
    </>
  );
}

function Details({ draft, shape, labels, wrong }: { draft: Draft; shape: Shape; labels: readonly string[]; wrong: string }): JSX.Element {
  const { uid, kind, name, points } = shape;
  const zone = kind === "zone";
  const between = middles(points);
  return (
    <section class="zone-details" aria-label={`${zone ? "Zone" : "Line"} ${name}`}>
      <label class="zone-name">Name <input value={name} maxLength={63} autocomplete="off" spellcheck={false} aria-invalid={wrong !== ""} aria-describedby="zone-wrong"
        onFocus={() => draft.step()} onInput={(event) => draft.set(uid, { name: event.currentTarget.value.trim().toLowerCase() })} /></label>
      <p id="zone-wrong" class="zone-wrong" role="status">{wrong && <><span aria-hidden="true">▲</span> {wrong}</>}</p>
      <Labels draft={draft} shape={shape} labels={labels} />
      <div class="zone-corners" role="group" aria-label={zone ? "Corners" : "Ends"}>
        <div class="zone-corner dim" aria-hidden="true"><span /> <span>x</span> <span>y</span></div>
        {points.map(([x, y], n) => {
          const title = zone ? `Corner ${n + 1}` : (["Start", "End"][n] ?? "");
          return (
            <div key={n} class={`zone-corner${n === draft.corner ? " now" : ""}`}>
              <span>{zone ? n + 1 : title}</span>
              <Share name={`${title}, x`} value={x} begin={() => { draft.step(); draft.choose(uid, n); }} put={(value) => draft.put(uid, n, [value, points[n]?.[1] ?? 0])} />
              <Share name={`${title}, y`} value={y} begin={() => { draft.step(); draft.choose(uid, n); }} put={(value) => draft.put(uid, n, [points[n]?.[0] ?? 0, value])} />
              {zone && <button type="button" disabled={points.length >= MOST} title="Add a corner behind it" aria-label={`Add a corner behind corner ${n + 1}`} onClick={() => draft.insert(uid, n, between[n] ?? [x, y])}>+</button>}
              {zone && <button type="button" disabled={points.length <= FEWEST} title="Take it out" aria-label={`Take corner ${n + 1} out`} onClick={() => draft.cut(uid, n)}>−</button>}
            </div>
          );
        })}
        <p class="dim">In 0 to 1 of the picture, from its left and upper border.{!zone && " In is from the line's left to its right, seen from start to end."}</p>
      </div>
      <div class="buttons">
        {!zone && <button type="button" onClick={() => { draft.step(); draft.set(uid, { points: [...points].reverse() }); }}>Turn round</button>}
        <button type="button" onClick={() => draft.remove(uid)}>Delete the {zone ? "zone" : "line"}</button>
      </div>
    </section>
  );
}

/** A number in 0..1. What is typed stays as it is until one leaves it, also when the page is drawn again. */
function Share({ name, value, begin, put }: { name: string; value: number; begin: () => void; put: (value: number) => void }): JSX.Element {
  const [typed, setTyped] = useState<string | null>(null);
  return (
    <input type="number" min={0} max={1} step={0.001} aria-label={name} value={typed ?? String(value)} onFocus={begin} onBlur={() => setTyped(null)}
      onInput={(event) => {
        const text = event.currentTarget.value, given = Number(text);
        setTyped(text);
        if (text !== "" && given >= 0 && given <= 1) put(given);
      }} />
  );
}

function Labels({ draft, shape: { uid, labels: chosen }, labels }: { draft: Draft; shape: Shape; labels: readonly string[] }): JSX.Element {
  const [sought, setSought] = useState("");
  const known = [...new Set([...(chosen ?? []), ...labels])];
  const found = known.filter((label) => chosen?.includes(label) || label.toLowerCase().includes(sought.toLowerCase()));
  const choose = (next: string[] | null): void => {
    draft.step();
    draft.set(uid, { labels: next });
  };
  return (
    <fieldset class="zone-labels">
      <legend>What counts</legend>
      <label><input type="radio" name={`labels-${uid}`} checked={chosen === null} onChange={() => choose(null)} /> Everything</label>
      <label><input type="radio" name={`labels-${uid}`} checked={chosen !== null} disabled={known.length === 0} onChange={() => choose(chosen ?? [])} /> Only these</label>
      {chosen && known.length > MANY_LABELS && <label class="unseen-label"><span class="unseen">Find a label</span><input type="search" placeholder="Find" value={sought} onInput={(event) => setSought(event.currentTarget.value)} /></label>}
      {chosen && (
        <div class="zone-label-box" tabIndex={0} role="group" aria-label="Labels">
          {found.slice(0, SHOWN_LABELS).map((label) => (
            <label key={label} title={label}>
              <input type="checkbox" checked={chosen.includes(label)} onChange={(event) => choose(event.currentTarget.checked ? [...chosen, label] : chosen.filter((each) => each !== label))} />
              <span class="clip">{label}</span>{!labels.includes(label) && <span class="dim"> unknown to the model</span>}
            </label>
          ))}
          {found.length > SHOWN_LABELS && <span class="dim">{found.length - SHOWN_LABELS} more; find them.</span>}
        </div>
      )}
    </fieldset>
  );
}
