// Writes usage_tracking/js/usage-tracking.d.ts from the OpenAPI schema and the module:
// `node generate-types.mjs schema.json`. With --check it compares instead, and fails where they differ.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../usage_tracking");
const target = join(root, "js/usage-tracking.d.ts");
const [schemaFile, mode] = process.argv.slice(2);

// The client speaks of what goes over the wire, not of paths.
const schema = { ...JSON.parse(readFileSync(schemaFile, "utf8")), paths: {} };
const wire = astToString(await openapiTS(schema)).match(/export interface components \{[\s\S]*?\n\}\n/)[0];

// TypeScript sees the module and its types as neighbours, in memory.
const files = {
  "/usage-tracking.js": readFileSync(join(root, "static/usage_tracking/usage-tracking.js"), "utf8"),
  "/types.d.ts": readFileSync(join(root, "js/types.d.ts"), "utf8"),
  "/openapi.d.ts": wire,
};
const options = {
  allowJs: true,
  declaration: true,
  emitDeclarationOnly: true,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  target: ts.ScriptTarget.ESNext,
  strict: true,
  outDir: "/out",
};
const host = ts.createCompilerHost(options);
const { fileExists, readFile, getSourceFile } = host;
host.fileExists = (name) => name in files || fileExists(name);
host.readFile = (name) => files[name] ?? readFile(name);
host.getSourceFile = (name, version) =>
  name in files ? ts.createSourceFile(name, files[name], version, true) : getSourceFile(name, version);
let declarations = "";
host.writeFile = (name, text) => {
  if (name.endsWith("usage-tracking.d.ts")) declarations = text;
};
ts.createProgram(["/usage-tracking.js"], options, host).emit();

// The elements say in `properties` what each of theirs may be.
const OBJECTS = {
  client: 'Partial<Pick<UsageClient, "getUsage" | "getUsageHistory">>',
  data: 'History["points"] | Pick<History, "points"> & Partial<History>',
  features: 'Usage["features"]',
  featureLabels: "Record<string, string>",
  strings: "Record<string, string>",
};
const WORDS = ["7d", "30d", "90d", "1y", "all", "line", "bar", "area", "stack", "grid"];
const TAGS = {
  "api-usage-card": "ApiUsageCard",
  "feature-access-card": "FeatureAccessCard",
  "usage-history-chart": "UsageHistoryChart",
  "usage-dashboard": "UsageDashboard",
};
function typeOf(name, [, isValid]) {
  if (isValid({})) return OBJECTS[name];
  if (isValid(true)) return "boolean";
  if (isValid("any text")) return "string | number";
  if (isValid("any word") || WORDS.some(isValid)) return WORDS.filter(isValid).map((word) => `"${word}"`).join(" | ");
  if (isValid(1)) return isValid(null) ? "number | null" : "number";
  return OBJECTS[name]; // of a shape of its own
}
const elements = await import(join(root, "static/usage_tracking/usage-tracking.js"));
const classes = Object.values(TAGS).map((name) => {
  const members = Object.entries(elements[name].properties).map(([each, kind]) => `    ${each}?: ${typeOf(each, kind)};\n`);
  return `export class ${name} extends HTMLElement {\n${members.join("")}}\n`;
});
const map = Object.entries(TAGS).map(([tag, name]) => `        "${tag}": ${name};\n`);
const properties = Object.entries(TAGS).map(([tag, name]) => `    "${tag}": Omit<${name}, keyof HTMLElement>;\n`);
classes.push(`/** The properties of each element, beside those of every element. */\nexport interface UsageElements {\n${properties.join("")}}\n`);
classes.push(`declare global {\n    interface HTMLElementTagNameMap {\n${map.join("")}    }\n}`);

const own = files["/types.d.ts"].replace(/^import .*\n/m, "").replace(/^\/\/.*\n/, "");
const module = declarations
  .replace(/^import .*\n/gm, "")
  .replace(/\/\*\*\n \* django-usage[\s\S]*?\*\/\n/, "")
  .replace(/^(export|declare) class \w+ extends UsageElement \{[\s\S]*?^\}\n/gm, "")
  .replace(/^declare class UsageElement [\s\S]*?^\}\n/gm, "")
  .replace(/^\/\*\* (Used and limit|A plan's|Usage over|All of them).*\n/gm, "")
  .replace(/^export \{\};\n/gm, "")
  .replace(/ ?@(param|returns|type) \{.*?\}( \[?\w+\]?)?(?= @| \*\/|$)/gm, "")
  .replace(/(^ \*\n)+(?= \*\/)/gm, "")
  .replace(/^ +\/\*\* \*\/\n/gm, "")
  .replace(/\bT\./g, "");
const text = [
  "// Generated from the OpenAPI schema and usage-tracking.js; see CONTRIBUTING.md. Do not edit.\n",
  module.trim(),
  "\n\n// -- elements --\n",
  classes.join("\n"),
  "\n\n// -- what the client takes and returns --\n",
  own.trim(),
  "\n\n// -- what goes over the wire --\n",
  wire.trim(),
  "",
].join("\n");

if (mode !== "--check") writeFileSync(target, text);
else if (readFileSync(target, "utf8") !== text) {
  console.error("usage-tracking.d.ts is not what schema and module say: npm --prefix tests/js run types -- schema.json");
  process.exit(1);
}
