// Builds the page into the Python package, and the contract's JSON Schemas into functions that check what came.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Ajv2020 from "ajv/dist/2020.js";
import standalone from "ajv/dist/standalone/index.js";
import { defineConfig, type Plugin } from "vite";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** What the page hears, by the kind of its topic, and the file of its schema. */
const HEARD = {
  status: "status", info: "info", health: "health", model: "modelmetrics", cameraStatus: "camerastatus", counts: "counts",
  event: "event", frame: "frame", alert: "alert", desired: "desired", reported: "reported", ack: "ack",
};

/** `import * as checks from "virtual:checks"`: one function each, compiled here since the page may run no `eval`. */
function checks(): Plugin {
  return {
    name: "checks",
    resolveId: (id) => (id === "virtual:checks" ? "\0checks" : null),
    load(id) {
      if (id !== "\0checks") return null;
      const ajv = new Ajv2020({ code: { source: true, esm: true, lines: false }, strict: false, useDefaults: true, validateFormats: false });
      for (const file of Object.values(HEARD)) {
        const path = at(`../edge/tinysight_contract/schemas/${file}.json`);
        this.addWatchFile(path);
        ajv.addSchema(JSON.parse(readFileSync(path, "utf8")) as object, file);
      }
      return standalone.default(ajv, HEARD).replace(/require\("ajv\/dist\/runtime\/(\w+)"\)\.default/g, "__$1");
    },
    transform(code, id) {
      if (id !== "\0checks") return null;
      const used = new Set([...code.matchAll(/\b__(\w+)\b/g)].map((found) => found[1]));
      const from = (name: string): string => `import _${name} from "ajv/dist/runtime/${name}.js"; const __${name} = _${name}.default ?? _${name};\n`;
      const runtime = ["ucs2length", "equal", "uri"].filter((name) => used.has(name));
      return { code: runtime.map(from).join("") + code, map: null };
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [checks()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: at("../deploy/tinysight_deploy/dashboard/static"),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
});
