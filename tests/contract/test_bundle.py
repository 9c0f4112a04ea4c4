"""A bundle is what its manifest says, byte for byte, or it does not open."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.errors import BundleError
from tinysight_contract.files import replace_file, sha256_of
from tinysight_contract.manifest import CenterNet, Classify, Input, Manifest, Thresholds, parse_manifest
from tinysight_contract.schemas import load

Sample = Callable[..., tuple[Manifest, dict[str, bytes]]]


def tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar of these members; the last one may be of another kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if kind != tarfile.REGTYPE and (name, data) == members[-1]:
                member.type, member.linkname, member.size = kind, "manifest.json", 0
            out.addfile(member, io.BytesIO(data[: member.size]))
    return buffer.getvalue()


def test_what_is_packed_opens_again_with_the_same_content(sample: Sample, tmp_path: Path) -> None:
    manifest, files = sample()
    replace_file(tmp_path / "x.bundle", pack_bundle(manifest, files))
    bundle = Bundle.open(tmp_path / "x.bundle")
    assert (bundle.manifest, bundle.digest) == (manifest, sha256_of(tmp_path / "x.bundle"))
    assert {name: bundle.read(name) for name in files} == files
    assert list(tmp_path.iterdir()) == [tmp_path / "x.bundle"]


def test_a_bundle_may_end_anywhere_in_a_record_of_the_tar(sample: Sample) -> None:
    manifest, files = sample()
    for blocks in range(24):
        files["int8.tflite"] = bytes(blocks * tarfile.BLOCKSIZE)
        raw = pack_bundle(replace(manifest, files={name: file_ref(data) for name, data in files.items()}), files)
        assert Bundle.parse(raw, source="x").read("int8.tflite") == files["int8.tflite"]


def test_equal_content_is_equal_bytes_in_any_order(sample: Sample) -> None:
    manifest, files = sample()
    assert pack_bundle(manifest, files) == pack_bundle(manifest, dict(reversed(files.items())))


def test_the_manifest_is_golden_and_fits_its_schema(sample: Sample, golden: Callable[[str, bytes], None]) -> None:
    manifest, _ = sample()
    golden("manifest.json", manifest.to_json())
    jsonschema.validate(msgspec.json.decode(manifest.to_json()), load("manifest"))


words = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), min_size=1, max_size=20)


@given(
    labels=st.lists(words, min_size=2, max_size=2, unique=True),
    score=st.floats(0, 1),
    config=st.dictionaries(words, st.one_of(st.integers(-(2**53), 2**53), words, st.booleans()), max_size=4),
)
def test_a_manifest_survives_the_round_trip(
    labels: list[str], score: float, config: dict[str, Any], sample: Sample
) -> None:
    manifest, _ = sample(labels=labels, thresholds=Thresholds(score=score))
    manifest = replace(manifest, provenance=replace(manifest.provenance, config=config))
    again = parse_manifest(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def changed(sample: Sample, **fields: object) -> bytes:
    manifest, _ = sample()
    return msgspec.json.encode({**msgspec.json.decode(manifest.to_json()), **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"schema": "2.0"}, "this runtime reads 1.x", id="major version of the future"),
        pytest.param({"schema": ""}, "this runtime reads 1.x", id="no version"),
        pytest.param({"labels": ["cat"]}, "1 labels need", id="labels that do not fit the model"),
        pytest.param({"labels": ["cat", "cat"]}, "twice", id="a label twice"),
        pytest.param({"labels": []}, "cannot be read", id="no labels"),
        pytest.param({"variants": []}, "cannot be read", id="no variant"),
        pytest.param({"files": {}}, "not listed in files", id="files that are not listed"),
        pytest.param(
            {"files": {"../x": {"sha256": "0" * 64, "size_bytes": 1}}}, "cannot be read", id="name that climbs out"
        ),
        pytest.param({"decode": {"kind": "pose"}}, "cannot be read", id="unknown decoder"),
        pytest.param(
            {"task": "classify", "decode": {"kind": "classify"}}, "an output with role 'scores'", id="role not there"
        ),
        pytest.param({"task": "classify"}, "not decoded by CenterNet", id="decoder of another task"),
        pytest.param(
            {"decode": {"kind": "centernet", "stride": 4}}, "need [1, 4, 4, 2]", id="stride that does not fit"
        ),
        pytest.param({"input": {"height": 32, "width": 16}}, "the input is", id="input that does not fit"),
        pytest.param({"input": {"height": 16, "width": 16, "std": [1, 0, 1]}}, "zero", id="division by zero"),
        pytest.param({"name": "pets\n"}, "cannot be read", id="name with a line break"),
        pytest.param({"name": "Pets!"}, "cannot be read", id="name that is no id"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(fields: dict[str, object], said: str, sample: Sample) -> None:
    with pytest.raises(BundleError) as refused:
        parse_manifest(changed(sample, **fields))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"), [("int8", 0.0, 0), ("int8", 0.1, 200), ("uint8", 0.1, -1), ("float32", 0.5, 0)]
)
def test_a_tensor_that_cannot_be_is_refused(dtype: str, scale: float, zero_point: int, sample: Sample) -> None:
    raw = msgspec.json.decode(sample()[0].to_json())
    raw["variants"][0]["outputs"][1].update(dtype=dtype, scale=scale, zero_point=zero_point)
    with pytest.raises(BundleError, match="contradicts itself"):
        parse_manifest(msgspec.json.encode(raw))


def test_a_manifest_nested_without_end_is_refused() -> None:
    with pytest.raises(BundleError):
        parse_manifest(b'{"schema":"1.0","x":' + b"[" * 5000 + b"]" * 5000 + b"}")


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b"\xff", b"{" + b" " * (1 << 20) + b"}"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(raw)


def test_fields_of_a_later_minor_version_are_ignored(sample: Sample) -> None:
    assert parse_manifest(changed(sample, schema="1.7", mood="good")).name == "pets"


def test_a_missing_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="tinysight convert"):
        Bundle.open(tmp_path / "none.bundle")


def test_a_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tmp_path)


def test_a_bundle_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysight_contract.bundle.MAX_BUNDLE_BYTES", 10_000)
    with pytest.raises(BundleError, match="empty or no bundle"):
        Bundle.open(Path("/dev/zero"))


def test_a_bundle_cut_off_anywhere_does_not_open(sample: Sample) -> None:
    raw = pack_bundle(*sample())
    for end in (0, 1, 511, 512, 700, len(raw) // 2, len(raw) - 10240, len(raw) - 513):
        with pytest.raises(BundleError):
            Bundle.parse(raw[:end], source="cut")


@given(data=st.data())
def test_a_flipped_byte_outside_the_manifest_never_opens_as_something_else(data: st.DataObject, sample: Sample) -> None:
    manifest, files = sample()
    raw = bytearray(pack_bundle(manifest, files))
    text = manifest.to_json()  # its own bytes are what a signature will cover; all others are covered by it
    at = data.draw(st.integers(0, len(raw) - 1).filter(lambda at: not 512 <= at < 512 + len(text)))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        bundle = Bundle.parse(bytes(raw), source="flipped")
    except BundleError:
        return
    # Only bytes of the tar's own headers that carry no content (mode, owner, ...) may change unseen.
    assert bundle.manifest == manifest
    assert {name: bundle.read(name) for name in files} == files


@given(st.binary(max_size=3000))
def test_any_bytes_are_a_bundle_error(raw: bytes) -> None:
    with pytest.raises(BundleError):
        Bundle.parse(raw, source="noise")


def hostile(sample: Sample) -> dict[str, bytes]:
    manifest, files = sample()
    text = manifest.to_json()
    whole = [("manifest.json", text), *files.items()]
    wrong_labels = {**files, "labels.txt": b"cat\n"}
    listed = replace(manifest, files={name: file_ref(data) for name, data in wrong_labels.items()})
    return {
        "climbs out": tar(*whole, ("../evil", b"x")),
        "absolute": tar(*whole, ("/etc/evil", b"x")),
        "in a folder": tar(*whole, ("a/b", b"x")),
        "stands twice": tar(*whole, ("labels.txt", b"cat\ndog\n")),
        "is not listed": tar(*whole, ("extra", b"x")),
        "symbolic link": tar(*whole, ("link", b""), kind=tarfile.SYMTYPE),
        "hard link": tar(*whole, ("link", b""), kind=tarfile.LNKTYPE),
        "device": tar(*whole, ("dev", b""), kind=tarfile.CHRTYPE),
        "manifest not first": tar(*files.items(), ("manifest.json", text)),
        "wrong digest": tar(("manifest.json", text), *{**files, "int8.tflite": b"not a modem"}.items()),
        "wrong size": tar(("manifest.json", text), *{**files, "int8.tflite": b"other"}.items()),
        "member missing": tar(("manifest.json", text), *list(files.items())[1:]),
        "label file of the wrong length": tar(("manifest.json", listed.to_json()), *wrong_labels.items()),
        "too many members": tar(*whole, *((f"f{i}", b"") for i in range(200))),
        "something after the end": pack_bundle(manifest, files) + b"x" * 512,
        "compressed": gzip.compress(pack_bundle(manifest, files)),
        "no manifest": tar(*files.items()),
        "empty tar": tar(),
    }


@pytest.mark.parametrize(
    "case",
    [
        "climbs out", "absolute", "in a folder", "stands twice", "is not listed", "symbolic link", "hard link",
        "device", "manifest not first", "wrong digest", "wrong size", "member missing",
        "label file of the wrong length",
        "too many members", "something after the end", "compressed", "no manifest", "empty tar",
    ],
)  # fmt: skip
def test_a_hostile_bundle_does_not_open(case: str, sample: Sample) -> None:
    made = hostile(sample)
    assert len(made) == 18
    with pytest.raises(BundleError):
        Bundle.parse(made[case], source=case)


def test_the_label_file_must_have_a_line_for_each_label(sample: Sample) -> None:
    with pytest.raises(BundleError, match=r"labels.txt has 1 lines, the model knows 2 labels"):
        Bundle.parse(hostile(sample)["label file of the wrong length"], source="x")


def test_a_full_disk_leaves_the_old_bundle(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, files = sample()
    replace_file(tmp_path / "x.bundle", pack_bundle(manifest, files))
    before = (tmp_path / "x.bundle").read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "x.bundle", pack_bundle(replace(manifest, release=4), files))
    assert (tmp_path / "x.bundle").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "x.bundle"]


def test_the_kinds_of_decoding_are_told_apart_by_their_tag() -> None:
    for how in (CenterNet(stride=8), Classify(activation="softmax")):
        assert msgspec.json.decode(msgspec.json.encode(how), type=CenterNet | Classify) == how
    assert Input(height=1, width=1).layout == "NHWC"


def test_a_bundle_that_is_known_must_be_the_one_that_is_meant(sample: Any) -> None:
    raw = pack_bundle(*sample())
    digest = Bundle.parse(raw, source="x").digest
    assert Bundle.parse(raw, source="x", digest=digest).digest == digest
    with pytest.raises(BundleError, match="is not the bundle"):
        Bundle.parse(raw, source="x", digest="0" * 64)
