"""An issuer of access tokens on loopback: discovery, JWKS, real keys that can be rotated."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "bud"
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class TokenIssuer:
    """`with TokenIssuer() as issuer`; keys by id, each with the algorithm it signs by."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[Any, str]] = {"rsa": (_RSA, "RS256")}
        self.fetches = 0
        self.broken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> TokenIssuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_ec(self, key_id: str) -> None:
        self.keys[key_id] = (ec.generate_private_key(ec.SECP256R1()), "ES256")

    def add_ed25519(self, key_id: str) -> None:
        self.keys[key_id] = (ed25519.Ed25519PrivateKey.generate(), "EdDSA")

    def token(self, key_id: str | None = "rsa", *, kid: str | None = "", **claims: Any) -> str:
        """A token for `ada` in project `prj_a`, an hour long; a claim of None is left out."""
        now_s = int(time.time())
        known = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "exp": now_s + 3600,
            "bud_project": "prj_a",
        } | claims
        given = {name: value for name, value in known.items() if value is not None}
        key, algorithm = self.keys[key_id or "rsa"]
        kid = key_id if kid == "" else kid
        return jwt.encode(given, key, algorithm, headers={"kid": kid} if kid else None)

    def jwks(self) -> dict[str, Any]:
        keys = []
        for key_id, (key, algorithm) in self.keys.items():
            made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
            # RSA's key does not say for which algorithm: PS256 may use it too.
            named = {} if algorithm.startswith(("RS", "PS")) else {"alg": algorithm}
            keys.append({**made, **named, "kid": key_id, "use": "sig"})
        keys.append({"kty": "oct", "kid": "secret", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"})
        return {"keys": keys}

    def _handler(issuer) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (the handler has a self)
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += self.path != "/jwks"
                document = {
                    "/.well-known/openid-configuration": {
                        "issuer": issuer.url,
                        "jwks_uri": f"{issuer.url}/jwks",
                    },
                    "/jwks": issuer.jwks(),
                }.get(self.path)
                content = json.dumps(document).encode()
                self.send_response(503 if issuer.broken or document is None else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler
