import type { JSX } from "preact";

export function EventPage({ at }: { at: readonly string[] }): JSX.Element {
  return <h1>{at.join("/")}</h1>;
}
