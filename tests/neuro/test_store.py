"""A result appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap

import pytest

from neuro.errors import StoreError
from neuro.runner import files
from neuro.runner.store import MANIFEST, Ref, Store

REF = Ref("toy", "0123456789abcdef")


def put(store: Store, text: str = "content", ref: Ref = REF) -> None:
    with store.lock(ref), store.write(ref, {"returns": "table"}) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "data").write_text(text)
        (folder / "metrics.json").write_text("{}")


def put_half(store: Store, error: BaseException) -> None:
    with store.lock(REF), store.write(REF, {}) as folder:
        (folder / "data").write_text("half")
        raise error


def left_over(store: Store) -> list[str]:
    folder = store.folder(REF).parent
    return [path.name for path in folder.glob("*")] if folder.exists() else []


def test_a_result_has_a_manifest_with_checksums(tmp_path):
    store = Store(tmp_path)
    assert not store.has(REF)
    put(store)
    manifest = Store(tmp_path).get(REF)
    assert manifest["schema_version"] == 1
    assert set(manifest["checksums"]) == {"deep/data", "metrics.json"}
    assert left_over(store) == [REF.key]
    store.verify(REF)


def test_the_digest_is_of_the_artefact_not_of_what_was_reported(tmp_path):
    stores = [Store(tmp_path / name) for name in "abc"]
    for store, text in zip(stores, ("same", "same", "other"), strict=True):
        put(store, text)
    digests = [store.get(REF)["digest"] for store in stores]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_error_leaves_nothing(tmp_path, error):
    store = Store(tmp_path)
    with pytest.raises(type(error)):
        put_half(store, error)
    assert left_over(store) == []
    assert not store.has(REF)


def test_an_error_keeps_the_result_that_was_there(tmp_path):
    store = Store(tmp_path)
    put(store, "old")
    with pytest.raises(RuntimeError), store.lock(REF), store.write(REF, {}):
        raise RuntimeError
    assert (store.folder(REF) / "deep" / "data").read_text() == "old"
    assert store.has(REF)


def test_what_a_killed_process_left_is_ignored_and_removed(tmp_path):
    store = Store(tmp_path)
    half = store.folder(REF)
    for name in (half, half.with_name(f"{REF.key}.tmp-1-x"), half.with_name(f"{REF.key}.old-1")):
        name.mkdir(parents=True)
        (name / "data").write_text("half")
    assert not store.has(REF)
    assert store.refs() == []
    put(store)
    assert left_over(store) == [REF.key]
    assert store.refs() == [REF]


def _break_manifest(folder):
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])


def _shorten(folder):
    (folder / "deep" / "data").write_text("c")


def _lose(folder):
    (folder / "deep" / "data").unlink()


def _other_schema(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))


def _other_key(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "key": "feed"}))


@pytest.mark.parametrize("damage", [_break_manifest, _shorten, _lose, _other_schema, _other_key])
def test_a_damaged_result_does_not_count_and_is_made_again(tmp_path, damage):
    put(Store(tmp_path))
    damage(Store(tmp_path).folder(REF))
    assert not Store(tmp_path).has(REF)
    with pytest.raises(StoreError, match="missing or damaged"):
        Store(tmp_path).open(REF)
    put(Store(tmp_path))
    assert Store(tmp_path).has(REF)


def test_changed_content_of_equal_size_is_found_when_opened(tmp_path):
    store = Store(tmp_path)
    put(store)
    (store.folder(REF) / "deep" / "data").write_text("CONTENT")
    with pytest.raises(StoreError, match=r"deep/data: the content does not match its checksum"):
        store.open(REF)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full; free space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no right to write"),
    ],
)
@pytest.mark.parametrize("where", ["flush", "write_json", "swap_in"])
def test_a_full_or_read_only_disk_is_told_and_leaves_nothing(
    tmp_path, monkeypatch, code, says, where
):
    store = Store(tmp_path)

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(f"neuro.runner.store.{where}", fail)
    with pytest.raises(StoreError, match=says) as caught:
        put(store)
    assert str(tmp_path) in str(caught.value)
    assert "--cache" in str(caught.value)
    assert left_over(store) == []


def test_an_unwritable_cache_is_told_before_anything_runs(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="give another folder with --cache"):
        Store(file / "cache").ensure_writable()


def test_a_file_size_limit_leaves_nothing_half_written(tmp_path):
    code = """
        import resource, sys
        from neuro.errors import StoreError
        from neuro.runner.store import Ref, Store
        store = Store(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with store.lock(Ref("toy", "k")), store.write(Ref("toy", "k"), {}) as folder:
                (folder / "data").write_bytes(b"x" * 10000)
        except StoreError as error:
            print(error)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "file size limit" in told.stdout
    assert list((tmp_path / "results" / "toy").iterdir()) == []


WRITE_WHEN_FREE = """
import sys
from neuro.runner.store import Ref, Store
store, ref = Store(sys.argv[1]), Ref("toy", "k")
with store.lock(ref):
    if not store.has(ref):
        print(sys.argv[2])
        with store.write(ref, {}) as folder:
            (folder / "data").write_text(sys.argv[2])
"""


def test_two_at_once_make_one_result(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_WHEN_FREE, str(tmp_path), f"by {i}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    told = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    (made,) = filter(None, told)
    assert (Store(tmp_path).folder(Ref("toy", "k")) / "data").read_text() == made


def test_waiting_for_a_lock_is_told(tmp_path):
    store = Store(tmp_path)
    import threading

    waiting = threading.Event()

    def second():
        with Store(tmp_path).lock(REF, waiting.set):
            pass

    with store.lock(REF):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
    thread.join(30)
    assert not thread.is_alive()


def test_scratch_survives_until_the_result_is_in(tmp_path):
    store = Store(tmp_path)
    store.scratch(REF).mkdir(parents=True)
    with pytest.raises(RuntimeError), store.lock(REF), store.write(REF, {}):
        raise RuntimeError
    assert store.scratch(REF).exists()
    put(store)
    assert not store.scratch(REF).exists()


def test_scorings_are_counted_once_for_each_result(tmp_path):
    store, other = Store(tmp_path), Ref("toy", "other")
    store.count_scored(REF, {"split": 2})
    store.count_scored(REF, {"split": 2})
    store.count_scored(other, {"split": 1, "second": 1})
    assert Store(tmp_path).scored() == {"second": 1, "split": 3}


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StoreError, match="the disk is full"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
