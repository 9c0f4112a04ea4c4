import type { JSX } from "preact";

export function RolloutPage({ id, site, device }: { id: string; site: string; device: string }): JSX.Element {
  return <h1>{id}{site}{device}</h1>;
}
