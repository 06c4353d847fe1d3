"""The encoder's backlog and what it remembers: newest version wins, unchanged is skipped, the shop goes first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.images import read_preprocessing
from models.text import content_hash
from streams.encoding.backlog import Admission, Backlog, Record
from streams.encoding.images import Images
from streams.encoding.seen import SIGHTING, SOURCE_HEADER, Seen
from streams.encoding.watermark import Position
from streams.settings import Settings
from streams.wire.items import Item
from streams.wire.vectors import encode_vector, vector_key

FINGERPRINT = "0123456789abcdef"


class Bench:
    """A backlog, its seen set, and records with rising offsets."""

    def __init__(self) -> None:
        self.seen = Seen(FINGERPRINT)
        self.tokenized: list[str] = []
        self.backlog = Backlog(self.seen, lambda: 1_000)
        self._offsets = itertools.count()

    def record(self, item_id: str, title: str | None, *, shop: bool = True, ahead: bool = False) -> Record:
        """Return a snapshot with a title; None is a tombstone."""
        position = Position("items" if shop else "item-sightings", 0, next(self._offsets))
        value = None if title is None else Item(item_id, title=title).encode()
        return Record(position, shop, item_id.encode(), value, ahead)

    def admit(self, *records: Record, bulk: bool = False) -> Admission:
        """Admit records of one poll, and tokenise: a token for each word."""
        admission = self.backlog.admit(records, lambda _: bulk)
        for job in admission.fresh:
            self.tokenized.append(job.text)
            job.tokens = [0] * len(job.text.split())
        return admission

    def encoded(self, item_id: str, title: str, *, shop: bool = True) -> None:
        """Pretend that this text's vector is out."""
        self.seen.put(item_id, content_hash(title), shop=shop)

    def waiting(self) -> list[tuple[str, str]]:
        """Return (item, text) of all that waits, taking it out."""
        jobs = []
        while batch := self.backlog.take(10**6):
            jobs += self.backlog.land(batch)
        return [(job.item_id, job.text) for job in jobs]


@pytest.fixture
def bench() -> Bench:
    """A fresh backlog."""
    return Bench()


def test_the_newest_version_wins(bench: Bench) -> None:
    """Several versions of an item are encoded once, and all their records are settled by it."""
    first, second = bench.record("a", "old"), bench.record("a", "new")
    third = bench.record("a", "newest")
    bench.admit(first, second)
    bench.admit(third)
    (job,) = bench.backlog.take(100)
    assert (job.text, job.record) == ("newest", third)
    assert job.positions == [first.position, second.position, third.position]
    assert bench.tokenized == ["new", "newest"]


def test_an_unchanged_item_is_skipped(bench: Bench) -> None:
    """The hash of the text decides, whatever else changed in the snapshot."""
    bench.encoded("a", "same")
    record = bench.record("a", "same")
    admission = bench.admit(record)
    assert (admission.settled, dict(admission.outcomes)) == ([record.position], {"unchanged": 1})
    assert not bench.waiting()


def test_changed_and_changed_back_is_nothing(bench: Bench) -> None:
    """The change that waits is dropped when the text on the topic is right again."""
    bench.encoded("a", "first")
    change, back = bench.record("a", "second"), bench.record("a", "first")
    admission = bench.admit(change, back)
    assert admission.settled == [change.position, back.position]
    assert not bench.waiting()


def test_a_tombstone_deletes_the_vector(bench: Bench) -> None:
    """It cancels what waits, goes out even where no vector is known, and the item counts as new afterwards."""
    bench.encoded("a", "text")
    change, gone = bench.record("a", "other"), bench.record("a", None)
    admission = bench.admit(change, gone, bench.record("b", None))
    assert admission.gone == ["a", "b"]
    assert admission.settled[:2] == [change.position, gone.position]
    bench.admit(bench.record("a", "text"))
    assert bench.waiting() == [("a", "text")]


def test_an_item_without_text_has_no_vector(bench: Bench) -> None:
    """Nothing is published for it, unless a vector of an earlier text has to go."""
    bench.encoded("b", "text")
    admission = bench.admit(bench.record("a", " "), bench.record("b", ""))
    assert (admission.gone, dict(admission.outcomes)) == (["b"], {"no_text": 2})
    assert not bench.waiting()


def test_a_bad_record_is_refused_and_the_rest_goes_on(bench: Bench) -> None:
    """The dead letter has the place and the original bytes; the record is settled once it is out."""
    bad = Record(Position("items", 0, 77), shop=True, key=b"x", value=b"{nope")
    admission = bench.admit(bad, bench.record("a", "text"))
    (letter,) = admission.refused
    assert (letter.topic, letter.partition, letter.offset, letter.value) == ("items", 0, 77, b"{nope")
    assert (letter.reason, letter.time_ms, admission.settled) == ("not_json", 1_000, [bad.position])
    assert bench.waiting() == [("a", "text")]


def test_the_shop_goes_before_sightings(bench: Bench) -> None:
    """A sighting counts only while `items` says nothing: not beside a waiting, encoded or textless shop item."""
    bench.encoded("encoded", "by the shop")
    bench.admit(bench.record("waiting", "by the shop"), bench.record("silent", ""))
    admission = bench.admit(*(bench.record(name, "seen", shop=False) for name in ("encoded", "waiting", "silent")))
    assert admission.outcomes == {"superseded": 3}
    bench.admit(bench.record("unknown", "seen", shop=False))
    assert bench.waiting() == [("waiting", "by the shop"), ("unknown", "seen")]


def test_the_shops_snapshot_replaces_a_sighting(bench: Bench) -> None:
    """Even with the same text it is published once more, as the shop's, and then holds against sightings."""
    bench.encoded("a", "text", shop=False)
    assert bench.admit(bench.record("a", "text", shop=False)).outcomes == {"unchanged": 1}
    bench.admit(bench.record("a", "text"))
    assert bench.waiting() == [("a", "text")]
    bench.encoded("a", "text")
    assert bench.admit(bench.record("a", "other", shop=False)).outcomes == {"superseded": 1}


def test_the_oldest_item_is_in_the_next_batch(bench: Bench) -> None:
    """Batches are of similar length, but a long text is not overtaken forever by short ones."""
    bench.admit(bench.record("long", "w " * 50), *(bench.record(f"s{i}", f"{i}") for i in range(5)))
    assert [job.item_id for job in bench.backlog.take(60)] == ["long"]
    assert len(bench.backlog.take(60)) == 5


def test_a_batch_put_back_is_first_again(bench: Bench) -> None:
    """What could not be published is encoded again before anything newer."""
    bench.admit(bench.record("a", "one"), bench.record("b", "one two three"))
    batch = bench.backlog.take(1)
    bench.backlog.put_back(bench.backlog.land(batch))
    assert [item_id for item_id, _ in bench.waiting()] == ["a", "b"]


def test_a_lost_partition_takes_its_items_along(bench: Bench) -> None:
    """Its items are dropped; a sighting that waited for one of them is settled, because the shop's version wins."""
    sighting = bench.record("a", "seen", shop=False)
    bench.admit(sighting, bench.record("a", "by the shop"), bench.record("b", "seen", shop=False))
    assert bench.backlog.drop({("items", 0)}) == [sighting.position]
    assert bench.waiting() == [("b", "seen")]


class Message:
    """What the seen set reads of a Kafka message."""

    def __init__(self, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> None:
        self._fields = (key, value, headers)

    def key(self) -> bytes:
        """Record key."""
        return self._fields[0]

    def value(self) -> bytes | None:
        """Record value."""
        return self._fields[1]

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Record headers."""
        return self._fields[2]

    def partition(self) -> int:
        """Partition number."""
        return 0


def test_the_seen_set_is_read_from_the_vectors(bench: Bench) -> None:
    """Own fingerprint only, the newest record counts, tombstones forget, damaged records count as not encoded."""
    vector = np.array([0.6, 0.8], np.float32)
    old, new = encode_vector(content_hash("old"), vector), encode_vector(content_hash("new"), vector)
    bench.seen._take([
        Message(vector_key(FINGERPRINT, "a"), old),
        Message(vector_key(FINGERPRINT, "a"), new),
        Message(vector_key("f" * 16, "other"), new),
        Message(vector_key(FINGERPRINT, "gone"), new),
        Message(vector_key(FINGERPRINT, "gone"), None),
        Message(vector_key(FINGERPRINT, "damaged"), new[:-1]),
        Message(vector_key(FINGERPRINT, "sighted"), new, [(SOURCE_HEADER, SIGHTING)]),
    ])  # fmt: skip
    assert len(bench.seen) == 2
    assert bench.seen.current("a", content_hash("new"), shop=True)
    assert bench.seen.shop_owns("a")
    assert bench.seen.current("sighted", content_hash("new"), shop=False)
    assert not bench.seen.shop_owns("sighted")


def test_a_change_waits_for_the_version_that_is_encoded(bench: Bench) -> None:
    """Two versions of an item are never encoded at once, and the older one counts until the newer is out."""
    first, second = bench.record("a", "old"), bench.record("a", "new")
    bench.admit(first)
    (old,) = bench.backlog.take(100)
    bench.admit(second)
    assert bench.backlog.take(100) == []
    assert bench.backlog.land([old]) == [old]
    assert old.positions == [first.position]
    (new,) = bench.backlog.take(100)
    assert (new.text, new.positions) == ("new", [second.position])


def test_the_same_text_joins_the_one_that_is_encoded(bench: Bench) -> None:
    """Its record is settled with that vector; a change in between that was taken back is settled too."""
    records = [bench.record("a", "text"), bench.record("a", "change"), bench.record("a", "text")]
    bench.admit(records[0])
    (job,) = bench.backlog.take(100)
    bench.admit(*records[1:])
    assert not len(bench.backlog)
    assert bench.backlog.land([job]) == [job]
    assert job.positions == [record.position for record in records]


@pytest.mark.parametrize("title", [None, " ", "first"])
def test_what_is_encoded_and_no_longer_true_is_not_published(bench: Bench, title: str | None) -> None:
    """Deleted, emptied or changed back while the device works: the vector would be wrong for good."""
    bench.encoded("a", "first")
    change, end = bench.record("a", "second"), bench.record("a", title)
    bench.admit(change)
    batch = bench.backlog.take(100)
    admission = bench.admit(end)
    assert admission.settled == [change.position, end.position]
    assert bench.backlog.land(batch) == []


def test_what_is_encoded_goes_with_its_partition(bench: Bench) -> None:
    """Whoever has the partition now encodes it."""
    bench.admit(bench.record("a", "text"))
    batch = bench.backlog.take(100)
    assert bench.backlog.drop({("items", 0)}) == []
    assert bench.backlog.land(batch) == []


def test_a_newer_version_takes_over_what_is_put_back(bench: Bench) -> None:
    """The older text is not encoded again; its record is settled by the newer vector."""
    first, second = bench.record("a", "old"), bench.record("a", "new")
    bench.admit(first)
    batch = bench.backlog.take(100)
    bench.admit(second)
    bench.backlog.put_back(bench.backlog.land(batch))
    (job,) = bench.backlog.take(100)
    assert (job.text, job.positions) == ("new", [first.position, second.position])


def test_an_item_without_tokens_is_not_taken(bench: Bench) -> None:
    """It waits for the tokenizer, and so does nobody behind it."""
    (job,) = bench.backlog.admit([bench.record("slow", "text")]).fresh
    bench.admit(bench.record("quick", "text"))
    assert [taken.item_id for taken in bench.backlog.take(100)] == ["quick"]
    job.tokens = [1]
    assert bench.backlog.take(100) == [job]


def test_live_items_go_before_bulk(bench: Bench) -> None:
    """A batch is of one lane; bulk has every fourth turn, and its own budget."""
    bench.admit(*(bench.record(f"b{number}", f"b{number}") for number in range(6)), bulk=True)
    bench.admit(*(bench.record(f"l{number}", f"l{number}", ahead=True) for number in range(5)))
    assert (len(bench.backlog), bench.backlog.live) == (11, 5)
    batches = [[job.item_id for job in bench.backlog.take(1)] for _ in range(6)]
    assert batches == [["l0"], ["l1"], ["l2"], ["b0"], ["l3"], ["l4"]]
    assert [job.item_id for job in bench.backlog.take(100, None, 2)] == ["b1", "b2"]
    assert [job.item_id for job in bench.backlog.take(100)] == ["b3", "b4", "b5"]


def test_bulk_may_have_to_wait(bench: Bench) -> None:
    """With no budget none of it is taken, live items are."""
    bench.admit(bench.record("b", "b"), bulk=True)
    bench.admit(bench.record("l", "l", ahead=True))
    batches = [[job.item_id for job in bench.backlog.take(100, None, 0)] for _ in range(2)]
    assert batches == [["l"], []]
    assert [job.item_id for job in bench.backlog.take(100)] == ["b"]


def test_what_lies_behind_is_forgotten(bench: Bench) -> None:
    """A version that was read ahead and compacted away before its turn bars nothing for ever."""
    bench.admit(bench.record("a", "a", ahead=True), bench.record("b", "b", ahead=True))
    bench.backlog.forget_passed({("items", 0): 1})
    assert bench.backlog.ahead == 1
    bench.backlog.forget_passed({("items", 0): 2})
    assert bench.backlog.ahead == 0


def test_what_is_read_ahead_outruns_older_versions(bench: Bench) -> None:
    """Older ones are passed over when their turn comes, also after a deletion; its own turn finds it done."""
    olds = [bench.record(name, "old") for name in "ab"]
    news = [bench.record("a", "new", ahead=True), bench.record("b", None, ahead=True)]
    admission = bench.admit(*news)
    assert (admission.settled, admission.gone, bench.backlog.ahead) == ([], ["b"], 2)
    assert bench.waiting() == [("a", "new")]
    bench.encoded("a", "new")
    admission = bench.admit(*olds, bulk=True)
    assert (admission.settled, dict(admission.outcomes)) == ([old.position for old in olds], {"superseded": 2})
    admission = bench.admit(*(record._replace(ahead=False, counted=True) for record in news), bulk=True)
    assert dict(admission.outcomes) == {}
    assert (admission.settled, bench.backlog.ahead) == ([new.position for new in news], 0)
    assert not bench.waiting()


def test_a_live_version_takes_over_what_waits(bench: Bench) -> None:
    """The older record is settled with the newer text, which needs no record of its own: it comes again."""
    old = bench.record("a", "old")
    bench.admit(old, bench.record("b", "b"), bulk=True)
    bench.admit(bench.record("a", "new", ahead=True))
    (job,) = bench.backlog.take(100)
    assert (job.text, job.positions, job.bulk) == ("new", [old.position], False)


def test_a_bad_record_waits_for_its_turn(bench: Bench) -> None:
    """Read ahead it is passed over, so that it is refused once."""
    bad = Record(Position("items", 0, 77), shop=True, key=b"x", value=b"{nope", ahead=True)
    admission = bench.admit(bad)
    assert (admission.refused, admission.settled, dict(admission.outcomes)) == ([], [], {"refused": 1})
    admission = bench.admit(bad._replace(ahead=False, counted=True))
    assert (len(admission.refused), admission.settled, dict(admission.outcomes)) == (1, [bad.position], {})


def test_demoted_items_wait_behind_live_ones(bench: Bench) -> None:
    """What waits when a backlog is noticed is part of it."""
    bench.admit(bench.record("a", "a"), bench.record("b", "b"))
    bench.backlog.demote()
    bench.admit(bench.record("c", "c"))
    assert [[job.item_id for job in bench.backlog.take(100)] for _ in range(2)] == [["c"], ["a", "b"]]


def test_lost_partitions_forget_what_was_read_ahead(bench: Bench) -> None:
    """Whoever has the partition now reads it from its last commit, as we do if it comes back."""
    old, new = bench.record("a", "old"), bench.record("a", "new", ahead=True)
    bench.admit(new)
    assert bench.backlog.drop({("items", 0)}) == []
    assert (len(bench.backlog), bench.backlog.ahead) == (0, 0)
    bench.admit(old)
    assert bench.waiting() == [("a", "old")]


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    """A folder of files that look like images from outside."""
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(b"image %d" % number)
    found = Images(Settings(image_root=tmp_path), read_preprocessing({}, 16, "file"))
    yield found
    found.close()


class Gallery(Bench):
    """A bench whose items may have images."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.backlog = Backlog(self.seen, lambda: 1_000, images)

    def item(self, item_id: str, title: str, image_url: str, *, ahead: bool = False) -> Record:
        """Return a snapshot with an image."""
        value = Item(item_id, title=title, image_url=image_url).encode()
        return self.record(item_id, title, ahead=ahead)._replace(value=value)

    def load(self, *records: Record, bulk: bool = False) -> None:
        """Admit, and give each job with an image some pixels."""
        for job in self.admit(*records, bulk=bulk).fresh:
            job.pixels = None if job.image is None else np.zeros((3, 16, 16), np.uint8)


def test_an_image_is_part_of_what_is_encoded(images: Images) -> None:
    """The same text with an image, another one, or a changed one is another content; the same of both is unchanged."""
    bench = Gallery(images)
    hashes = []
    for url in ("", "0.png", "1.png", "none.png"):
        bench.load(bench.item("a", "mug", url))
        (job,) = bench.backlog.land(bench.backlog.take(100))
        hashes.append(job.content_hash)
    assert hashes[0] == hashes[3] == content_hash("mug")  # an image that is not there is none
    assert len(set(hashes)) == 3
    bench.seen.put("a", hashes[1], shop=True)
    assert bench.admit(bench.item("a", "mug", "0.png")).outcomes == {"unchanged": 1}
    assert bench.backlog.images == 0


def test_images_have_a_budget_of_their_own(images: Images) -> None:
    """A batch holds so many at most, oldest first, and any number of texts beside them; bulk ones by their share."""
    bench = Gallery(images)
    mixed = [bench.item(f"a{number}", "mug", f"{number}.png" if number % 2 else "") for number in range(8)]
    bench.load(*mixed)
    assert bench.backlog.images == 4
    taken = [job.item_id for job in bench.backlog.take(100, budget_images=2)]
    assert taken == ["a0", "a1", "a2", "a3", "a4", "a6"]
    assert [job.item_id for job in bench.backlog.take(100, budget_images=2)] == ["a5", "a7"]
    bench.load(*(bench.item(f"b{number}", "", f"{number}.png") for number in range(6)), bulk=True)
    sizes = [len(bench.backlog.take(100, None, bulk, 5, 50)) for bulk in (120, 10, None)]
    assert sizes == [2, 1, 3]


def test_a_bad_image_is_told_and_alone_refused(images: Images) -> None:
    """With a text the item is its text; without one it goes to dead-letters, once, and its vector is deleted."""
    bench = Gallery(images)
    for name in ("silent", "worded"):
        bench.encoded(name, "before")
    worded, silent = bench.item("worded", "mug", "none.png"), bench.item("silent", "", "http://shop.example/1.png")
    admission = bench.admit(worded, silent._replace(ahead=True))
    assert [(job.item_id, job.image) for job in admission.fresh] == [("worded", None)]
    assert [(item_id, problem.outcome) for item_id, problem in admission.unusable] == [
        ("worded", "missing"),
        ("silent", "refused"),
    ]
    assert (admission.refused, admission.gone, admission.settled) == ([], ["silent"], [])
    again = bench.admit(silent)
    (letter,) = again.refused
    assert (letter.reason, letter.offset) == ("bad_image", silent.position.offset)
    assert again.settled == [silent.position]
