// What the server of these files says about the installation.

/** `config.json` beside `index.html`. */
export interface Config {
  /** `ws://` or `wss://`, never with a password; `?version=3` for a broker that speaks MQTT 3.1.1 only. */
  broker: string;
  /** The fleet's API, such as `https://fleet.example.org`; null when the page only looks. */
  api: string | null;
}

/** Fetch it. An `Error` says what to do. */
export async function loadConfig(): Promise<Config> {
  const mend = "Serve this folder with `tinysight dashboard --broker wss://…`, or put a config.json beside index.html.";
  let told: unknown;
  try {
    const answer = await fetch("./config.json", { cache: "no-cache", credentials: "omit" });
    if (!answer.ok) throw new Error(`it is answered ${answer.status}`);
    told = await answer.json();
  } catch (error) {
    throw new Error(`config.json cannot be read: ${String(error)}. ${mend}`);
  }
  const { broker, api } = told as Partial<Config>;
  if (typeof broker !== "string" || !/^wss?:\/\/[^@\s]+$/.test(broker)) throw new Error(`config.json names no broker. ${mend}`);
  return { broker, api: typeof api === "string" && /^https?:\/\//.test(api) ? api.replace(/\/+$/, "") : null };
}
