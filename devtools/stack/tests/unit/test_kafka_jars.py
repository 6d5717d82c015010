import hashlib

import pytest
from quill_stack import kafka_jars
from quill_stack.errors import StackError
from quill_stack.kafka_jars import KAFKA_VERSION, Jar, differences, ensure_jars, frozen_manifest, parse_manifest
from quill_stack.progress import Progress

QUIET = Progress(quiet=True)


def jar(content: bytes, artifact: str = "one") -> Jar:
    return Jar(sha256=hashlib.sha256(content).hexdigest(), group="org.example", artifact=artifact, version="1.0")


def test_the_frozen_manifest_holds_the_broker_of_the_stated_version():
    manifest = frozen_manifest()
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in {entry.filename for entry in manifest}
    assert len(manifest) == 46
    assert all(len(entry.sha256) == 64 for entry in manifest)


@pytest.mark.parametrize(
    "text",
    ["abc  org.example:one:1.0", f"{'0' * 64}  org.example:one", f"{'0' * 64}  a:one:1\n{'1' * 64}  b:one:1"],
    ids=["short digest", "no version", "same file twice"],
)
def test_a_manifest_of_another_shape_is_refused(text: str):
    with pytest.raises(ValueError, match=r"sha256|unpack|twice"):
        parse_manifest(text)


def test_files_that_match_have_no_differences(tmp_path):
    (tmp_path / "one-1.0.jar").write_bytes(b"content")
    assert differences(tmp_path, [jar(b"content")]) == []


def test_every_difference_is_named(tmp_path):
    (tmp_path / "one-1.0.jar").write_bytes(b"changed")
    (tmp_path / "stray-1.0.jar").write_bytes(b"stray")
    found = differences(tmp_path, [jar(b"content"), jar(b"other", "two")])
    assert [sentence.split()[0] for sentence in found] == ["stray-1.0.jar", "one-1.0.jar", "two-1.0.jar"]


def test_a_changed_jar_in_the_cache_is_refused_and_not_replaced(tmp_path, monkeypatch):
    libs = tmp_path / f"kafka-{KAFKA_VERSION}" / "libs"
    libs.mkdir(parents=True)
    (libs / "one-1.0.jar").write_bytes(b"changed")
    monkeypatch.setattr(kafka_jars, "_download", lambda *_: pytest.fail("downloaded over a suspicious file"))
    with pytest.raises(StackError, match=r"one-1\.0\.jar has sha256"):
        ensure_jars(tmp_path, QUIET, jars=[jar(b"content")])
    assert (libs / "one-1.0.jar").read_bytes() == b"changed"


def write_on_resolve(content: bytes):
    def ways(scratch, _repository, jars):
        script = f"import pathlib; pathlib.Path({str(scratch)!r}, {jars[0].filename!r}).write_bytes({content!r})"
        return [("test", lambda: [kafka_jars.sys.executable, "-c", script])]

    return ways


def test_a_download_that_differs_from_the_manifest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_jars, "_resolvers", write_on_resolve(b"tampered"))
    with pytest.raises(StackError, match="not those of the manifest"):
        ensure_jars(tmp_path, QUIET, jars=[jar(b"content")])
    assert not (tmp_path / f"kafka-{KAFKA_VERSION}" / "libs").exists()


def test_a_download_that_matches_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_jars, "_resolvers", write_on_resolve(b"content"))
    folder = ensure_jars(tmp_path, QUIET, jars=[jar(b"content")])
    assert (folder / "one-1.0.jar").read_bytes() == b"content"


def test_when_no_resolver_succeeds_the_error_names_the_three_ways_out(tmp_path, monkeypatch):
    failing = [("test", lambda: [kafka_jars.sys.executable, "-c", "raise SystemExit('unreachable')"])]
    monkeypatch.setattr(kafka_jars, "_resolvers", lambda *_: failing)
    with pytest.raises(kafka_jars.NoKafkaJarsError) as caught:
        ensure_jars(tmp_path, QUIET, jars=[jar(b"content")])
    assert "unreachable" in caught.value.log_tail
    assert all(way in caught.value.advice for way in ("Maven", "Docker", "KAFKA_BOOTSTRAP_SERVERS"))
