// Zones and lines of a camera, drawn on its picture, saved as `desired.config`; with what the device made of it.
//
//   if (draftOf(device, id)) return <ZoneEditor device={device} camera={camera} />;   // instead of the camera's panel
//   <EditZones device={device} id={id} />                                             // the button that begins it
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { Api } from "../api";
import { app } from "../app";
import { redraw } from "../draw";
import type { Camera, Device } from "../fleet";
import { type Draft, beginDraft, draftOf, endDraft } from "../zone_draft";
import { beginAtFile, differs, load, outcome, save, settle, takeBack, told, untaken } from "../zone_saving";
import { MOST_SHAPES, type ShapeKind, changes } from "../zones";
import { type Act, ActButton, type Outcome, act } from "./act";
import { Note } from "./bits";
import { frameSize } from "./boxes";
import { Stage } from "./stage";
import { ZoneForm } from "./zone_form";
import { ZoneNames, ZoneOverlay } from "./zone_overlay";
import "./zone_editor.css";

export { draftOf };

/** Begins editing; nothing when the page only looks. */
export function EditZones({ device, id }: { device: Device; id: string }): JSX.Element | null {
  const api = app.value?.api;
  if (!api) return null;
  const told = device.info?.cameras[id];
  const many = Math.max(...[told?.zones, told?.lines].map((each) => Object.keys(each ?? {}).length)) > MOST_SHAPES;
  const why = api.why || (told ? "" : "The device has not told of this camera.") || (many ? `It has more than ${MOST_SHAPES}: change them in its own file.` : "");
  const begin = (): void => void load(api, device, beginDraft(device, id));
  return (
    <div class="may edit-zones">
      <button type="button" data-focus disabled={why !== ""} aria-describedby={why ? "why-not-zones" : undefined} onClick={begin}>Edit zones and lines</button>
      {why && <span class="dim" id="why-not-zones">{why}</span>}
    </div>
  );
}

export function ZoneEditor({ device, camera }: { device: Device; camera: Camera }): JSX.Element | null {
  const draft = draftOf(device, camera.id), api = app.value?.api;
  useEffect(() => {
    const key = (event: KeyboardEvent): void => draft && keys(event, draft);
    document.addEventListener("keydown", key);
    return () => document.removeEventListener("keydown", key);
  }, [draft]);
  useEffect(() => draft && settle(device, draft));
  if (!draft || !api) return null;
  const frame = frameSize(camera, device.info?.cameras[camera.id]);
  const labels = device.info?.bundle.labels ?? [], untold = untoldOf(device, camera);
  return (
    <div class="zone-edit">
      <div class="zone-picture">
        <Stage device={device} camera={camera} hideZones over={<ZoneNames draft={draft} frame={frame} />}>
          <ZoneOverlay draft={draft} frame={frame} />
        </Stage>
        <Tools draft={draft} />
      </div>
      <div class="zone-side">
        <h3>Zones and lines of {camera.id}</h3>
        {untold.length > 0 && <Note tone="warn" title="The device does not tell where its zones are.">They are too many for a message. They stay as they are; give new ones other names than {untold.slice(0, 20).join(", ")}{untold.length > 20 && " and others"}.</Note>}
        <ZoneForm draft={draft} labels={labels} />
        <Saving api={api} device={device} draft={draft} />
      </div>
    </div>
  );
}

/** Zones and lines that it counts and does not tell the corners of, when it tells of none. */
function untoldOf(device: Device, camera: Camera): string[] {
  const { zones, lines } = device.info?.cameras[camera.id] ?? {};
  if (Object.keys(zones ?? {}).length > 0 || Object.keys(lines ?? {}).length > 0 || !camera.counts) return [];
  return [...Object.keys(camera.counts.zones), ...Object.keys(camera.counts.lines)];
}

/** While something is drawn: Enter closes it, Escape takes the last corner back. */
function keys(event: KeyboardEvent, draft: Draft): void {
  const target = event.target instanceof Element ? event.target : null;
  if (!draft.drawing || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && !target?.matches("button, a, input, select, textarea")) draft.close();
  else if (event.key === "Escape") draft.back();
  else return;
  event.preventDefault();
}

function Tools({ draft }: { draft: Draft }): JSX.Element {
  const { drawing } = draft;
  const start = (kind: ShapeKind): void => draft.draw(kind);
  if (!drawing) {
    return (
      <div class="buttons" role="group" aria-label="Drawing">
        <button type="button" data-focus onClick={() => start("zone")}>Draw a zone</button>
        <button type="button" onClick={() => start("line")}>Draw a line</button>
        <button type="button" disabled={!draft.undoable} onClick={() => draft.undo()}>Undo</button>
        {draft.shape?.kind === "zone" && <button type="button" disabled={draft.corner < 0 || draft.shape.points.length <= 3} onClick={() => draft.cut(draft.chosen, draft.corner)}>Take the corner out</button>}
      </div>
    );
  }
  const zone = drawing.kind === "zone", count = drawing.points.length;
  const middle = zone ? ([[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]] as [number, number][]) : ([[0.3, 0.5], [0.7, 0.5]] as [number, number][]);
  return (
    <div class="zone-drawing">
      <p role="status">{zone
        ? (count < 3 ? `Put corner ${count + 1} on the picture; at least three.` : `Corner ${count + 1}, or close it at the first corner, by a double click or with Enter.`)
        : (count === 0 ? "Put the line's start on the picture." : "Put its end; in is to the right of the way from start to end.")}{count > 0 && " Escape takes the last one back."}</p>
      {draft.complaint && <Note tone="bad" title={draft.complaint} />}
      <div class="buttons" role="group" aria-label="Drawing">
        {zone && <button type="button" class="main" disabled={count < 3} onClick={() => draft.close()}>Close it</button>}
        <button type="button" disabled={count === 0} onClick={() => draft.back()}>Take back a {zone ? "corner" : "point"}</button>
        {count === 0 && <button type="button" data-focus onClick={() => draft.add(drawing.kind, middle)}>Put one in the middle</button>}
        <button type="button" onClick={() => draft.stop()}>Stop drawing</button>
      </div>
    </div>
  );
}

function Saving({ api, device, draft }: { api: Api; device: Device; draft: Draft }): JSX.Element {
  const state = told(device, draft);
  const meanwhile = differs(device, draft) && draft.changed;
  const why = whyNot(api, draft), left = untaken(device, draft);
  const close = (): void => {
    if ((!draft.changed && !draft.drawing) || draft.leaving) return endDraft(device, draft.camera);
    draft.leaving = true;
    redraw();
  };
  const stay = (): void => ((draft.leaving = false), redraw());
  return (
    <>
      {draft.trouble && <Note whole tone="bad" title="What is wanted of the device cannot be read.">{draft.trouble}</Note>}
      {draft.overtaken && <Note tone="warn" title="Somebody else has changed what is wanted of this device.">Load again: what you changed here is kept, over what is wanted now.</Note>}
      {meanwhile && !draft.overtaken && <Note tone="warn" title="The device's zones have changed since you began.">Load again: what you changed here is kept.</Note>}
      {(draft.trouble || draft.overtaken || meanwhile) && <div class="buttons"><button type="button" onClick={() => void load(api, device, draft)}>Load again</button></div>}
      {left && (
        <Note tone="warn" title={`The device did not take revision ${left.revision}, and it is still wanted.`}>
          What you save carries it again. Begin at the device's own file to leave it out{left.applied !== null && `; what revision ${left.applied} changed beside these zones is then left out, too`}.
          <div class="buttons"><button type="button" onClick={() => beginAtFile(device, draft)}>Begin at its own file</button></div>
        </Note>
      )}
      {state && (
        <Note whole tone={state.fate === "refused" || state.fate === "rolled-back" ? "bad" : state.fate === "holds" ? "plain" : "warn"} title={state.title}>
          <span class="wrap">{state.what}</span>
          <Reasons reasons={state.reasons} />
          {draft.sent && !draft.sent.back && !draft.overtaken && <div class="buttons"><ActButton make={() => backOf(api, device, draft)}>Take back</ActButton></div>}
        </Note>
      )}
      {draft.leaving && draft.changed ? (
        <Note tone="warn" title="What you changed is not saved.">
          <div class="buttons"><button type="button" onClick={close}>Throw it away</button><button type="button" onClick={stay}>Go on editing</button></div>
        </Note>
      ) : (
        <div class="buttons zone-save">
          <button type="button" class="main" disabled={why !== ""} onClick={() => act(savingOf(api, device, draft))}>Save…</button>
          <button type="button" onClick={close}>Close</button>
          <span class="dim">{why}</span>
        </div>
      )}
    </>
  );
}

function whyNot(api: Api, draft: Draft): string {
  const wrong = draft.faults.size;
  return api.why
    || (draft.drawing ? "Close what you draw first." : "")
    || (wrong ? `${wrong === 1 ? "One is" : `${wrong} are`} wrong: look at the ▲.` : "")
    || (!draft.changed ? "Nothing is changed." : "")
    || (draft.sending ? "It is being sent." : "")
    || (draft.pending ? "The device has not answered yet." : "")
    || (draft.overtaken ? "Load again first." : "")
    || (!draft.wanted ? "It is not known yet what is wanted." : "");
}

function Reasons({ reasons }: { reasons: [string, string][] }): JSX.Element | null {
  if (reasons.length === 0) return null;
  return <dl class="zone-reasons">{reasons.map(([key, reason]) => <div key={key} class="fact"><dt><code>{key}</code></dt><dd>{reason}</dd></div>)}</dl>;
}

function savingOf(api: Api, device: Device, draft: Draft): Act {
  return {
    title: `Save zones and lines of ${device.key}, ${draft.camera}`,
    verb: "Save",
    what: (
      <>
        <p>The device is asked for this; it tries it and takes it back by itself when the camera goes blind.</p>
        <ul class="zone-changes">{changes(draft.base, draft.now).map(({ kind, name, what }) => <li key={`${kind}-${name}-${what}`}>{kind === "zone" ? "Zone" : "Line"} <b>{name}</b>: {what}</li>)}</ul>
      </>
    ),
    run: async (say) => {
      await save(api, device, draft);
      return ended(device, draft, say);
    },
  };
}

function backOf(api: Api, device: Device, draft: Draft): Act {
  const { sent } = draft;
  return {
    title: `Take back revision ${sent?.revision} of ${device.key}`,
    verb: "Take back",
    what: <p>What was wanted before is wanted again: {sent?.before ? "the configuration before it." : "nothing but the device's own file."}</p>,
    run: async (say) => {
      await takeBack(api, device, draft);
      return ended(device, draft, say);
    },
  };
}

async function ended(device: Device, draft: Draft, say: (progress: string) => void): Promise<Outcome> {
  const { fate, what, reasons } = await outcome(device, draft, say);
  return { good: fate === "holds", what: <><span class="wrap">{what}</span><Reasons reasons={reasons} /></> };
}
