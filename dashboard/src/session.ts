// Who is signed in: in this tab until it is closed, never in the address, never on the disk.

/** At the broker a name and a password, at the fleet's API a token; any may be empty. */
export interface Session {
  username: string;
  password: string;
  token: string;
}

const KEY = "tinysight.session";
const NOBODY: Session = { username: "", password: "", token: "" };

export function loadSession(): Session {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Partial<Record<keyof Session, unknown>>;
    const text = (name: keyof Session): string => (typeof kept[name] === "string" ? (kept[name] as string) : "");
    return { username: text("username"), password: text("password"), token: text("token") };
  } catch {
    return { ...NOBODY };
  }
}

export function keepSession(session: Session): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(session));
  } catch {
    // a browser that keeps nothing asks again at the next load
  }
}

export function endSession(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // nothing was kept
  }
}
