// What the pages share: the fleet, the link, who is signed in.
import { cell } from "./draw";
import { Api } from "./api";
import type { Config } from "./config";
import { Fleet } from "./fleet";
import { Link } from "./link";
import { type Session, endSession, keepSession, loadSession } from "./session";
import { ROOT } from "./contract";

export interface App {
  config: Config;
  fleet: Fleet;
  link: Link;
  api: Api | null;
  session: Session;
}

/** Null until `config.json` was read. */
export const app = cell<App | null>(null);

/** What every page needs, in the order in which it is asked for; the rest is watched by the page that shows it. */
const ALWAYS: [string, 0 | 1][] = [
  [`${ROOT}/+/+/status`, 1],
  [`${ROOT}/+/+/alert/+`, 1],
  [`${ROOT}/+/+/health`, 0],
  [`${ROOT}/+/+/info`, 1],
  [`${ROOT}/+/+/camera/+/event`, 1],
  [`${ROOT}/+/+/camera/+/status`, 1],
  [`${ROOT}/+/+/camera/+/counts`, 0],
];
/** Who speaks another version; an account for `ROOT/#` may not ask for it. */
const FOREIGN = "tinysight/+/+/+/info";

export function begin(config: Config): void {
  const fleet = new Fleet();
  const link = new Link(config.broker, fleet);
  const session = loadSession();
  for (const [filter, qos] of ALWAYS) link.watch(filter, qos);
  link.watch(FOREIGN, 0, true);
  app.value = { config, fleet, link, session, api: config.api === null ? null : new Api(config.api, session.token) };
  link.open(session);
}

/** Sign in, at the broker, at the API or both; kept in this tab. */
export function signIn(changes: Partial<Session>): void {
  const now = app.value;
  if (!now) return;
  const session = { ...now.session, ...changes };
  keepSession(session);
  app.value = { ...now, session, api: now.config.api === null ? null : new Api(now.config.api, session.token) };
  if (changes.username !== undefined || changes.password !== undefined) now.link.open(session);
}

export function signOut(): void {
  endSession();
  location.reload();
}
