// Which of the objects that were heard the address asks for, and the gaps between them.
import type { Gap, Seen } from "../log";
import { type Facet, FACETS, modelOf } from "../facets";

/** What an address can ask for. */
export interface Wanted extends Record<Facet, string> {
  /** The least best score. */
  min: number;
  /** `present`, `ended`, `replayed`, `gaps`, or empty for all. */
  state: string;
}

export type Entry = { seen: Seen; gap: null } | { seen: null; gap: Gap };

export function wantedOf(query: URLSearchParams): Wanted {
  const least = Number(query.get("min") ?? 0);
  const asked = Object.fromEntries(FACETS.map((facet) => [facet, query.get(facet) ?? ""])) as Record<Facet, string>;
  return { ...asked, min: Number.isFinite(least) ? Math.min(1, Math.max(0, least)) : 0, state: query.get("state") ?? "" };
}

/** Newest first; a gap stands below the event that showed it. `seen` is in the order in which objects were heard first, `gaps` newest first. */
export function entries(seen: readonly Seen[], gaps: readonly Gap[], wanted: Wanted): Entry[] {
  const found: Entry[] = [];
  const exact = wanted.device !== "" && seen.some(({ event }) => event.device === wanted.device);
  const holes = wanted.state === "" || wanted.state === "gaps" ? gaps.filter((gap) => hasGap(gap, wanted, exact)) : [];
  let next = 0;
  for (let at = seen.length - 1; at >= 0 && wanted.state !== "gaps"; at -= 1) {
    const each = seen[at];
    if (!each || !has(each, wanted, exact)) continue;
    for (let hole = holes[next]; hole && hole.at > each.heardAt; hole = holes[(next += 1)]) found.push({ seen: null, gap: hole });
    found.push({ seen: each, gap: null });
  }
  for (const hole of holes.slice(next)) found.push({ seen: null, gap: hole });
  return found;
}

/** What is typed is looked for within names; once it is one of them (`exact`), only that is meant. */
const isDevice = (id: string, wanted: Wanted, exact: boolean): boolean => (exact ? id === wanted.device : id.includes(wanted.device));

function has({ event }: Seen, wanted: Wanted, exact: boolean): boolean {
  if (event.best_score < wanted.min) return false;
  if (wanted.site && event.site !== wanted.site) return false;
  if (wanted.device && !isDevice(event.device, wanted, exact)) return false;
  if (wanted.camera && event.camera !== wanted.camera) return false;
  if (wanted.label && event.label !== wanted.label) return false;
  if (wanted.zone && !event.zones.entered.includes(wanted.zone)) return false;
  if (wanted.model && modelOf(event) !== wanted.model) return false;
  switch (wanted.state) {
    case "present": return event.type !== "end";
    case "ended": return event.type === "end";
    case "replayed": return event.replayed;
    default: return true;
  }
}

/** A gap is of a device; what its events would have been nobody knows. */
function hasGap({ device }: Gap, wanted: Wanted, exact: boolean): boolean {
  const [site, id = ""] = device.split("/");
  return (!wanted.site || site === wanted.site) && (!wanted.device || isDevice(id, wanted, exact));
}
