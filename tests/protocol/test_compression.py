import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import BadRequest, RedserveError, TooLarge, UnsupportedMediaType
from redserve.protocol import choose_encoding, compress, decompress

PACK = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress}


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("plain", [b"", b"a" * 100_000, bytes(range(256))])
def test_what_clients_pack_is_unpacked(encoding, plain):
    assert decompress(PACK[encoding](plain), encoding, limit_bytes=100_000) == plain
    assert decompress(PACK[encoding](plain), b" %s " % encoding.upper(), limit_bytes=100_000) == plain


@pytest.mark.parametrize("encoding", [b"", b"identity", b"Identity"])
def test_without_an_encoding_the_body_is_as_it_came(encoding):
    assert decompress(b"plain", encoding, limit_bytes=1) == b"plain"


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"gzip;q=1", b"\xff"])
def test_other_encodings_are_refused(encoding):
    with pytest.raises(UnsupportedMediaType, match="is not read here: gzip and deflate are"):
        decompress(b"", encoding, limit_bytes=10)


@pytest.mark.parametrize("encoding", PACK)
def test_a_limit_holds_after_unpacking(encoding):
    packed = PACK[encoding](b"a" * 1000)

    assert len(decompress(packed, encoding, limit_bytes=1000)) == 1000
    with pytest.raises(TooLarge):
        decompress(packed, encoding, limit_bytes=999)


def test_a_bomb_is_not_stored():
    bomb = gzip.compress(bytes(100_000_000), 9)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompress(bomb, b"gzip", limit_bytes=100_000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(bomb) < 100_000
    assert 100_000 < peak_bytes < 1_000_000


@pytest.mark.parametrize("encoding", PACK)
def test_damage_is_refused(encoding):
    packed = PACK[encoding](b"a body")

    with pytest.raises(BadRequest, match="cut off"):
        decompress(packed[:-1], encoding, limit_bytes=100)
    with pytest.raises(BadRequest, match="cut off"):
        decompress(b"", encoding, limit_bytes=100)
    with pytest.raises(BadRequest, match="2 bytes stand behind the end"):
        decompress(packed + b"xx", encoding, limit_bytes=100)
    with pytest.raises(BadRequest, match="bytes stand behind the end"):
        decompress(packed * 2, encoding, limit_bytes=100)
    with pytest.raises(BadRequest, match="the body is not"):
        decompress(packed[:-4] + b"abcd", encoding, limit_bytes=100)
    with pytest.raises(BadRequest, match="the body is not"):
        decompress(b"a body", encoding, limit_bytes=100)


@given(st.binary(max_size=200), st.sampled_from([b"gzip", b"deflate"]))
def test_what_is_packed_here_is_unpacked_by_anyone(plain, encoding):
    packed = compress(plain, encoding)

    assert (gzip.decompress if encoding == b"gzip" else zlib.decompress)(packed) == plain
    assert decompress(packed, encoding, limit_bytes=200) == plain


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=10) | st.sampled_from(sorted(PACK)))
def test_no_bytes_raise_anything_but_a_refusal(body, behind, encoding):
    for packed in (body, gzip.compress(body) + behind, zlib.compress(body)[:-1] + behind):
        try:
            decompress(packed, encoding, limit_bytes=50)
        except RedserveError as error:
            assert 400 <= error.status < 500  # noqa: PT017
        choose_encoding(body)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (b"", b""),
        (b"gzip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"gzip, deflate, br", b"gzip"),
        (b"deflate, gzip", b"gzip"),
        (b"gzip;q=0.5, deflate;q=0.9", b"deflate"),
        (b"GZIP ; Q=1", b"gzip"),
        (b"gzip;q=0", b""),
        (b"gzip;q=0, *", b"deflate"),
        (b"*", b"gzip"),
        (b"*;q=0", b""),
        (b"identity", b""),
        (b"identity, gzip;q=0.5", b""),
        (b"br", b""),
        (b"gzip;q=x", b""),
        (b",,;;==", b""),
    ],
)
def test_the_client_chooses_the_encoding_by_its_weights(accepted, chosen):
    assert choose_encoding(accepted) == chosen


def test_no_encoding_leaves_the_answer_as_it_is():
    assert compress(b"plain", b"") == b"plain"
