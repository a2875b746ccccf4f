"""Who a request comes from: its API key and token become a role and claims.

As on Supabase, `apikey` names the project's key and `Authorization: Bearer` the user. Keys come in
two forms: `sb_publishable_…` and `sb_secret_…`, which are no tokens and stand for a short one, and
the legacy anon and service_role keys, which are tokens that never end.
"""

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jwt

from stepbase import clock
from stepbase.local.gateway.errors import ApiError

_ISSUER = "stepbase-local"
_TEN_YEARS = 10 * 365 * 24 * 3600
_LEEWAY_SECONDS = 30
_REMEMBERED_TOKENS = 1000
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one local project; they open nothing else."""

    jwt_secret: str = field(repr=False)
    publishable: str
    secret: str = field(repr=False)
    anon: str
    service_role: str = field(repr=False)

    @classmethod
    def generate(cls) -> "Keys":
        """Return new random keys."""
        secret = secrets.token_urlsafe(48)
        return cls(
            jwt_secret=secret,
            publishable=f"sb_publishable_{secrets.token_urlsafe(24)}",
            secret=f"sb_secret_{secrets.token_urlsafe(24)}",
            anon=_legacy_key(secret, "anon"),
            service_role=_legacy_key(secret, "service_role"),
        )

    @classmethod
    def load(cls, path: Path) -> "Keys":
        """Return the keys stored in `path`; the first time, make them."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            keys = cls.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=_MODE)
        path.write_text(json.dumps(asdict(keys), indent=2) + "\n", "utf-8")
        return keys

    def user_token(self, user_id: str, *, lifetime: int = 3600, **claims: object) -> str:
        """Return a token such as a signed-in user has, valid for `lifetime` seconds."""
        now = clock.now_s()
        payload = {
            "iss": _ISSUER,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": user_id,
            "iat": now,
            "exp": now + lifetime,
            **claims,
        }
        return jwt.encode(payload, self.jwt_secret, algorithm="HS256")


@dataclass(frozen=True, slots=True)
class Identity:
    """The role a request runs as and its claims as JSON text."""

    role: str
    claims: str
    expires_at: int | None = None


class Authenticator:
    """Checks keys and tokens. Tokens are HS256 with the project's secret, or of a JWKS."""

    def __init__(self, keys: Keys, jwks_url: str | None = None) -> None:
        self._keys = keys
        self._by_key = {
            keys.publishable: _identity({"role": "anon"}),
            keys.secret: _identity({"role": "service_role"}),
            keys.anon: _identity({"role": "anon"}),
            keys.service_role: _identity({"role": "service_role"}),
        }
        self._jwks = jwt.PyJWKClient(jwks_url) if jwks_url else None
        self._remembered: dict[str, Identity] = {}

    @property
    def blocks(self) -> bool:
        """Whether `identify` may fetch keys, which blocks."""
        return self._jwks is not None

    def identify(self, headers: Mapping[str, str], key: str | None = None) -> Identity:
        """Return who sent a request with these (lower-case) headers; blocks for a JWKS fetch.

        Args:
            headers: The request's headers.
            key: The API key, where it came in the query string.

        Raises:
            ApiError: 401 for a missing or unknown key, or a token that is not valid now.
        """
        key = headers.get("apikey") or key
        identity = self._check_key(key, headers.get("user-agent", ""))
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or token == key:
            return identity
        return self._by_key[token] if token in self._legacy else self.verify(token)

    @property
    def _legacy(self) -> tuple[str, str]:
        return (self._keys.anon, self._keys.service_role)

    def verify(self, token: str) -> Identity:
        """Return the identity a token proves.

        Raises:
            ApiError: PGRST301 if it cannot be trusted, PGRST303 if its claims do not hold now.
        """
        known = self._remembered.get(token)
        if known is not None and not _is_over(known):
            return known
        try:
            claims = self._decode(token)
        except jwt.ExpiredSignatureError as error:
            raise _refused("PGRST303", "JWT expired") from error
        except jwt.ImmatureSignatureError as error:
            raise _refused("PGRST303", "JWT not yet valid") from error
        except jwt.InvalidAudienceError as error:
            raise _refused("PGRST303", "JWT not in audience") from error
        except jwt.PyJWTError as error:
            raise _refused("PGRST301", "JWT could not be decoded", str(error)) from error
        identity = _identity(claims)
        if len(self._remembered) >= _REMEMBERED_TOKENS:
            self._remembered.clear()
        self._remembered[token] = identity
        return identity

    def _decode(self, token: str) -> dict[str, object]:
        # HS256 and the asymmetric algorithms never share a key: a public key must not be taken
        # for a secret.
        symmetric = jwt.get_unverified_header(token).get("alg") == "HS256"
        if symmetric or self._jwks is None:
            key: object = self._keys.jwt_secret
            algorithms = ["HS256"]
        else:
            key = self._jwks.get_signing_key_from_jwt(token).key
            algorithms = ["ES256", "RS256"]
        claims: dict[str, object] = jwt.decode(
            token,
            key,  # type: ignore[arg-type]  # whatever kind of key the algorithm takes
            algorithms=algorithms,
            leeway=_LEEWAY_SECONDS,
            options={"verify_aud": False},
        )
        return claims

    def _check_key(self, key: str | None, user_agent: str) -> Identity:
        if not key:
            raise _refused("401", "No API key found in request", hint="Send it as header `apikey`.")
        for known, identity in self._by_key.items():
            if hmac.compare_digest(known.encode(), key.encode()):
                if key == self._keys.secret and "Mozilla/" in user_agent:
                    raise _refused("401", "Forbidden use of secret API key in browser")
                return identity
        raise _refused(
            "401",
            "Invalid API key",
            hint="This is not a key of this project; the local ones are in .stepbase/keys.json.",
        )


def _legacy_key(secret: str, role: str) -> str:
    now = clock.now_s()
    payload = {"iss": _ISSUER, "role": role, "iat": now, "exp": now + _TEN_YEARS}
    return jwt.encode(payload, secret, algorithm="HS256")


def _identity(claims: Mapping[str, object]) -> Identity:
    expires_at = claims.get("exp")
    return Identity(
        str(claims.get("role") or "anon"),
        json.dumps(claims),
        int(expires_at) if isinstance(expires_at, int | float) else None,
    )


def _is_over(identity: Identity) -> bool:
    expires_at = identity.expires_at
    return expires_at is not None and expires_at + _LEEWAY_SECONDS <= clock.now_s()


def _refused(
    code: str, message: str, details: str | None = None, hint: str | None = None
) -> ApiError:
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    return ApiError(401, code, message, details, hint, [("WWW-Authenticate", challenge)])
