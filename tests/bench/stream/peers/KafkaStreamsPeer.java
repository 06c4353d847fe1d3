// Kafka Streams: one keyed store with a changelog. The variant is "<rocksdb|memory>,<processing guarantee>".
// Run as a single file: java -cp 'jars/*' KafkaStreamsPeer.java. What it is told stands in tests/bench/stream/peer.py,
// the layout of its records in tests/bench/stream/records.py.

import static java.nio.charset.StandardCharsets.US_ASCII;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Supplier;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class KafkaStreamsPeer {
  static final int DIM = 384;
  static final double HALF_LIFE_MS = 60 * 86400.0 * 1000.0;
  static final int VECTOR_HEAD = 16;
  static final int COMPACT_HEAD = 8;
  static final int COMPACT_ENTRY = 13;
  static final int COMPACT_EVENTS = 64;
  static final byte CLICK = 1;
  static final long BASE_MS = 1_735_689_600_000L;
  static final int SAMPLED = 100;
  static final String STORE = "state";
  // Holds every user's vector: a user who changes several times within a commit goes to the changelog once.
  static final long CACHE_BYTES = 256L << 20;
  static final JsonFactory JSON = new JsonFactory();
  static final Queue<CompactFold> FOLDS = new ConcurrentLinkedQueue<>();

  private KafkaStreamsPeer() {}

  static String told(String name) {
    return System.getenv("BENCH_" + name);
  }

  static ByteBuffer wrap(byte[] bytes) {
    return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  interface Fold {
    byte[] apply(Bytes user, byte[] record, long tsMs, int item);
  }

  static float[] floats(Path file) throws IOException {
    ByteBuffer raw = wrap(Files.readAllBytes(file));
    float[] read = new float[raw.remaining() / Float.BYTES];
    raw.asFloatBuffer().get(read);
    return read;
  }

  static Fold vectorFold(float[] table) {
    return (user, record, tsMs, item) -> {
      float[] sum = new float[DIM];
      long count = 0;
      double left = 0;
      if (record != null) {
        ByteBuffer old = wrap(record);
        count = old.getLong();
        left = Math.pow(2.0, -(tsMs - old.getLong()) / HALF_LIFE_MS);
        old.asFloatBuffer().get(sum);
      }
      int at = item * DIM;
      for (int i = 0; i < DIM; i++) {
        sum[i] = (float) (sum[i] * left + table[at + i]);
      }
      ByteBuffer made = wrap(new byte[VECTOR_HEAD + DIM * Float.BYTES]);
      made.putLong(count + 1).putLong(tsMs).asFloatBuffer().put(sum);
      return made.array();
    };
  }

  // The compact record, and every user's vector in memory as of BASE_MS; see `compact_fold` of records.py.
  static final class CompactFold implements Fold {
    private final float[] table;
    private final Map<Bytes, float[]> vectors = new HashMap<>();

    CompactFold(float[] table) {
      this.table = table;
      FOLDS.add(this);
    }

    @Override
    public byte[] apply(Bytes user, byte[] record, long tsMs, int item) {
      float[] vector = vectors.get(user);
      if (vector == null) {
        vector = new float[DIM];
        vectors.put(user, vector);
        for (int at = COMPACT_HEAD; record != null && at < record.length; at += COMPACT_ENTRY) {
          ByteBuffer entry = wrap(record).position(at);
          add(vector, entry.getLong(), entry.getInt());
        }
      }
      add(vector, tsMs, item);
      return appended(record, tsMs, item);
    }

    private void add(float[] vector, long tsMs, int item) {
      float weight = (float) Math.pow(2.0, (tsMs - BASE_MS) / HALF_LIFE_MS);
      int at = item * DIM;
      for (int i = 0; i < DIM; i++) {
        vector[i] += weight * table[at + i];
      }
    }

    void sample(ByteBuffer out) {
      vectors.forEach((user, vector) -> {
        int number = Integer.parseInt(new String(user.get(), 1, user.get().length - 1, US_ASCII));
        if (number < SAMPLED) {
          out.position(number * DIM * Float.BYTES);
          out.asFloatBuffer().put(vector);
        }
      });
    }
  }

  static void writeSample() {
    ByteBuffer out = wrap(new byte[SAMPLED * DIM * Float.BYTES]);
    FOLDS.forEach(fold -> fold.sample(out));
    try {
      Files.write(Path.of(told("SAMPLE_FILE")), out.array());
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  static byte[] appended(byte[] record, long tsMs, int item) {
    byte[] made;
    long count = 0;
    if (record == null) {
      made = new byte[COMPACT_HEAD + COMPACT_ENTRY];
    } else {
      count = wrap(record).getLong();
      boolean full = count >= COMPACT_EVENTS;
      made = new byte[full ? record.length : record.length + COMPACT_ENTRY];
      int from = full ? COMPACT_HEAD + COMPACT_ENTRY : COMPACT_HEAD;
      System.arraycopy(record, from, made, COMPACT_HEAD, record.length - from);
    }
    ByteBuffer out = wrap(made);
    out.putLong(count + 1).position(made.length - COMPACT_ENTRY);
    out.putLong(tsMs).putInt(item).put(CLICK);
    return made;
  }

  static final class FoldProcessor extends ContextualProcessor<Bytes, byte[], Void, Void> {
    private final Fold fold;
    private KeyValueStore<Bytes, byte[]> store;

    FoldProcessor(Fold fold) {
      this.fold = fold;
    }

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      super.init(context);
      store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<Bytes, byte[]> event) {
      long tsMs = -1;
      int item = -1;
      try (JsonParser fields = JSON.createParser(event.value())) {
        while (fields.nextToken() != null) {
          if (fields.currentToken() != JsonToken.FIELD_NAME) {
            continue;
          }
          String name = fields.currentName();
          fields.nextToken();
          if (name.equals("ts")) {
            tsMs = fields.getLongValue();
          } else if (name.equals("item_id")) {
            item = Integer.parseInt(fields.getText(), 1, fields.getTextLength(), 10);
          }
        }
      } catch (IOException error) {
        throw new IllegalStateException(error);
      }
      store.put(event.key(), fold.apply(event.key(), store.get(event.key()), tsMs, item));
    }
  }

  static Properties settings(String guarantee) {
    Properties told = new Properties();
    told.put(StreamsConfig.APPLICATION_ID_CONFIG, told("GROUP"));
    told.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, told("BOOTSTRAP"));
    told.put(StreamsConfig.STATE_DIR_CONFIG, told("FOLDER"));
    told.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, guarantee);
    told.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Math.round(1000 * Double.parseDouble(told("COMMIT_S"))));
    told.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    told.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, CACHE_BYTES);
    told.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    told.put(StreamsConfig.producerPrefix("batch.size"), 512 << 10);
    told.put(StreamsConfig.producerPrefix("buffer.memory"), 128L << 20);
    told.put(StreamsConfig.consumerPrefix("max.poll.records"), 5000);
    told.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 8 << 20);
    return told;
  }

  public static void main(String[] args) throws IOException {
    String[] variant = told("VARIANT").split(",");
    float[] table = floats(Path.of(told("TABLE_FILE")));
    // A partition has a processor of its own, and so its users' vectors.
    Supplier<Fold> folds = told("RECORD").equals("compact") ? () -> new CompactFold(table) : () -> vectorFold(table);
    var supplier = variant[0].equals("rocksdb")
        ? Stores.persistentKeyValueStore(STORE)
        : Stores.inMemoryKeyValueStore(STORE);
    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(Stores.keyValueStoreBuilder(supplier, Serdes.Bytes(), Serdes.ByteArray())
        .withCachingEnabled()
        .withLoggingEnabled(Map.of()));
    builder.stream(told("TOPIC"), Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
        .process(() -> new FoldProcessor(folds.get()), STORE);
    KafkaStreams streams = new KafkaStreams(builder.build(), settings(variant[1]));
    streams.setUncaughtExceptionHandler(error -> {
      error.printStackTrace();
      Runtime.getRuntime().halt(1);
      return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      streams.close();
      writeSample();
    }));
    streams.start();
  }
}
