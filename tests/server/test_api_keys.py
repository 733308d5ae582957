import hashlib
import hmac
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.server.api_keys import SCOPES, ApiKeys, Keyring
from redserve.server.settings import Settings

ONE = "one-key-of-twenty-eight-chars"
TWO = "another-key-that-is-long-enough"
THREE = "a-third-key-that-is-long-enough-too"


@pytest.fixture(autouse=True)
def heard(caplog, monkeypatch):
    """What the server's log says."""
    monkeypatch.setattr(logging.getLogger("redserve"), "propagate", True)
    caplog.set_level(logging.INFO, "redserve.server")
    return caplog


def write(path, **scopes):
    path.write_text("".join(f"{scope} = {keys!r}\n" for scope, keys in scopes.items()))


def test_a_key_is_for_the_scopes_that_list_it():
    keys = ApiKeys.parse({"inference": [ONE, TWO], "admin": [TWO]})

    assert keys.scopes_of(ONE.encode()) == {"inference"}
    assert keys.scopes_of(TWO.encode()) == {"inference", "admin"}
    assert keys.scopes_of(THREE.encode()) == set()
    assert [scope for scope in SCOPES if keys.guards(scope)] == ["inference", "admin"]


def test_a_file_need_not_hold_the_key_itself():
    digest = hashlib.sha256(ONE.encode()).hexdigest()
    for entry in (f"sha256:{digest}", f"sha256:{digest.upper()}"):
        keys = ApiKeys.parse({"inference": [entry]})

        assert keys.scopes_of(ONE.encode()) == {"inference"}
        assert keys.scopes_of(digest.encode()) == keys.scopes_of(entry.encode()) == set()


@pytest.mark.parametrize("sent", [ONE, TWO, THREE, "", "unknown"])
def test_every_key_of_every_scope_is_compared_whichever_was_sent(monkeypatch, sent):
    compared = []

    def compare(sent_digest, digest):
        compared.append(digest)
        return sent_digest == digest

    keys = ApiKeys.parse({"inference": [ONE, TWO], "metrics": [THREE]})
    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys.scopes_of(sent.encode())

    assert sorted(compared) == sorted(hashlib.sha256(key.encode()).digest() for key in (ONE, TWO, THREE))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"inferrence": [ONE]}, "'inferrence' is none of inference, metrics, admin"),
        ({ONE: "inference"}, "a name of 29 characters is none of"),
        ({"admin": ONE}, r'admin must be a list of keys: admin = \["..."\]'),
        ({"admin": {"key": ONE}}, "admin must be a list"),
        ({"admin": [ONE, 7]}, r"admin\[1\] must be a string"),
        ({"admin": [""]}, r"admin\[0\] must have at least 16 characters, not 0"),
        ({"admin": ["x" * 15]}, r"admin\[0\] must have at least 16 characters, not 15"),
        ({"admin": [f"{ONE} {TWO}"]}, r"admin\[0\] must be visible ASCII"),
        ({"admin": [f"{ONE},{TWO}"]}, r"admin\[0\] must be visible ASCII"),
        ({"admin": [f"{ONE}\n"]}, r"admin\[0\] must be visible ASCII"),
        ({"admin": [f"{ONE}é"]}, r"admin\[0\] must be visible ASCII"),
        ({"admin": ["sha256:" + "0" * 63]}, r"admin\[0\] must have 64 hexadecimal digits"),
        ({"admin": ["sha256:" + "g" * 64]}, r"admin\[0\] must have 64 hexadecimal digits"),
    ],
)
def test_what_is_no_key_is_refused_by_its_place_and_never_shown(entries, message):
    with pytest.raises(ValueError, match=message) as refusal:
        ApiKeys.parse(entries)

    assert ONE not in str(refusal.value)
    assert "xxx" not in str(refusal.value)


@given(st.dictionaries(st.sampled_from([*SCOPES, "other"]), st.lists(st.text() | st.integers()) | st.text()))
def test_whatever_a_file_says_is_keys_or_a_value_error(entries):
    try:
        keys = ApiKeys.parse(entries)
    except ValueError:
        return
    for scope, listed in entries.items():
        assert keys.guards(scope) == bool(listed)
        for key in listed:
            assert key.startswith("sha256:") or scope in keys.scopes_of(key.encode())


def test_keys_of_the_environment_and_of_the_file_are_all_good(tmp_path):
    path = tmp_path / "keys.toml"
    write(path, inference=[TWO])

    keyring = Keyring(ApiKeys.parse({"inference": [ONE], "metrics": [THREE]}), path)

    assert keyring.keys.counts() == {"inference": 2, "metrics": 1, "admin": 0}


def test_a_file_that_changed_counts_at_the_next_look_and_is_told_without_its_keys(tmp_path, heard):
    path = tmp_path / "keys.toml"
    write(path, inference=[ONE])
    keyring = Keyring(ApiKeys(), path)

    keyring.look()
    assert heard.records == []
    write(path, inference=[TWO, THREE], admin=[ONE])
    keyring.look()
    keyring.look()

    assert keyring.keys.scopes_of(TWO.encode()) == {"inference"}
    assert keyring.keys.scopes_of(ONE.encode()) == {"admin"}
    (record,) = heard.records
    assert (record.inference, record.metrics, record.admin) == (2, 0, 1)
    assert not any(key in str(vars(record)) for key in (ONE, TWO, THREE))


def test_a_change_of_neither_size_nor_time_is_a_change(tmp_path):
    path = tmp_path / "keys.toml"
    write(path, inference=[ONE])
    before = path.stat()
    keyring = Keyring(ApiKeys(), path)

    write(path, inference=[ONE.upper()])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    keyring.look()

    assert keyring.keys.scopes_of(ONE.upper().encode()) == {"inference"}


def break_off(path):
    path.write_text(f'inference = ["{TWO}')


def empty(path):
    path.write_text("")


def no_text(path):
    path.write_bytes(b"\xff\xfe")


def nested(path):
    path.write_text("inference = " + "[" * 50_000)


def remove(path):
    path.unlink()


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def forget_a_scope(path):
    write(path, inference=[TWO])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_off, "Unterminated string"),
        (empty, "holds no key"),
        (no_text, "utf-8"),
        (nested, "keys.toml"),
        (remove, "No such file"),
        (replace_by_a_folder, "no regular file"),
        (replace_by_a_pipe, "no regular file"),
        (forget_a_scope, "no key for admin any more"),
    ],
)
def test_a_file_that_went_wrong_leaves_the_old_keys_and_is_told_once(tmp_path, heard, spoil, message):
    path = tmp_path / "keys.toml"
    write(path, inference=[ONE], admin=[ONE])
    keyring = Keyring(ApiKeys(), path)

    spoil(path)
    for _ in range(3):
        keyring.look()

    assert keyring.keys.scopes_of(ONE.encode()) == {"inference", "admin"}
    assert keyring.keys.scopes_of(TWO.encode()) == set()
    (record,) = heard.records
    assert record.levelname == "ERROR"
    assert str(path) in record.why
    assert message in record.why


def test_a_file_that_comes_back_counts_again_and_may_go_wrong_again(tmp_path, heard):
    path = tmp_path / "keys.toml"
    write(path, inference=[ONE])
    keyring = Keyring(ApiKeys(), path)

    for key in (ONE, TWO):
        path.unlink()
        keyring.look()
        write(path, inference=[key])
        keyring.look()

    assert keyring.keys.scopes_of(TWO.encode()) == {"inference"}
    assert [record.levelname for record in heard.records] == ["ERROR", "ERROR", "INFO"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove, "No such file"),
        (empty, "holds no key"),
        (break_off, "Unterminated string"),
        (replace_by_a_folder, "no regular"),
    ],
)
def test_a_file_that_is_wrong_at_the_start_is_refused(tmp_path, spoil, message):
    path = tmp_path / "keys.toml"
    write(path, inference=[ONE])
    spoil(path)

    with pytest.raises(ValueError, match=f"api_keys_file '{path}': .*{message}"):
        Keyring(ApiKeys(), path)


def test_settings_take_keys_from_the_environment_and_show_them_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("REDSERVE_INFERENCE_KEYS", f"{ONE}, {TWO}")
    monkeypatch.setenv("REDSERVE_ADMIN_KEYS", "sha256:" + hashlib.sha256(THREE.encode()).hexdigest())
    settings = Settings.load()

    keys = settings.keyring().keys

    assert keys.counts() == {"inference": 2, "metrics": 0, "admin": 1}
    assert keys.scopes_of(THREE.encode()) == {"admin"}
    assert ONE not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("value", ["short", f"{ONE},", " ", f"{ONE},,{TWO}"])
def test_a_variable_with_something_that_is_no_key_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("REDSERVE_METRICS_KEYS", value)

    with pytest.raises(ValueError, match=r"metrics_keys: metrics\[[01]\] must have at least 16 characters") as refusal:
        Settings.load().keyring()

    assert ONE not in str(refusal.value)


def test_a_key_in_the_wrong_form_is_not_shown_by_the_error_and_its_cause(tmp_path):
    file = tmp_path / "redserve.toml"
    file.write_text(f'inference_keys = ["{ONE}"]\n')

    with pytest.raises(ValueError, match="inference_keys") as refusal:
        Settings.load({"config": file})

    assert ONE not in f"{refusal.value} {refusal.value.__cause__}"


@pytest.mark.parametrize(
    "variable",
    [
        *("REDSERVE_INFERENCE_KEYS", "REDSERVE_METRICS_KEYS", "REDSERVE_ADMIN_KEYS", "REDSERVE_API_KEYS_FILE"),
        "redserve_inference_keys",
    ],
)
def test_a_variable_for_keys_that_is_set_but_empty_is_refused_since_it_would_leave_the_server_open(
    monkeypatch, variable
):
    monkeypatch.setenv(variable, "")
    with pytest.raises(ValueError, match=f"{variable} is set but empty"):
        Settings.load()
