// What occurs in the events that were heard, for the filters that offer it; bounded, since labels come from devices.
import type { Event } from "./contract";

/** What one can filter by. */
export type Facet = "site" | "device" | "camera" | "label" | "zone" | "model";
export const FACETS: readonly Facet[] = ["site", "device", "camera", "label", "zone", "model"];

const MOST = 200;
const LONGEST = 200;

export class Facets {
  /** Rises when there is something new to offer. */
  version = 0;
  private readonly found = new Map<Facet, Set<string>>(FACETS.map((facet) => [facet, new Set()]));

  add(event: Event): void {
    this.note("site", event.site);
    this.note("device", event.device);
    this.note("camera", event.camera);
    this.note("label", event.label);
    this.note("model", modelOf(event));
    for (const zone of event.zones.entered) this.note("zone", zone);
  }

  /** In order; the first 200 that came. */
  of(facet: Facet): string[] {
    return [...(this.found.get(facet) ?? [])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  }

  private note(facet: Facet, value: string): void {
    const known = this.found.get(facet);
    if (!known || known.has(value) || known.size >= MOST || value.length > LONGEST || value === "") return;
    known.add(value);
    this.version += 1;
  }
}

/** Name and version, as people say it. */
export const modelOf = (event: Event): string => `${event.model.name} ${event.model.version}`;
