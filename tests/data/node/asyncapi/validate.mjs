// The public validator's word on a document: what it has parsed, and all that it complains about.
import { Parser, fromFile } from "@asyncapi/parser";

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
const found = {
  channels: document?.channels().all().map((channel) => channel.id()) ?? [],
  required: document?.channels().get("usage")?.messages().get("usage")?.payload()?.required() ?? [],
  diagnostics: diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join(".") })),
};
console.log(JSON.stringify(found));
