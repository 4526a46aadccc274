// Publishes the lines of its input, as keys and values with a tab between them, in one compression.
const { readFileSync } = require("node:fs");
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require("kafkajs");

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
const TYPES = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };

async function main([servers, topic, codec]) {
  const kafka = new Kafka({ brokers: servers.split(","), logLevel: logLevel.ERROR });
  const producer = kafka.producer();
  await producer.connect();
  const lines = readFileSync(0, "utf8").split("\n").filter(Boolean);
  const messages = lines.map((line) => {
    const [key, value] = line.split("\t");
    return { key, value, headers: { "x-app": "node" } };
  });
  await producer.send({ topic, compression: TYPES[codec], messages });
  await producer.disconnect();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
