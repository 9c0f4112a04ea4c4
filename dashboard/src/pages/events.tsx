import type { JSX } from "preact";

export function Events(): JSX.Element {
  return <h1>Events</h1>;
}
