// How the link to the broker does, said at the top of every page when it is not as it should be.
import type { JSX } from "preact";
import { app } from "../app";
import { MAX_SKEW_MS } from "../fleet";
import { to } from "../router";
import { Note, ago, figure } from "./bits";

/** One mark in the bar. */
export function LinkMark(): JSX.Element {
  const state = app.value?.link.state.value.kind ?? "connecting";
  const [shape, word] = { connecting: ["◌", "Connecting"], online: ["●", "Live"], away: ["○", "No broker"], refused: ["■", "Not let in"] }[state] as [string, string];
  return <span class={`link ${state}`} role="status"><span aria-hidden="true">{shape}</span> {word}</span>;
}

export function LinkNotes(): JSX.Element | null {
  const now = app.value;
  if (!now) return null;
  const { link, fleet, config } = now;
  const state = link.state.value;
  const skewed = [...fleet.devices.values()].filter((each) => Math.abs(each.skewMs ?? 0) > MAX_SKEW_MS);
  const most = Math.max(0, ...skewed.map((each) => Math.abs(each.skewMs ?? 0)));
  return (
    <>
      {state.kind === "away" && (
        <Note tone="bad" title={state.why}>
          Tried again every two seconds, since {ago(Date.now() - state.since)}.{" "}
          {link.sessions > 0 ? "What stands here is what was known before. " : ""}
          Look whether the broker runs and takes WebSockets at {config.broker}.
        </Note>
      )}
      {link.denied.value.length > 0 && (
        <Note tone="warn" title="This user may not read everything.">
          The broker refuses {link.denied.value.join(", ")}. Ask for an account that may read tinysight/v1/#.
        </Note>
      )}
      {fleet.log.sampling > 1 && (
        <Note tone="warn" title="More events come than can be shown.">
          {figure(fleet.log.perSecond)} events a second: 1 of {fleet.log.sampling} is shown. Counts are those of the devices and are right. What is missing is not looked for meanwhile.
        </Note>
      )}
      {fleet.foreign.size > 0 && (
        <Note tone="warn" title={`${fleet.foreign.size === 1 ? "A device speaks" : `${fleet.foreign.size} devices speak`} another version of the contract.`}>
          {[...fleet.foreign].slice(0, 5).map(([key, version]) => `${key} (${version})`).join(", ")}. This page knows v1: get a newer one.
        </Note>
      )}
      {skewed.length > 0 && (
        <Note tone="warn" title={skewed.length === 1 ? "A clock is off." : `${skewed.length} clocks are off.`}>
          {skewed.slice(0, 3).map((each) => <a key={each.key} href={to(["device", each.site, each.device])}>{each.key} </a>)}
          by up to {ago(most)}: their times are not to be trusted. Give them a time server; if all are off, set this machine's clock.
        </Note>
      )}
      {fleet.beyond > 0 && <Note tone="warn" title="There are more devices than this page takes in.">20,000 are shown.</Note>}
    </>
  );
}
