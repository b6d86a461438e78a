from __future__ import annotations

import pytest
from signatures import NOW, TestKey

from dualtune_edge.runtime.trust.keys import UntrustedKeyError, certified_key, trusted_key
from dualtune_edge.runtime.trust.policy import TrustedKey, TrustedRoot

ED25519 = """\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("text", ["", "key", ED25519, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_text_that_is_no_key(text: str) -> None:
    with pytest.raises(UntrustedKeyError):
        trusted_key(TrustedKey(name="release", public_key=text))


@pytest.mark.parametrize("text", ["", "certificate", ED25519])
def test_a_text_that_is_no_certificate(text: str) -> None:
    with pytest.raises(UntrustedKeyError):
        certified_key(TrustedRoot(name="authority", certificate=text), [], NOW)


@pytest.mark.parametrize("chain", [[], [b""], [b"0\x03\x02\x01\x01"]])
def test_a_chain_that_is_none(chain: list[bytes]) -> None:
    root = TestKey().certified("Contoso", authority=True).root()
    with pytest.raises(UntrustedKeyError):
        certified_key(root, chain, NOW)
