"""
Every metric Freshet exports: base units, `_total` on counters, closed label sets, never an id as a label.

Counters are counted once a batch, not once an event.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Freshness is read at p99 <= 75 ms and in overload up to minutes: steps of about 1.5 from 1 ms to 2 min.
_LATENCY_S = tuple(round(0.001 * 1.5**step, 6) for step in range(29))

EVENTS = Counter("freshet_events_total", "Events read, by type and what became of them.", ["type", "outcome"])
ERASURES = Counter("freshet_erasures_total", "Requests to forget a user, by what became of them.", ["outcome"])
DEAD_LETTERS = Counter("freshet_dead_letters_total", "Records sent to dead-letters.", ["topic", "reason"])
CLAMPED = Counter("freshet_events_clamped_total", "Events from the future, clamped to their record's time.")
FRESHNESS = Histogram(
    "freshet_freshness_seconds", "From an event's record timestamp to its list in Redis.", buckets=_LATENCY_S
)
LISTS = Counter("freshet_lists_total", "Lists published to recommendations.", ["kind"])
RANK_SECONDS = Histogram("freshet_rank_batch_seconds", "One ranking call.", buckets=_LATENCY_S)
RANK_BATCH = Histogram(
    "freshet_rank_batch_users", "Users in one ranking call.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
DIRTY = Gauge("freshet_dirty_users", "Users whose list is owed.")
SCORER_SPEAKS = Gauge(
    "freshet_scorer_speaks", "1 while the scorer of FRESHET_SCORER_FILE was taught on the served vectors, else 0."
)
STRIKES = Gauge("freshet_strikes", "Lists that hold an item which may be listed no more, and are next to lose it.")
COMMIT_SECONDS = Histogram(
    "freshet_commit_seconds", "One transaction, gather to committed.", ["role"], buckets=_LATENCY_S
)
COMMIT_INTERVAL = Gauge(
    "freshet_commit_interval_seconds",
    "Longest wait between two transactions of a partition; grows under load.",
    ["role"],
)
COMMITS = Counter("freshet_commits_total", "Transactions, by result.", ["role", "result"])
LAG_SECONDS = Gauge(
    "freshet_lag_seconds", "Age of the newest folded record, by topic; 0 when nothing waits.", ["topic"]
)
LAG_RECORDS = Gauge("freshet_lag_records", "Records not yet folded, by topic.", ["topic"])
PARTITIONS = Gauge("freshet_partitions", "Owned partitions, by state.", ["state"])
RESTORE_SECONDS = Histogram("freshet_restore_seconds", "Taking one partition.", buckets=(0.1, 0.3, 1, 3, 10, 30, 100))
EXPIRED = Counter("freshet_records_expired_total", "Records that Kafka deleted before they were read.")
RESTORED = Counter("freshet_restored_records_total", "Changelog records read while taking partitions.")
ALIGNMENT_TIMEOUTS = Counter(
    "freshet_alignment_timeouts_total", "Runs folded without waiting longer for a lagging co-partition."
)
CACHE_WRITES = Counter("freshet_cache_writes_total", "Redis writes, by result.", ["result"])
CACHE_SECONDS = Histogram("freshet_cache_write_seconds", "One pipelined write to Redis.", buckets=_LATENCY_S)
CATALOGUE_ITEMS = Gauge("freshet_catalogue_items", "Items in the matrix, by state.", ["state"])
CATALOGUE_RECORDS = Counter("freshet_catalogue_records_total", "Catalogue records followed.", ["topic"])
CATALOGUE_DAMAGED = Counter(
    "freshet_catalogue_damaged_records_total", "Catalogue records that could not be read and were skipped.", ["topic"]
)
ENCODED = Counter("freshet_encoder_items_total", "Item records met by the encoder, by outcome.", ["outcome"])
IMAGES = Counter("freshet_encoder_images_total", "Images of items met by the encoder, by outcome.", ["outcome"])
ENCODER_SECONDS = Histogram("freshet_encoder_stage_seconds", "Encoder time by stage.", ["stage"], buckets=_LATENCY_S)
ENCODER_TOKENS = Counter("freshet_encoder_tokens_total", "Tokens encoded, padding apart.", ["kind"])
ENCODER_TRUNCATED = Counter("freshet_encoder_truncated_total", "Texts cut at the model's limit.")
SIGNAL_EVENTS = Counter("freshet_signal_events_total", "Item events folded by the signals worker.")
SIGNALS_PUBLISHED = Counter("freshet_signals_published_total", "Records published to item-signals.")
NEIGHBOURS_PUBLISHED = Counter("freshet_neighbours_published_total", "Records published to item-neighbours.")
ITEMS_WAITING = Gauge(
    "freshet_items_waiting", "Items whose state and neighbours wait for their turn to be written.", ["partition"]
)
USERS_COOLED = Counter("freshet_users_cooled_total", "Users who left the columns and stay as their record.")
USERS_FORGOTTEN = Counter("freshet_users_forgotten_total", "Users whose state was given up, by reason.", ["reason"])
HOT_USERS = Gauge("freshet_hot_users", "Users in columns, with their vectors.")
STATE_BYTES = Gauge("freshet_state_bytes", "Bytes of the records of users who are not in columns.")
FIT_SECONDS = Histogram(
    "freshet_neighbours_fit_seconds", "One fit of the item-to-item weights.", buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300)
)
FITS = Counter("freshet_neighbours_fits_total", "Fits of the item-to-item weights, by result.", ["result"])
FIT_ITEMS = Gauge("freshet_neighbours_fit_items", "Items in the newest fit.")
FIT_USERS = Gauge("freshet_neighbours_histories", "Users whose histories are held for the next fit.")
STATE_DAMAGED = Counter("freshet_state_records_damaged_total", "Restored user states that could not be read.")
CACHE_OWED = Gauge("freshet_cache_owed", "Lists that Redis did not take yet and that will be tried again.")
