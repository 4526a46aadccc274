import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * One request and its reply with kafka-clients, by the header names of Spring for Apache Kafka: whoever uses its
 * ReplyingKafkaTemplate needs nothing else.
 *
 * <p>javac -cp 'LIBS/*' -d out examples/java/Ask.java && java -cp 'out:LIBS/*' Ask "Why is the sky blue?"
 */
public final class Ask {
    private static final String REPLIES = "ai.replies";
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        String servers = System.getenv().getOrDefault("AI_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092");
        Map<String, Object> told = Map.of("bootstrap.servers", servers);
        try (var consumer = new KafkaConsumer<>(told, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                var producer = new KafkaProducer<>(told, new ByteArraySerializer(), new ByteArraySerializer())) {
            standAtTheEnd(consumer);
            byte[] correlation = send(producer, arguments[0]);
            JsonNode response = JSON.readTree(await(consumer, correlation).value());
            if (!response.get("status").asText().equals("succeeded")) {
                throw new IllegalStateException(response.get("error").get("message").asText());
            }
            System.out.println(response.get("content").asText());
        }
    }

    /** Before the request goes out: a reply from now on is not missed. */
    private static void standAtTheEnd(KafkaConsumer<byte[], byte[]> consumer) {
        List<TopicPartition> partitions = consumer.partitionsFor(REPLIES).stream()
                .map(found -> new TopicPartition(REPLIES, found.partition()))
                .toList();
        consumer.assign(partitions);
        consumer.endOffsets(partitions).forEach(consumer::seek);
    }

    private static byte[] send(KafkaProducer<byte[], byte[]> producer, String question) throws Exception {
        byte[] workspace = "examples".getBytes();
        byte[] body = JSON.writeValueAsBytes(
                Map.of("workspace_id", "examples", "prompt", question, "max_tokens", 200));
        var request = new ProducerRecord<>("ai.requests", workspace, body);
        byte[] correlation = bytes(UUID.randomUUID());
        request.headers().add("kafka_replyTopic", REPLIES.getBytes());
        request.headers().add("kafka_correlationId", correlation);
        producer.send(request).get();
        return correlation;
    }

    private static ConsumerRecord<byte[], byte[]> await(KafkaConsumer<byte[], byte[]> consumer, byte[] correlation) {
        Instant end = Instant.now().plus(PATIENCE);
        while (Instant.now().isBefore(end)) {
            for (var record : consumer.poll(Duration.ofMillis(500))) {
                Header header = record.headers().lastHeader("kafka_correlationId");
                if (header != null && Arrays.equals(header.value(), correlation)) {
                    return record;
                }
            }
        }
        throw new IllegalStateException("No reply came within " + PATIENCE.toSeconds() + " seconds.");
    }

    private static byte[] bytes(UUID id) {
        return ByteBuffer.allocate(16).putLong(id.getMostSignificantBits()).putLong(id.getLeastSignificantBits()).array();
    }
}
