// One request and its reply with kafkajs; the answer is found by its key, the request's id.
//
//     npm install && node ask.mjs "Why is the sky blue?"
import { randomUUID } from "node:crypto";
import { Kafka, Partitioners, logLevel } from "kafkajs";

const REPLIES = "ai.replies";
const brokers = (process.env.AI_KAFKA_BOOTSTRAP_SERVERS ?? "127.0.0.1:9092").split(",");
const kafka = new Kafka({ brokers, clientId: "spillway-example", logLevel: logLevel.ERROR });
const id = randomUUID();
const admin = kafka.admin();
// kafkajs reads in groups only: one of this process's own, removed at the end.
const consumer = kafka.consumer({ groupId: `spillway-example-${id}` });
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });

await Promise.all([admin.connect(), consumer.connect(), producer.connect()]);
try {
  // Before the request goes out: stand where the reply topic ends now.
  const ends = await admin.fetchTopicOffsets(REPLIES);
  await consumer.subscribe({ topic: REPLIES });
  const reply = new Promise((resolve) => {
    consumer.run({
      eachMessage: async ({ message }) => {
        if (message.key?.toString() === id) resolve(JSON.parse(message.value.toString()));
      },
    });
  });
  for (const { partition, high } of ends) consumer.seek({ topic: REPLIES, partition, offset: high });

  const request = { request_id: id, workspace_id: "examples", prompt: process.argv[2], max_tokens: 200, reply_to: REPLIES };
  await producer.send({ topic: "ai.requests", messages: [{ key: "examples", value: JSON.stringify(request) }] });

  const late = new Promise((_, reject) => setTimeout(reject, 60_000, new Error("no reply within 60 seconds")).unref());
  const response = await Promise.race([reply, late]);
  if (response.status !== "succeeded") throw new Error(response.error.message);
  console.log(response.content);
} finally {
  await Promise.all([consumer.disconnect(), producer.disconnect()]);
  await admin.deleteGroups([`spillway-example-${id}`]).catch(() => {});
  await admin.disconnect();
}
