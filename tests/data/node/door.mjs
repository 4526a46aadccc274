// OpenAI's own SDK through the door: each check prints what it saw, as one JSON object at the end.
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
// Each conversation is had once: an answer to the same one may come from the cache.
let asked = 0;
const say = (times = 2) => [{ role: "user", content: `hello from node ${++asked}${" to and fro".repeat(times)}` }];
const seen = {};

const answer = await client.chat.completions.create({ model: "gpt-4o-mini", messages: say(), max_tokens: 50 });
seen.completion = answer.choices[0].message.content;
seen.tokens = answer.usage.total_tokens;
seen.requestId = answer._request_id;

seen.pieces = [];
const stream = await client.chat.completions.create({
  model: "gpt-4o-mini", messages: say(20), max_tokens: 200, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  if (chunk.choices[0]?.delta.content) seen.pieces.push(chunk.choices[0].delta.content);
  if (chunk.usage) seen.streamed = chunk.usage.total_tokens;
}

const vectors = await client.embeddings.create({ model: "text-embedding-3-small", input: ["one", "two"] });
seen.vectors = vectors.data.map((one) => one.embedding.length);

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

const failure = async (work) => {
  try {
    await work();
    return "no error";
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.code ?? null];
  }
};
const ask = (body, options) => () => client.chat.completions.create({ model: "gpt-4o-mini", messages: say(), ...body }, options);
seen.wrongKey = await failure(() => new OpenAI({ baseURL, apiKey: "sk-wrong" }).models.list());
seen.unknownModel = await failure(ask({ model: "nobody-has-this" }));
seen.unknownModelStreamed = await failure(ask({ model: "nobody-has-this", stream: true }));
seen.invalid = await failure(ask({ temperature: 9 }));
const slow = { model: "default", preferred_providers: ["claude"] };
seen.deadline = await failure(ask(slow, { headers: { "x-spillway-timeout": "1" } }));
seen.timeout = await failure(ask(slow, { timeout: 1000, maxRetries: 0 }));
seen.workspace = await failure(ask({}, { headers: { "x-spillway-workspace": "globex" } }));

console.log(JSON.stringify(seen));
