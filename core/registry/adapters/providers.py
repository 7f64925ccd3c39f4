"""The model lists of hosted providers: one request that also shows whether the credentials work.

Wire formats as the providers publish them: OpenAI's `GET /v1/models` (also Mistral, Groq, Together,
DeepSeek and compatible servers), Anthropic's `GET /v1/models`, Azure OpenAI's
`GET /openai/models?api-version=2024-10-21`, the Gemini API's `GET /v1beta/models`, Bedrock's
`ListFoundationModels`, and Vertex AI's `GET /v1beta1/publishers/google/models` with a token for a
service account (RFC 7523).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from core.kernel import clock
from core.kernel.crypto import Secret
from core.kernel.errors import (
    BudError,
    InvalidInput,
    NotAuthenticated,
    RateLimited,
    Unavailable,
    UpstreamFailed,
)
from core.registry.adapters import guarded_http
from core.registry.schemas import HostedModel, ProviderKind

_MAX_ANSWER_BYTES = 16 << 20
_MAX_PAGES = 20
_MAX_MODELS = 5000
_ANTHROPIC_VERSION = "2023-06-01"
_AZURE_API_VERSION = "2024-10-21"
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_API_KEY = {"api_key": "API key"}

KINDS: dict[str, ProviderKind] = {
    kind.id: kind
    for kind in (
        ProviderKind(
            id="openai",
            name="OpenAI",
            base_url="https://api.openai.com/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="anthropic",
            name="Anthropic",
            base_url="https://api.anthropic.com/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="azure_openai",
            name="Azure OpenAI",
            base_url="https://{resource}.openai.azure.com",
            credentials=_API_KEY,
            options={"resource": "Name of the resource"},
            lists_all=False,
        ),
        ProviderKind(
            id="bedrock",
            name="Amazon Bedrock",
            base_url="https://bedrock.{region}.amazonaws.com",
            credentials={
                "access_key_id": "Access key id",
                "secret_access_key": "Secret access key",
            },
            options={"region": "Region, such as us-east-1"},
            lists_all=False,
        ),
        ProviderKind(
            id="vertex",
            name="Google Vertex AI",
            base_url="https://{region}-aiplatform.googleapis.com",
            credentials={"service_account": "Key file of the service account (JSON)"},
            options={"region": "Region, such as us-central1", "project": "Google Cloud project"},
            lists_all=False,
        ),
        ProviderKind(
            id="mistral",
            name="Mistral",
            base_url="https://api.mistral.ai/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="groq",
            name="Groq",
            base_url="https://api.groq.com/openai/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="together",
            name="Together AI",
            base_url="https://api.together.xyz/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="deepseek",
            name="DeepSeek",
            base_url="https://api.deepseek.com",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="gemini",
            name="Google Gemini API",
            base_url="https://generativelanguage.googleapis.com/v1beta",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="openrouter",
            name="OpenRouter",
            base_url="https://openrouter.ai/api/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="xai",
            name="xAI",
            base_url="https://api.x.ai/v1",
            credentials=_API_KEY,
        ),
        ProviderKind(
            id="fireworks",
            name="Fireworks AI",
            base_url="https://api.fireworks.ai/inference/v1",
            credentials=_API_KEY,
            lists_all=False,
        ),
        ProviderKind(
            id="openai_compatible",
            name="OpenAI-compatible",
            base_url="",
            credentials=_API_KEY,
        ),
    )
}


def list_models(
    kind: str, base_url: str, options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    """The models that an account can use, by id.

    Args:
        kind: A key of `KINDS`.
        base_url: Of the provider's interface.
        options: What the kind asks for beside credentials.
        credentials: What the kind asks for, revealed only into the request's headers.

    Raises:
        InvalidInput: The address is refused, or a credential is not of the right form.
        NotAuthenticated: The provider refuses the credentials.
        RateLimited: It answers that there were too many requests.
        UpstreamFailed: It answers with an error, or with what is no list of models.
        Unavailable: It cannot be reached.
    """
    found = _LISTERS.get(kind, _openai)(base_url.rstrip("/"), options, credentials)
    return sorted(found[:_MAX_MODELS], key=lambda model: model.id)


def _openai(
    base_url: str, _options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    headers = {"Authorization": f"Bearer {credentials['api_key'].reveal()}"}
    answer = _get(f"{base_url}/models", headers)
    # Together gives the bare list.
    rows = answer if isinstance(answer, list) else _rows(answer, "data", base_url)
    return [_openai_model(row) for row in rows if isinstance(row, dict) and row.get("id")]


def _openai_model(row: dict[str, Any]) -> HostedModel:
    # The length of the context under the names that Groq, Together, Mistral and vLLM use.
    names = ("context_window", "context_length", "max_context_length", "max_model_len")
    lengths = [row[name] for name in names if isinstance(row.get(name), int)]
    created = row.get("created")
    return HostedModel(
        id=str(row["id"]),
        name=str(row.get("display_name") or row.get("name") or ""),
        context_tokens=lengths[0] if lengths and lengths[0] > 0 else None,
        created_at=datetime.fromtimestamp(created, UTC)
        if isinstance(created, int) and created > 0
        else None,
    )


def _anthropic(
    base_url: str, _options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    headers = {
        "x-api-key": credentials["api_key"].reveal(),
        "anthropic-version": _ANTHROPIC_VERSION,
    }
    found: list[HostedModel] = []
    after: dict[str, str] = {}
    for _ in range(_MAX_PAGES):
        answer = _get(f"{base_url}/models?{urlencode({'limit': '1000', **after})}", headers)
        for row in _rows(answer, "data", base_url):
            name = str(row.get("display_name") or "")
            found.append(HostedModel(id=row["id"], name=name, created_at=row.get("created_at")))
        if not answer.get("has_more"):
            break
        after = {"after_id": str(answer["last_id"])}
    return found


def _azure(
    base_url: str, _options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    headers = {"api-key": credentials["api_key"].reveal()}
    answer = _get(f"{base_url}/openai/models?api-version={_AZURE_API_VERSION}", headers)
    return [_openai_model(row) for row in _rows(answer, "data", base_url)]


def _gemini(
    base_url: str, _options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    headers = {"x-goog-api-key": credentials["api_key"].reveal()}
    answer = _get(f"{base_url}/models?pageSize=1000", headers)
    rows = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise _no_list(base_url)
    return [
        HostedModel(
            id=str(row["name"]).removeprefix("models/"),
            name=str(row.get("displayName") or ""),
            context_tokens=row.get("inputTokenLimit"),
        )
        for row in rows
        if isinstance(row, dict) and row.get("name")
    ]


def _vertex(
    base_url: str, options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    token = _google_token(credentials["service_account"])
    headers = {"Authorization": f"Bearer {token}", "x-goog-user-project": options["project"]}
    found: list[HostedModel] = []
    page: dict[str, str] = {}
    for _ in range(_MAX_PAGES):
        query = urlencode({"pageSize": "100", **page})
        answer = _get(f"{base_url}/v1beta1/publishers/google/models?{query}", headers)
        # The last page of an empty list has no list at all.
        names = [str(row["name"]) for row in answer.get("publisherModels", [])]
        found += [HostedModel(id=name.rpartition("/")[2]) for name in names]
        if not answer.get("nextPageToken"):
            break
        page = {"pageToken": str(answer["nextPageToken"])}
    return found


def _google_token(service_account: Secret) -> str:
    """An access token for a service account: a signed assertion, exchanged at its token URI."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    try:
        account = json.loads(service_account.reveal())
        key = serialization.load_pem_private_key(account["private_key"].encode(), password=None)
        email, token_uri = str(account["client_email"]), str(account["token_uri"])
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("not an RSA key")
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
        # Not chained: the cause may quote the key.
        raise InvalidInput(
            "This is no key file of a Google service account.",
            remedy="Paste the whole JSON file, with client_email, private_key and token_uri.",
        ) from None
    now_s = int(clock.unix_s())
    claims = {
        "iss": email,
        "scope": _GOOGLE_SCOPE,
        "aud": token_uri,
        "iat": now_s,
        "exp": now_s + 3600,
    }
    signed = ".".join(_base64url(json.dumps(each).encode()) for each in (_JWT_HEADER, claims))
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": f"{signed}.{_base64url(signature)}",
    }
    return str(_request("POST", token_uri, {}, form).get("access_token", ""))


_JWT_HEADER = {"alg": "RS256", "typ": "JWT"}


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bedrock(
    base_url: str, options: Mapping[str, str], credentials: Mapping[str, Secret]
) -> list[HostedModel]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    guarded_http.check(base_url)
    client = boto3.session.Session().client(
        "bedrock",
        endpoint_url=base_url,
        region_name=options["region"],
        aws_access_key_id=credentials["access_key_id"].reveal(),
        aws_secret_access_key=credentials["secret_access_key"].reveal(),
        config=Config(
            connect_timeout=guarded_http.TIMEOUT_S,
            read_timeout=guarded_http.TIMEOUT_S,
            retries={"total_max_attempts": 2, "mode": "standard"},
        ),
    )
    try:
        answer = client.list_foundation_models()
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise _refused(status, base_url, str(error.response["Error"].get("Code", ""))) from None
    except BotoCoreError:
        raise _unreachable(base_url) from None
    return [
        HostedModel(id=row["modelId"], name=row.get("modelName", ""))
        for row in answer["modelSummaries"]
    ]


def _get(url: str, headers: dict[str, str]) -> Any:
    return _request("GET", url, headers, None)


def _request(method: str, url: str, headers: dict[str, str], data: dict[str, str] | None) -> Any:
    import httpx

    content = b""
    try:
        # No redirects: the credentials would go along.
        with guarded_http.stream(
            method, url, headers=headers, data=data, redirects=False
        ) as answer:
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > _MAX_ANSWER_BYTES:
                    break
            status, after = answer.status_code, answer.headers.get("Retry-After", "")
    except httpx.HTTPError:
        # Not chained: its request holds the credentials.
        raise _unreachable(url) from None
    if status >= 400:
        raise _refused(status, url, "", float(after) if after.isdigit() else 60.0)
    try:
        return json.loads(content)
    except ValueError:
        raise _no_list(url) from None


def _rows(answer: Any, name: str, url: str) -> list[dict[str, Any]]:
    rows = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise _no_list(url)
    return [row for row in rows if isinstance(row, dict) and row.get("id")]


def _no_list(url: str) -> UpstreamFailed:
    return UpstreamFailed(
        f"{guarded_http.shown(url)} does not answer with a list of models.",
        remedy="Check the base URL; it usually ends in /v1.",
    )


def _refused(status: int, url: str, code: str, retry_after_s: float = 60.0) -> BudError:
    where = guarded_http.shown(url)
    if status in (401, 403) or (status == 400 and "token" in url):
        return NotAuthenticated(
            f"{where} refuses these credentials ({code or status}).",
            remedy="Check that they are whole, not expired, and may list models; "
            "then enter them again.",
        )
    if status == 404:
        return UpstreamFailed(
            f"{where} does not exist (404).", remedy="Check the base URL; it usually ends in /v1."
        )
    if status == 429:
        return RateLimited(
            f"{where} says that there were too many requests.",
            retry_after_s=retry_after_s,
            remedy=f"Try again in {retry_after_s:.0f} s.",
        )
    return UpstreamFailed(
        f"{where} answered {code or status}.", remedy="Try again in a few minutes."
    )


def _unreachable(url: str) -> Unavailable:
    return Unavailable(
        f"{guarded_http.shown(url)} cannot be reached.",
        remedy="Check the base URL and the network of this machine.",
    )


_Lister = Callable[[str, Mapping[str, str], Mapping[str, Secret]], list[HostedModel]]
_LISTERS: dict[str, _Lister] = {
    "anthropic": _anthropic,
    "azure_openai": _azure,
    "gemini": _gemini,
    "vertex": _vertex,
    "bedrock": _bedrock,
}
