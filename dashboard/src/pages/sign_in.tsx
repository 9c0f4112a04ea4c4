// Sign in: at the broker, which sends everything, and at the fleet's API, which lets one act.
import type { JSX } from "preact";
import { app, signIn, signOut } from "../app";
import { Note } from "../ui/bits";

export function SignIn(): JSX.Element {
  const now = app.value;
  if (!now) return <Note title="Beginning…" />;
  const { session, link, api, config } = now;
  const state = link.state.value;
  const send = (event: SubmitEvent, names: ("username" | "password" | "token")[]): void => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    signIn(Object.fromEntries(names.map((name) => [name, name === "password" ? String(form.get(name) ?? "") : String(form.get(name) ?? "").trim()])));
  };
  return (
    <div class="page narrow">
      <h1>Sign in</h1>
      {state.kind === "refused" && <Note whole tone="bad" title={state.why}>{state.mend}</Note>}
      <form class="card" onSubmit={(event) => send(event, ["username", "password"])}>
        <h2>Broker</h2>
        <p class="dim">{config.broker} sends what devices say. An account that may only read is enough.</p>
        <label>User <input name="username" autocomplete="username" value={session.username} required /></label>
        <label>Password <input name="password" type="password" autocomplete="current-password" /></label>
        {config.broker.startsWith("ws:") && !/^ws:\/\/(127\.|localhost|\[::1\])/.test(config.broker) && (
          <Note tone="warn" title="The password would go over the network in plain text.">Have the broker take wss://.</Note>
        )}
        <button class="main" type="submit">Connect</button>
      </form>
      {api ? (
        <form class="card" onSubmit={(event) => send(event, ["token"])}>
          <h2>Fleet</h2>
          <p class="dim">{config.api} lets you act: commands, zones, rollouts. Get a token with <code>tinysight fleet token add NAME --role operate</code>.</p>
          {api.refused.value && <Note whole tone="bad" title="The token is not taken.">{api.refused.value}</Note>}
          {api.trouble.value && <Note tone="bad" title="The fleet's server does not say who you are.">{api.trouble.value} It is asked again by itself.</Note>}
          {api.me.value && <Note title={`Signed in as ${api.me.value.name} (${api.me.value.role}).`} />}
          <label>Token <input name="token" type="password" autocomplete="off" required /></label>
          <button class="main" type="submit">Use it</button>
        </form>
      ) : (
        <p class="dim">This page only looks: it was served without <code>--api</code>.</p>
      )}
      <p class="dim">Both are kept in this tab alone, until it is closed. <button type="button" onClick={signOut}>Sign out</button></p>
    </div>
  );
}
