"""`benchmarks/quality.py` on a small data set: its shape, that the product wins there, and that no future leaks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import quality, quality_parts
from benchmarks import quality_paired as paired
from benchmarks import quality_plain as plain
from benchmarks import quality_product as ours
from benchmarks.quality_data import BadFeedback, Feedback, best, cut, earlier, folders, measured, read, split
from tests.support.behaving import N_CIRCLES, N_ITEMS, habits
from tests.support.tiny_encoder import TinyEncoder

ROOT = Path(__file__).resolve().parents[2]
METRICS = {"recall20", "ndcg20", "coverage", "novelty", "diversity"}
METHODS = {"random", "popular", "recent-popular", "item-knn", "als", "ease", "text", "product", "cold"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of habits in the form of the real ones."""
    made = tmp_path_factory.mktemp("feedback") / "habits"
    made.mkdir()
    log = habits(users=300, each=12)
    order = np.argsort(log.user, kind="stable")
    place = np.empty(len(log), int)
    place[order] = np.arange(len(log)) % 12
    loo = np.select([place == 11, place == 10], ["test", "valid"], "train")
    share = np.arange(len(log)) / len(log)
    events = {
        "user_id": [f"u{user}" for user in log.user.tolist()],
        "item_id": [f"i{item}" for item in log.item.tolist()],
        "ts": log.at_s.tolist(),
        "rating_raw": np.full(len(log), 4.0, np.float32),
        "signal": np.full(len(log), 0.8, np.float32),
        "like": np.ones(len(log), bool),
        "dislike": np.zeros(len(log), bool),
        "split_loo": loo.tolist(),
        "split_time": np.select([share >= 0.9, share >= 0.8], ["test", "valid"], "train").tolist(),
    }
    items = {
        "item_id": [f"i{item}" for item in range(N_ITEMS)],
        "title": [f"film {item}" for item in range(N_ITEMS)],
        "year": [2000] * N_ITEMS,
        "genres": [["Drama"]] * N_ITEMS,
        "tags": [[]] * N_ITEMS,
        "first_ts": [0] * N_ITEMS,
    }
    pq.write_table(pa.table(events), made / "interactions.parquet")
    pq.write_table(pa.table(items), made / "items.parquet")
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Feedback:
    """The same, read."""
    return read(folder)


def test_the_last_line_is_one_json_object_and_the_product_is_best(folder: Path) -> None:
    """{dataset: {split: {method: {metric: value}}}}, on a folder of data sets as on one; behaviour carries this one."""
    command = [sys.executable, "benchmarks/quality.py", "--data", str(folder.parent), "--json"]
    command += ["--model", "python:tests.support.tiny_encoder:TinyEncoder"]
    done = run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report = orjson.loads(done.stdout.splitlines()[-1])
    assert set(report) == {"habits"} and set(report["habits"]) == {"split_loo", "split_time"}
    for methods in report["habits"].values():
        assert set(methods) >= METHODS
        assert all(set(metrics) >= METRICS for metrics in methods.values())
        for metric in ("recall20", "ndcg20"):
            plain_best = max(methods[name][metric] for name in METHODS - {"product", "cold", "text"})
            assert methods["product"][metric] >= plain_best - methods["product"][f"{metric}_ci"]
    loo = report["habits"]["split_loo"]
    assert loo["product"]["recall20"] > 2 * loo["popular"]["recall20"]
    assert folders(folder) == [folder]


def test_what_is_asked_about_changes_no_list(data: Feedback, tmp_path: Path) -> None:
    """Other answers, other test events: the same lists, of the product and of every plain method."""
    text = ours.encoded(TinyEncoder(), data)
    asked = split(data, "split_time")
    other = replace(asked.data, item=np.where(asked.known, data.item, (data.item + 7) % N_ITEMS))
    blind = replace(asked, data=other, answers=[np.zeros(1, np.int64)] * len(asked.users))
    for method in (plain.popular, plain.item_knn, plain.als, plain.ease):
        assert np.array_equal(method(asked), method(blind))
    pages = [
        ours.product(one, text, ours.model(one, text), tmp_path / name) for name, one in (("a", asked), ("b", blind))
    ]
    assert np.array_equal(pages[0], pages[1])


def test_later_events_of_others_are_not_counted_yet(data: Feedback, tmp_path: Path) -> None:
    """A page served at a moment is the same whatever happens after it."""
    text = ours.encoded(TinyEncoder(), data)
    asked = split(data, "split_loo")
    first = replace(asked, users=asked.users[:20], answers=asked.answers[:20], asked_s=asked.asked_s[:20])
    later = data.at_s > first.asked_s[-1]
    changed = replace(data, item=np.where(later, (data.item + 1) % N_ITEMS, data.item))
    one = ours.product(first, text, None, tmp_path / "a")
    two = ours.product(replace(first, data=changed), text, None, tmp_path / "b")
    assert np.array_equal(one, two)


def test_lists_hold_no_item_twice_and_none_that_was_seen(data: Feedback, tmp_path: Path) -> None:
    """Twenty different unseen items each, and the measures of a perfect and an empty-handed list."""
    text = ours.encoded(TinyEncoder(), data)
    asked = split(data, "split_loo")
    for page, seen in zip(ours.product(asked, text, ours.model(asked, text), tmp_path), asked.seen, strict=True):
        assert len(set(page.tolist())) == 20 and not set(page.tolist()) & set(seen.tolist())
    perfect = [np.concatenate([answers, best(np.ones(N_ITEMS), answers)])[:20] for answers in asked.answers]
    assert measured(asked, perfect, text)["recall20"] == measured(asked, perfect, text)["ndcg20"] == 1
    assert measured(asked, [best(np.ones(N_ITEMS), a) for a in asked.answers], text)["recall20"] == 0
    assert N_CIRCLES * 20 == N_ITEMS


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Next to nothing: fifteen odd items, a user with one event, an item nobody describes, no optional column."""
    made = tmp_path / "small"
    made.mkdir()
    ids = [f"{odd}{number}" for number, odd in enumerate(("ü/", "a'b\"c", "☃", "%2F\t", "") * 3)]
    rows = [(f"who {user}", ids[(user * 3 + place) % 15], 10**9 + user + 60 * place, place)
            for user in range(9) for place in range(6)]  # fmt: skip
    rows.append(("once", ids[0], 10**9, 0))
    user, item, ts, place = (list(column) for column in zip(*rows, strict=True))
    loo = [{5: "test", 4: "valid"}.get(at, "train") for at in place]
    pq.write_table(
        pa.table({"user_id": user, "item_id": item, "ts": ts, "split_loo": loo}), made / "interactions.parquet"
    )
    pq.write_table(pa.table({"item_id": ids[:-1]}), made / "items.parquet")
    return made


def test_a_small_folder_with_odd_names_and_few_columns_is_measured_by_texts_alone(small: Path) -> None:
    """Every method answers, with what there is: fewer items than a page holds."""
    said: list[str] = []
    report = quality.run(small, TinyEncoder(), said.append)
    methods = report["small"]["split_loo"]
    assert set(methods) >= METHODS and methods["popular"]["recall20"] == methods["product"]["recall20"] == 1
    assert any("nothing, too few events" in line for line in said)


def test_a_window_is_chosen_on_what_is_known_where_a_split_has_no_part_for_it(data: Feedback) -> None:
    """Other answers do not change the window of the recently popular."""
    of = np.where(data.splits["split_time"] == "test", "test", "train")
    asked = split(replace(data, splits={"split_user80": of}), "split_user80")
    other = replace(asked.data, item=np.where(asked.known, data.item, (data.item + 7) % N_ITEMS))
    assert plain.recent_days(asked) == plain.recent_days(replace(asked, data=other))


def test_a_cut_asks_about_the_training_part_alone(data: Feedback) -> None:
    """What is asked comes right after what is known, and nothing of it is in the parts that are chosen or tested on."""
    asked, training = split(cut(data, 0.5), "split_time"), data.splits["split_time"] == "train"
    of = asked.data.splits["split_time"]
    assert set(of[~training]) == {"later"} and set(of[training]) == {"train", "valid", "test", "later"}
    assert asked.known.sum() == training.sum() // 2
    assert data.at_s[asked.known].max() <= data.at_s[of == "test"].min()
    last = cut(data, 1).splits["split_time"]
    assert set(last[data.splits["split_time"] == "test"]) == {"later"}
    assert set(data.splits["split_time"][last == "test"]) == {"valid"}


def test_choosing_neither_knows_nor_asks_about_the_test_part(data: Feedback) -> None:
    """Asked is the valid part, or the last fifth of each user's known events; what was the test part is in no list."""
    loo, user80 = data.splits["split_loo"], np.where(data.splits["split_loo"] == "test", "test", "train")
    blind = earlier(replace(data, splits={"split_loo": loo, "split_user80": user80}))
    for of in blind.splits.values():
        assert set(of[loo == "test"]) == {"later"}
    assert np.array_equal(blind.splits["split_loo"] == "test", loo == "valid")
    for user in range(data.n_users):
        mine = blind.splits["split_user80"][data.user == user]
        assert mine.tolist() == ["train"] * 9 + ["test"] * 2 + ["later"]  # of 11 that are known, 80 % are 8.8
    asked = split(blind, "split_user80")
    assert not (asked.known & (loo == "test")).any() and len(asked.users) == data.n_users


def test_two_methods_are_compared_user_by_user_at_each_moment_and_at_all_together(folder: Path) -> None:
    """The first line says the same as the table; what a method is better by than itself is nothing."""
    said: list[str] = []
    encoder = TinyEncoder()
    paired.run(folder, encoder, said.append, ("product", "popular"), [0.7, 0.9])
    assert [line.split(",")[0] for line in said] == ["habits cut 0.7", "habits cut 0.9", "habits all cuts"]
    table = quality.run(folder, encoder, lambda _line: None, 0.7)["habits"]["split_time"]
    first, second = (f"{table[method]['recall20']:.4f}" for method in ("product", "popular"))
    assert f"Recall@20 {first} - {second} = " in said[0]
    said.clear()
    paired.run(folder, encoder, said.append, ("popular", "popular"), [])
    assert len(said) == 2 and all("= +0.0000 (+0.0000 to +0.0000)" in line for line in said)
    for wanted, problem in ((("product", "best"), "best is none of random"), (("product", "cold"), "different users")):
        with pytest.raises(BadFeedback, match=problem):
            paired.run(folder, encoder, said.append, wanted, [0.7])


def test_an_interval_covers_the_mean_and_draws_a_user_who_was_asked_twice_as_one() -> None:
    """Two hundred users of mean 0.1: the interval has the width of theory. Asked twice, they say no more than once."""
    difference = np.random.default_rng(0).normal(0.1, 1, (200, 2))
    once = paired.interval(np.arange(200), difference)
    width = 2 * 1.96 * difference.std(axis=0) / np.sqrt(200)
    assert np.allclose(once[1] - once[0], width, rtol=0.1)
    assert (once[0] < difference.mean(axis=0)).all() and (difference.mean(axis=0) < once[1]).all()
    assert np.allclose(paired.interval(np.tile(np.arange(200), 2), np.tile(difference, (2, 1))), once)


@pytest.mark.parametrize(
    ("file", "table", "problem"),
    [
        ("items.parquet", None, "items.parquet: is missing"),
        ("interactions.parquet", {"user_id": ["a"], "item_id": ["b"]}, "column ts is missing"),
        ("interactions.parquet", {"user_id": ["a"], "item_id": ["b"], "ts": [1]}, "none of the columns split_loo"),
        ("interactions.parquet", {"user_id": ["a"], "item_id": [None], "ts": [1]}, "item_id has 1 empty rows"),
        (
            "interactions.parquet",
            {"user_id": ["a"], "item_id": ["b"], "ts": ["x"], "split_loo": ["test"]},
            "unix seconds",
        ),
        ("items.parquet", {"id": ["b"]}, "column item_id is missing, there are id"),
    ],
)
def test_what_cannot_be_read_is_named(
    small: Path, file: str, table: dict[str, list[object]] | None, problem: str
) -> None:
    """The file, the column, and what is wanted."""
    (small / file).unlink()
    if table is not None:
        pq.write_table(pa.table(table), small / file)
    with pytest.raises(BadFeedback, match=problem):
        quality.run(small, TinyEncoder(), lambda _line: None)


def test_a_folder_without_feedback_or_without_events_is_named(small: Path, tmp_path: Path) -> None:
    """Nothing there, no Parquet at all, no row in it."""
    with pytest.raises(BadFeedback, match="neither it nor a folder"):
        folders(tmp_path / "nowhere")
    events = pq.read_table(small / "interactions.parquet")
    pq.write_table(events.slice(0, 0), small / "interactions.parquet")
    with pytest.raises(BadFeedback, match="holds no event"):
        read(small)
    (small / "interactions.parquet").write_bytes(b"junk")
    with pytest.raises(BadFeedback, match="is no Parquet file"):
        read(small)


def test_parts_are_data_sets_of_the_same_form(folder: Path, tmp_path: Path) -> None:
    """A sixth of the users with all they did; items of the later years with all that was done with them."""
    whole = read(folder)
    sixth, later = [read(part) for part in quality_parts.run(folder, tmp_path)]
    assert 0 < sixth.n_users < whole.n_users / 3 and sixth.n_items == whole.n_items
    assert len(sixth.user) == 12 * sixth.n_users
    assert (later.n_users, later.n_items, len(later.user)) == (whole.n_users, N_ITEMS, len(whole.user))
    (folder / "items.parquet").rename(tmp_path / "kept")
    try:
        dated = pq.read_table(tmp_path / "kept")
        years = pa.array([1999 + number % 2 for number in range(N_ITEMS)])
        pq.write_table(dated.set_column(dated.column_names.index("year"), "year", years), folder / "items.parquet")
        _, later = [read(part) for part in quality_parts.run(folder, tmp_path)]
        assert later.n_items == N_ITEMS // 2 and 0 < len(later.user) < len(whole.user)
    finally:
        (tmp_path / "kept").replace(folder / "items.parquet")
