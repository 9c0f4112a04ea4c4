// The address behind `#`: which page, of what, filtered how. Never a secret.
import { cell } from "./draw";

export interface Route {
  /** Parts of the path, decoded: `["device", "plant-1", "gate-1"]`; empty for the overview. */
  path: readonly string[];
  query: URLSearchParams;
}

function readRoute(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { path: parts, query: new URLSearchParams(query) };
}

export const route = cell<Route>(readRoute());
addEventListener("hashchange", () => (route.value = readRoute()));

/** An address within the page: `to(["device", site, device], { camera })`. */
export function to(path: readonly string[], query: Record<string, string> = {}): string {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "")).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${asked ? `?${asked}` : ""}`;
}

/** Change what stands behind the question mark, in place. */
export function ask(query: Record<string, string>): void {
  history.replaceState(null, "", to(route.value.path, query));
  route.value = readRoute();
}
