"""Hostile forms of addresses, and what libraries make of them in their messages."""

from __future__ import annotations

import base64

import pytest

from ltrec.tracking import store
from ltrec.tracking.masking import masked


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host:5000/path", "http://host:5000/path"),
        ("http://me@host:5000", "http://***@host:5000"),
        ("https://me:secret@host:5000/path", "https://***@host:5000/path"),
        ("http://me:se@cr@et@host", "http://***@host"),
        ("HTTP://me:se/cret@host", "HTTP://***@host"),
        ("http://m%40e:s%2Fecret@[::1]:5000/", "http://***@[::1]:5000/"),
        ("postgresql+psycopg2://me:secret@host/db?sslmode=require", "postgresql+psycopg2://***@host/db?***"),
        ("mysql+pymysql://me:secret@host/db", "mysql+pymysql://***@host/db"),
        ("https://host/?token=secret", "https://host/?***"),
        ("https://host/#access_token=secret&x=y", "https://host/?***"),
        ("two: http://a:b@c and http://d:e@f.", "two: http://***@c and http://***@f."),
        ("url: /api/2.0/mlflow/runs?token=secret&x=1 (Caused by …)", "url: /api/2.0/mlflow/runs?*** (Caused by …)"),
        ("Failed to parse: 'http://me:secret@host'", "Failed to parse: 'http://***@host'"),
        ("{'password': 'se cret', 'host': 'h'}", "{'password': ***, 'host': 'h'}"),
        ("dbname=x user=me password=secret host=h", "dbname=x user=*** password=*** host=h"),
        ('password authentication failed for user "me"', "password authentication failed for user ***"),
        ("Authorization: Bearer abc1.def2", "Authorization: Bearer ***"),
        ("401: Basic authentication required", "401: Basic authentication required"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("models:/ltrec@champion does not exist? 1 = 1", "models:/ltrec@champion does not exist? 1 = 1"),
    ],
)
def test_a_text_of_others(text: str, expected: str) -> None:
    assert masked(text) == expected
    assert masked(masked(text)) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:{}@host:5000/path",
        "https://me:{}@host?x=1",
        "postgresql+psycopg2://me:{}@host:5432/db",
        "https://host:5000/?token={}",
        "http://me:{}@host:not-a-port/[",
    ],
)
@pytest.mark.parametrize("secret", ["hunter2", "p@ss/w?rd#1", "p%40ss%2Fword", "ß€ü+ä", "it's", "x9", "a.b*c[d"])
def test_a_secret_of_the_address_in_every_form(uri: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.parse import quote, quote_plus, unquote

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(secret))
    forms = {secret, unquote(secret), quote(secret, safe=""), quote_plus(unquote(secret)), repr(secret)[1:-1]}
    credentials = base64.b64encode(f"me:{unquote(secret)}".encode()).decode()
    for form in forms:
        said = masked(f"could not connect ({form}) by [{store.tracking_uri()}], header {credentials}")
        assert form not in said
        assert said.startswith("could not connect (***)")
    assert secret not in store.shown_uri()
    assert "host" in store.shown_uri()
    if "me:" in uri:
        assert credentials not in said


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open sesame")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "eyJ0")
    said = masked(f"'open sesame', open%20sesame, eyJ0 and {base64.b64encode(b'me:open sesame').decode()}: some time")
    assert said == "'***', ***, *** and ***: some time"
