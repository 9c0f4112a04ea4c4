import type { JSX } from "preact";

export function Models(): JSX.Element {
  return <h1>Models</h1>;
}
