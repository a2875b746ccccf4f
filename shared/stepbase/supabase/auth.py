"""Who a signed-in user of a Supabase project is, by the token of their session.

Tokens signed with the project's own keys (ES256, RS256) are checked with the set it publishes; those signed
with its legacy secret (HS256) with `SUPABASE_JWT_SECRET`, if that is set. The token's `alg` decides which,
and never is a key of one kind used for the other: a public key must not pass for a secret.

A token is believed until it expires, without asking the auth server: who signs out, or is banned, stays a
user for the rest of their token's hour. No message here contains any part of a token.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stepbase import config
from stepbase.config import AuthConfig
from stepbase.errors import DefinitionError, StepbaseError
from stepbase.supabase.jwks import KeysAwayError, KeySet, UnknownKeyError

AUDIENCE: Final = "authenticated"
LEEWAY_SECONDS: Final = 10
"""How far the clocks of the auth server and of this machine may be apart."""

_MOST_CHARACTERS: Final = 16 * 1024
_LEAST_SECRET_BYTES: Final = 32
_ASYMMETRIC: Final = frozenset({"ES256", "RS256"})
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_.:|@-]{1,128}")
_API_KEY_ROLES: Final = frozenset({"anon", "service_role"})


class AuthError(StepbaseError):
    """A request that no user, or not this one, may make; the message is for whoever wrote the client.

    Attributes:
        status: 401, 403 if the user is known but may not, 503 if nobody can be checked right now.
        code: A short word, as ``"token_expired"``; docs/signed-in-users.md lists them.
    """

    def __init__(self, message: str, *, code: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def challenge(self) -> str | None:
        """What `WWW-Authenticate` says (RFC 6750 3), or None where it has no place."""
        if self.status == 503:
            return None
        if self.code == "no_token":
            return "Bearer"
        kind = "insufficient_scope" if self.status == 403 else "invalid_token"
        return f'Bearer error="{kind}", error_description="{self.code}"'


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user.

    Attributes:
        id: Their id in `auth.users`: the token's `sub`.
        role: The Postgres role of their requests, normally ``"authenticated"``.
        claims: Everything the token says.
    """

    id: str
    role: str
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def is_anonymous(self) -> bool:
        """Whether they signed in without telling who they are."""
        return self.claims.get("is_anonymous") is True


class Verifier:
    """Checks tokens of one project; keep it, because it keeps the project's keys.

    Args:
        settings: Whose users are believed; None reads the environment (`config.supabase_auth`).
        roles: The roles a user may have.
        allow_anonymous: Whether those who signed in anonymously count as users.

    Raises:
        LookupError: If `SUPABASE_URL` is not set.
        DefinitionError: If the legacy secret is so short that it can be guessed.
    """

    def __init__(
        self,
        settings: AuthConfig | None = None,
        *,
        roles: Collection[str] = ("authenticated",),
        allow_anonymous: bool = False,
    ) -> None:
        self._settings = settings or config.supabase_auth()
        self._roles = frozenset(roles)
        self._allow_anonymous = allow_anonymous
        self._keys = KeySet(self._settings.jwks_url)
        secret = self._settings.jwt_secret
        if secret is not None and len(secret.encode()) < _LEAST_SECRET_BYTES:
            raise DefinitionError(
                f"SUPABASE_JWT_SECRET has {len(secret.encode())} bytes, a secret has at least "
                f"{_LEAST_SECRET_BYTES}: copy it from the dashboard → Project Settings → JWT Keys, or "
                "leave it unset if the project's tokens are signed with keys"
            )

    def verify(self, token: str) -> User:
        """Return whose token this is; blocks while the project's keys are fetched.

        Raises:
            AuthError: If it is nobody's; the message says what to send instead.
        """
        header = _header(token)
        key = self._key(header)
        return self._user(_claims(token, key, str(header["alg"]), self._settings.issuers))

    async def averify(self, token: str) -> User:
        """Return whose token this is; as `verify`, but keys are fetched in a thread."""
        header = _header(token)
        kid = header.get("kid")
        is_asymmetric = header.get("alg") in _ASYMMETRIC
        if is_asymmetric and isinstance(kid, str) and self._keys.blocks(kid):
            import asyncio  # only where there is an event loop already

            return await asyncio.to_thread(self.verify, token)
        return self.verify(token)

    def _key(self, header: Mapping[str, Any]) -> Any:
        algorithm = header.get("alg")
        if algorithm == "HS256":
            if self._settings.jwt_secret is None:
                raise AuthError(
                    "the token is signed with a shared secret (HS256), which this server does not accept: "
                    "sign in again; if the project still signs that way, set SUPABASE_JWT_SECRET here",
                    code="algorithm_not_accepted",
                )
            return self._settings.jwt_secret
        if algorithm not in _ASYMMETRIC:
            raise AuthError(
                "the token is signed in a way that Supabase does not use (ES256, RS256 or HS256)",
                code="algorithm_not_accepted",
            )
        return self._public_key(header.get("kid"), algorithm)

    def _public_key(self, kid: object, algorithm: object) -> Any:
        if not isinstance(kid, str):
            raise _malformed("its header names no key (kid)")
        try:
            key = self._keys.find(kid)
        except UnknownKeyError as error:
            raise AuthError(
                "the token is signed with a key this project does not have (any more): sign in again, "
                "at the project this server belongs to",
                code="key_unknown",
            ) from error
        except KeysAwayError as error:
            raise AuthError(
                "the token cannot be checked right now, because the auth server gives no keys: try again",
                code="keys_unavailable",
                status=503,
            ) from error
        if key.algorithm_name != algorithm:
            raise _malformed("its key is for another algorithm than it names")
        return key.key

    def _user(self, claims: Mapping[str, Any]) -> User:
        subject, role = claims["sub"], claims.get("role")
        if _SUBJECT.fullmatch(subject) is None or not isinstance(role, str):
            raise _malformed("it has no user id (sub) or no role")
        user = User(subject, role, claims)
        if role not in self._roles:
            raise AuthError(
                f"users of this role may not do this; allowed: {', '.join(sorted(self._roles))}",
                code="role_not_allowed",
                status=403,
            )
        if user.is_anonymous and not self._allow_anonymous:
            raise AuthError(
                "the user is signed in anonymously, and may not do this before they have an account: "
                "link an e-mail address or another identity to the user, then refresh the session",
                code="anonymous_not_allowed",
                status=403,
            )
        return user


def bearer(authorization: str | None) -> str:
    """Return the token of an `Authorization` header.

    Raises:
        AuthError: If there is none, or what is there is an API key of the project.
    """
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise AuthError(
            "no user: send the header Authorization: Bearer <access_token of the user's session>",
            code="no_token",
        )
    if token.startswith("sb_secret_"):
        raise AuthError(
            "this is a secret key of the project, and no user: it must never be in a client. Replace the "
            "key, then send the access_token of the user's session",
            code="api_key_is_no_user",
        )
    if token.startswith("sb_publishable_"):
        raise _api_key()
    return token


def _header(token: str) -> Mapping[str, Any]:
    """Read what a token says of itself; nothing in it can be believed yet."""
    import jwt

    if len(token) > _MOST_CHARACTERS:
        raise _malformed(f"it has more than {_MOST_CHARACTERS} characters")
    try:
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _malformed("it is no JWT") from None
    header: Mapping[str, Any] = unverified["header"]
    claims: Mapping[str, Any] = unverified["payload"]
    role = claims.get("role")
    # Anybody can send a list or an object here, which no set can be asked for.
    if not isinstance(header.get("alg"), str) or not isinstance(role, str | None):
        raise _malformed("its alg or its role is no text")
    # The legacy API keys are tokens themselves, which everybody has.
    if role in _API_KEY_ROLES and "sub" not in claims:
        raise _api_key()
    return header


def _claims(token: str, key: Any, algorithm: str, issuers: tuple[str, ...]) -> dict[str, Any]:
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=AUDIENCE,
            issuer=issuers,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub", "aud", "iss"]},
        )
    except jwt.ExpiredSignatureError:
        raise AuthError(
            "the token has expired: refresh the session (supabase.auth.refreshSession()) and send the new "
            "access_token",
            code="token_expired",
        ) from None
    except jwt.ImmatureSignatureError:
        raise AuthError(
            "the token is not valid yet: the clock of this server, or of the auth server, is wrong",
            code="token_not_yet_valid",
        ) from None
    except jwt.InvalidAudienceError:
        raise AuthError(
            f'the token is not meant for users: its audience (aud) must be "{AUDIENCE}"',
            code="audience_not_accepted",
        ) from None
    except jwt.InvalidIssuerError:
        raise AuthError(
            f"the token is of another project: its issuer (iss) must be {' or '.join(issuers)}",
            code="issuer_not_accepted",
        ) from None
    except jwt.MissingRequiredClaimError as error:
        raise _malformed(f"it has no {error.claim}") from None
    except jwt.InvalidSignatureError:
        raise AuthError(
            "the token's signature is wrong: it was changed, or is of another project",
            code="signature_wrong",
        ) from None
    except jwt.PyJWTError:
        raise _malformed("its claims are not of the form they must have") from None
    return claims


def _malformed(why: str) -> AuthError:
    return AuthError(
        f"the token is no user's token: {why}; send the access_token of the user's session",
        code="token_malformed",
    )


def _api_key() -> AuthError:
    return AuthError(
        "this is the project's public API key, which says which project is meant and not who asks: sign the "
        "user in, and send Authorization: Bearer <access_token of their session>",
        code="api_key_is_no_user",
    )
