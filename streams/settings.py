"""
Every option of Freshet: one frozen object, read once from the environment or from secret files.

A setting `max_event_age_s` is read from `FRESHET_MAX_EVENT_AGE_S`; a secret `kafka_password` from
`FRESHET_KAFKA_PASSWORD` or from the file that `FRESHET_KAFKA_PASSWORD_FILE` names. Units stand in the names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from streams.errors import ConfigurationError

ENV_PREFIX = "FRESHET_"

#: Settings whose value may stand in a file named by `<NAME>_FILE`, as Kubernetes mounts secrets.
SECRETS = ("kafka_password", "kafka_ssl_key_password", "redis_password")

#: The most parts of the day whose demand is told apart: each costs room for every item.
MAX_DAY_PARTS = 8
#: The most devices whose demand is told apart, in each of those parts.
MAX_DEVICES = 8

EVENT_TYPES = ("views", "clicks", "carts", "purchases", "dislikes", "impressions")


class Settings(BaseSettings):
    """
    The whole configuration. Frozen: nothing changes it after start.

    >>> Settings(namespace="shop").topic_prefix
    'shop.'
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    # What is shared
    namespace: str = Field(
        "",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$|^$",
        description="Prefix of topics, consumer groups, transactional ids and Redis keys.",
    )
    role_id: str = Field("", max_length=120, description="Name of this process in logs; in Kubernetes the pod's name.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="`auto` is pretty on a terminal and JSON elsewhere."
    )
    health_host: str = Field("127.0.0.1", description="Address of /livez, /readyz and /metrics.")
    health_port: int = Field(
        0, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0 takes a free one and logs it."
    )
    state_dir: Path = Field(
        Path(".freshet"),
        description="Where the local Kafka, Redis, logs and process files of `freshet up` live.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/freshet"), description="Where downloaded jars, models and data sets are kept."
    )

    # Kafka
    kafka_bootstrap: str = Field("127.0.0.1:9092", min_length=3, description="host:port, comma separated.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to Kafka."
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="Used with a SASL protocol."
    )
    kafka_username: str = Field("", description="SASL user.")
    kafka_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    kafka_ssl_ca_file: Path | None = Field(None, description="PEM file of the authority that signs the brokers.")
    kafka_ssl_cert_file: Path | None = Field(None, description="PEM certificate of this client, for mutual TLS.")
    kafka_ssl_key_file: Path | None = Field(None, description="PEM key of this client, for mutual TLS.")
    kafka_ssl_key_password: SecretStr = Field(SecretStr(""), description="Password of the client key.")
    kafka_timeout_s: float = Field(
        60.0, gt=0, le=600, description="Kafka away for longer than this ends the process with exit code 4."
    )
    kafka_group_instance_id: str = Field(
        "", max_length=200, description="Static group membership; in Kubernetes the pod's name."
    )
    kafka_session_timeout_s: float = Field(
        30.0, ge=6, le=300, description="A silent worker loses its partitions after this long."
    )
    partitions: int = Field(8, ge=1, le=1000, description="Partitions of every keyed topic made by Freshet.")
    replication: int = Field(1, ge=1, le=5, description="Replication factor of topics made by Freshet.")

    # Redis
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="redis:// or rediss:// address.")
    redis_username: str = Field("", description="Redis ACL user.")
    redis_password: SecretStr = Field(SecretStr(""), description="Redis password.")
    redis_ssl_ca_file: Path | None = Field(None, description="PEM file of the authority that signs Redis.")
    redis_timeout_s: float = Field(
        0.25,
        gt=0,
        le=5,
        description="Longest wait for one answer of Redis; it is a cache and may be skipped.",
    )
    redis_ttl_s: int = Field(30 * 86400, ge=60, description="Life of a cached list that nobody refreshes.")

    # Events
    max_event_age_s: float = Field(
        5 * 365 * 86400.0,
        gt=0,
        description="Older events go to dead-letters, judged against the record's time.",
    )
    max_event_ahead_s: float = Field(
        120.0, ge=0, description="Events further ahead of the record's time are clamped to it and counted."
    )
    lateness_s: float = Field(
        600.0, ge=0, description="Events of a user are exact in any order within this much event time."
    )
    accept_items_from_events: bool = Field(
        default=False,
        description="Let item snapshots inside events become items while the shop says nothing.",
    )

    # Interest
    weights: Annotated[dict[str, float], NoDecode] = Field(
        default={"views": 0.5, "clicks": 1.0, "carts": 3.0, "purchases": 5.0, "dislikes": 5.0},
        description="What one event of a type adds to the interest vectors: `views=0.5,clicks=1`.",
    )
    half_life_short_s: float = Field(3 * 86400.0, gt=0, description="Half-life of the short interest vector.")
    half_life_long_s: float = Field(60 * 86400.0, gt=0, description="Half-life of the long interest vector.")
    half_life_negative_s: float = Field(90 * 86400.0, gt=0, description="Half-life of the negative vector.")
    half_life_popularity_s: float = Field(14 * 86400.0, gt=0, description="Half-life of item popularity.")
    day_parts: int = Field(
        0,
        ge=0,
        le=MAX_DAY_PARTS,
        description="Equal parts of the day, in UTC, whose demand is told apart for the ranking parameter `segment`; "
        "each costs 200 bytes an item in the signals worker. 0 turns it off.",
    )
    user_devices: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=MAX_DEVICES,
        description="Values of the events' `device`, comma separated, whose demand is told apart in each part of the "
        "day: `phone,desktop`; all others are one. Each part costs 200 bytes an item for each name and two more. Empty "
        "turns it off.",
    )
    half_life_followers_s: float = Field(
        180 * 86400.0, gt=0, description="Half-life of the rules that tell which item follows which in a session."
    )

    max_hot_users: int = Field(
        100_000,
        ge=1_000,
        description="Users of one worker kept in columns with their vectors, 4 to 8 KB each; the others are kept as "
        "their records and their vectors made again when they come.",
    )
    max_state_bytes: int = Field(
        4 * 2**30,
        ge=2**20,
        description="Bytes of user records one worker keeps; above it the users who are idle longest are forgotten.",
    )
    state_ttl_s: float = Field(
        2 * 365 * 86400.0, gt=0, description="A user without an event for this long is forgotten."
    )

    # Lists
    make_lists: bool = Field(default=True, description="Whether the worker ranks; without, it only keeps state.")
    list_size: int = Field(20, ge=1, le=100, description="Items in a list.")
    spare_items: int = Field(
        10,
        ge=0,
        le=100,
        description="Items kept ready behind each list, for those that a rule or want of stock strikes from it.",
    )
    max_shelved_lists: int = Field(
        50_000,
        ge=5_000,
        description="Newest lists one worker keeps with their spare items, about 2 KB each; other lists that something "
        "is struck from are ranked again.",
    )
    rank_batch: int = Field(256, ge=1, le=4096, description="Most users ranked in one call.")
    policy: str = Field("default-1", max_length=64, description="Name of the ranking policy, written on lists.")
    surfaces: Annotated[tuple[str, ...], NoDecode] = Field(
        ("home",),
        description="Surfaces with a default list, comma separated; the first is a user's main list.",
    )
    default_list_interval_s: float = Field(
        60.0, gt=0, description="How often the lists for visitors without events are made."
    )
    ranking_file: Path | None = Field(
        None,
        description="JSON file of ranking parameters, as `freshet tune` writes it; read again when it changes.",
    )
    scorer_file: Path | None = Field(
        None,
        description="Learned scorer, as `freshet train` writes it, weighed by the ranking parameter `network`; read "
        "again when it changes.",
    )
    experiments_file: Path | None = Field(
        None, description="JSON file of experiments; the `experiments` topic overrides it key by key."
    )

    # Commit
    commit_interval_s: float = Field(0.2, gt=0, le=60, description="Time between transactions of a partition.")
    # A second: five would fold a fifth more events, and have read-committed readers wait five times as long.
    commit_interval_max_s: float = Field(
        1.0, gt=0, le=60, description="Longest time between transactions under load, when they take long themselves."
    )
    commit_timeout_s: float = Field(
        20.0, gt=0, le=300, description="Deadline of one commit, and of the last one on revoke and SIGTERM."
    )
    max_poll_records: int = Field(10_000, ge=1, le=100_000, description="Most records of one partition in a run.")
    max_buffered_runs: int = Field(
        32, ge=1, le=1000, description="Runs handed to the worker and not folded yet; above, fetching waits."
    )

    # Signals
    signals_publish_interval_s: float = Field(
        1.0, gt=0, description="Time between transactions of the signals worker, and so how fresh popularity is."
    )

    neighbours_refit_interval_s: float = Field(
        900.0,
        ge=0,
        description="Time between fits of the item-to-item weights from whole histories; 0 turns them off.",
    )
    neighbours_refit_drift: float = Field(
        0.2, gt=0, description="A fit comes sooner, after a tenth of the interval, once this share of histories is new."
    )
    neighbours_window_s: float = Field(
        7 * 86400.0, gt=0, description="How far back in `item-events` the histories are read at start."
    )
    neighbours_max_users: int = Field(
        100_000,
        ge=100,
        le=10_000_000,
        description="Users whose histories are held, 12 bytes an item.",
    )
    neighbours_history: int = Field(
        128, ge=2, le=1_024, description="Items of one history: the newest that the user met, each counted once."
    )
    neighbours_max_items: int = Field(
        8_000,
        ge=2,
        le=200_000,
        description="Items in a fit, the most met ones.",
    )
    neighbours_dense_items: int = Field(
        20_000,
        ge=0,
        le=30_000,
        description="A fit of at most so many items takes 8 bytes for each pair of them while it runs; one of more "
        "fits each item on the 200 that explain it best, in half a gigabyte at 100,000 items.",
    )
    neighbours_regularisation: float = Field(
        300.0, gt=0, description="The greater, the more histories it takes to believe that two items go together."
    )

    # Encoder
    model_path: Path | None = Field(
        None,
        description="Model folder; unset takes MiniLM-L6 from its PyPI package, with its hashes checked.",
    )
    model_sha256: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", description="Required hash of model.safetensors in `model_path`."
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where the encoder runs.")
    encoder_max_tokens: int = Field(256, ge=8, le=8192, description="Longer texts are cut, and counted.")
    encoder_prompt: str | None = Field(
        None,
        max_length=1_000,
        description="Text before every item's, like `passage: `; unset takes the model's own for documents.",
    )
    encoder_dim: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Elements kept of a vector, for models trained for it (Matryoshka); 0 keeps all.",
    )
    encoder_batch_tokens: int = Field(
        0, ge=0, le=1_000_000, description="Token budget of a batch; 0 chooses by device."
    )
    encoder_precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="`auto` measures at start: the fastest whose vectors are as good as fp32's.",
    )
    image_root: Path | None = Field(
        None, description="Folder of the images that `image_url` names, for models that take images; unset takes none."
    )
    image_vectors: Literal["fused", "image", "text"] = Field(
        "fused",
        description="What a model for texts and images makes of an item: both in one vector, or one of the two alone.",
    )
    image_weight: float = Field(
        0.5, gt=0, lt=1, description="What the image counts in a fused vector; the text counts the rest."
    )
    image_max_bytes: int = Field(20_000_000, ge=1_000, le=1_000_000_000, description="Larger image files are left out.")
    image_max_pixels: int = Field(
        25_000_000,
        ge=10_000,
        le=1_000_000_000,
        description="Images of more pixels are left out before they are decoded.",
    )
    encoder_batch_images: int = Field(0, ge=0, le=10_000, description="Images of a batch; 0 chooses by device.")
    encoder_threads: int = Field(0, ge=0, le=256, description="CPU cores of the encoder, a batch each; 0 takes all.")

    @field_validator("weights", mode="before")
    @classmethod
    def _parse_weights(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.split("=", 1) for part in value.split(",") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("expected type=number pairs, like views=0.5,clicks=1")
        return {name.strip(): number.strip() for name, number in pairs}

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: dict[str, float]) -> dict[str, float]:
        known = set(EVENT_TYPES) - {"impressions"}
        if unknown := sorted(set(value) - known):
            raise ValueError(f"unknown event type {unknown[0]!r}; known are {', '.join(sorted(known))}")
        if bad := sorted(name for name, weight in value.items() if not 0 <= weight <= 1000):
            raise ValueError(f"the weight of {bad[0]} must lie in 0..1000")
        return {**cls.model_fields["weights"].default, **value}

    @field_validator("surfaces", "user_devices", mode="before")
    @classmethod
    def _parse_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("surfaces")
    @classmethod
    def _check_surfaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(not name.replace("-", "").isalnum() or len(name) > 40 for name in value):
            raise ValueError("expected one or more names of letters, digits and dashes")
        return value

    @field_validator("user_devices")
    @classmethod
    def _check_user_devices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or any(not name or len(name) > 40 for name in value):
            raise ValueError("expected different names of at most 40 characters")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://")):
            raise ValueError("expected redis://host:port/db or rediss://host:port/db")
        # A password in an address would show in logs and process lists.
        if "@" in value:
            raise ValueError("user and password belong in FRESHET_REDIS_USERNAME and FRESHET_REDIS_PASSWORD")
        return value

    @field_validator("state_dir", "cache_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_username and self.kafka_password.get_secret_value()
        ):
            raise ValueError(
                f"FRESHET_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs "
                "FRESHET_KAFKA_USERNAME and FRESHET_KAFKA_PASSWORD"
            )
        if bool(self.kafka_ssl_cert_file) != bool(self.kafka_ssl_key_file):
            raise ValueError("FRESHET_KAFKA_SSL_CERT_FILE and FRESHET_KAFKA_SSL_KEY_FILE go together")
        if self.commit_timeout_s >= self.kafka_session_timeout_s:
            raise ValueError(
                "FRESHET_COMMIT_TIMEOUT_S must be below FRESHET_KAFKA_SESSION_TIMEOUT_S, "
                "or the last commit on revoke outlives the membership"
            )
        return self

    @property
    def topic_prefix(self) -> str:
        """Stands before every topic, group and transactional id: empty or `namespace.`."""
        return f"{self.namespace}." if self.namespace else ""

    @property
    def redis_prefix(self) -> str:
        """Stands before every Redis key: `freshet:` or `namespace:freshet:`."""
        return f"{self.namespace}:freshet:" if self.namespace else "freshet:"

    def group(self, role: str) -> str:
        """
        Consumer group of a role.

        >>> Settings(namespace="shop").group("interest")
        'shop.freshet-interest'
        """
        return f"{self.topic_prefix}freshet-{role}"

    @classmethod
    def from_env(cls, **overrides: object) -> Self:
        """
        Read the environment once; `overrides` win (the command line's options).

        Raises
        ------
        ConfigurationError
            With one sentence that names the setting.

        """
        values = dict(overrides)
        for name in SECRETS:
            path = os.environ.get(f"{ENV_PREFIX}{name.upper()}_FILE")
            if path and name not in values:
                try:
                    values[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
                except OSError as error:
                    raise ConfigurationError(
                        f"{ENV_PREFIX}{name.upper()}_FILE names {path}, which cannot be read: {error.strerror}"
                    ) from error
        try:
            return cls(**values)  # type: ignore[arg-type]  # pydantic checks each value
        except ValidationError as error:
            raise ConfigurationError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Name the first bad setting as the operator wrote it, without its value (it may be a secret)."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    return f"{ENV_PREFIX}{str(first['loc'][0]).upper()} is not usable: {message}"
