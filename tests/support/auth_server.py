"""A project's auth server as far as tokens go: real keys, their set over HTTP, tokens signed with them."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.support.fake_api import FakeApi, Received, fake_api

from stepbase import clock

ALICE = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"
SECRET = "a-legacy-secret-of-a-project-with-enough-characters"

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def public_jwk(kid: str, key: PrivateKey) -> dict[str, Any]:
    """Return the published form of a key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        form: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "ES256"
    else:
        form = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "RS256"
    return {**form, "kid": kid, "use": "sig", "alg": algorithm, "key_ops": ["verify"]}


@dataclass
class AuthServer:
    """A project.

    Attributes:
        url: What SUPABASE_URL is.
        keys: Those that are published, by id.
        answer: What the key set's address answers instead, or None.
    """

    api: FakeApi
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    answer: tuple[int, Any] | None = None

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def fetches(self) -> int:
        """How often the key set was asked for."""
        return len(self.api.received)

    def token(self, kid: str = "first", user: str = ALICE, **claims: Any) -> str:
        """Return a user's token; a claim of None is left out."""
        return sign(self.keys[kid], self.claims(user, **claims), kid=kid)

    def claims(self, user: str = ALICE, **claims: Any) -> dict[str, Any]:
        """Return what a user's token says."""
        now = clock.now_s()
        said = {
            "iss": f"{self.url}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": user,
            "iat": now,
            "exp": now + 3600,
            "email": "alice@example.com",
            "session_id": "5e5510",
            "is_anonymous": False,
            **claims,
        }
        return {name: value for name, value in said.items() if value is not None}


def sign(
    key: PrivateKey | str, claims: dict[str, Any], *, kid: str | None = None, **header: Any
) -> str:
    """Return a token signed with a key, or with a secret."""
    algorithm = "HS256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = "ES256"
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "RS256"
    headers = {**header, **({} if kid is None else {"kid": kid})}
    return jwt.encode(claims, key, algorithm=header.pop("alg", algorithm), headers=headers)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token put together by hand."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@contextmanager
def auth_server() -> Iterator[AuthServer]:
    """Run a project with one key, named "first"."""

    def publish(request: Received) -> tuple[int, Any]:
        if server.answer is not None:
            return server.answer
        assert request.path == "/auth/v1/.well-known/jwks.json"
        return 200, {"keys": [public_jwk(kid, key) for kid, key in server.keys.items()]}

    with fake_api(publish) as api:
        server = AuthServer(api, {"first": ec_key()})
        yield server
