"""A broker's URL: what is taken, what is refused, and that no message holds the password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.sinks.events.mqtt import MqttSink
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig

NOBODY: dict[str, str] = {}


def test_a_full_url():
    config = MqttConfig.parse("mqtts://line%203:p%40ss:w%2Fd@broker.local:8884/plant/line3/", environment=NOBODY)
    assert (config.host, config.port, config.topic, config.tls) == ("broker.local", 8884, "plant/line3", True)
    assert (config.user, config.password) == ("line 3", "p@ss:w/d")
    assert config.status_topic == "plant/line3/status"
    assert config.shown == "mqtts://broker.local:8884/plant/line3"
    assert "p@ss" not in repr(config)


def test_defaults_and_the_environment():
    login = {"KANOCLIP_MQTT_USER": "camera", "KANOCLIP_MQTT_PASSWORD": "secret"}
    config = MqttConfig.parse("mqtt://[::1]/a", environment=login)
    assert (config.host, config.port, config.user, config.password) == ("::1", 1883, "camera", "secret")
    assert config.shown == "mqtt://[::1]:1883/a"
    assert MqttConfig.parse("mqtts://b/a", environment=NOBODY).port == 8883
    assert MqttConfig.parse("mqtt://other@b/a", environment=login).user == "other"


@pytest.mark.parametrize(
    "url",
    ["broker/topic", "http://b/t", "mqtt://b", "mqtt://b/", "mqtt:///t", "mqtt://b:x/t", "mqtt://b:99999/t", "mqtt://[b/t",
     "mqtt://b/t/#", "mqtt://b/t/+/u", "mqtt://b/t?x=1", "mqtt://b/t#x", "mqtt://:pw@b/t"],
)  # fmt: skip
def test_what_is_no_broker(url):
    with pytest.raises(SettingsError, match="--mqtt"):
        MqttConfig.parse(url, environment=NOBODY)


def test_certificates_want_tls():
    with pytest.raises(SettingsError, match="for mqtts:// only"):
        MqttConfig.parse("mqtt://b/t", ca=Path("ca.pem"), environment=NOBODY)
    with pytest.raises(SettingsError, match="without its --mqtt-cert"):
        MqttConfig.parse("mqtts://b/t", key=Path("key.pem"), environment=NOBODY)


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6, max_size=12))
def test_no_message_holds_the_password(password):
    for end in ("@b:port/t", "@b/t/#", "@b", "@b/t", "@b/+"):
        try:
            config = MqttConfig.parse(f"mqtt://u:QQ{password}QQ{end}", environment=NOBODY)
        except SettingsError as error:
            assert "QQ" not in str(error)
        else:
            assert "QQ" not in config.shown + repr(config)


@pytest.mark.parametrize("flag", ["ca", "cert", "key"])
def test_a_pipe_in_place_of_a_certificate_is_not_waited_for(tmp_path, flag):
    pytest.importorskip("paho.mqtt")
    os.mkfifo(tmp_path / "pipe.pem")
    (tmp_path / "file.pem").touch()
    given = {"cert": tmp_path / "file.pem", flag: tmp_path / "pipe.pem"}
    config = MqttConfig.parse("mqtts://127.0.0.1:9/line", **given)
    with pytest.raises(SettingsError, match=r"in PEM form .*it is no regular file.*pipe\.pem"):
        MqttSink(config, print)


def test_an_encrypted_key_asks_nobody(tmp_path):
    """OpenSSL asked at the terminal, and waited."""
    pytest.importorskip("paho.mqtt")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption)
    (tmp_path / "key.pem").write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*form))
    config = MqttConfig.parse("mqtts://127.0.0.1:9/line", cert=tmp_path / "key.pem", key=tmp_path / "key.pem")
    with pytest.raises(SettingsError, match="no certificate with its key in PEM form"):
        MqttSink(config, print)
