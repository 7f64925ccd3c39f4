"""Azure OpenAI: OpenAI's dialect below the path of a deployment.

Sources (November 2026): https://learn.microsoft.com/azure/ai-foundry/openai/reference (paths,
`api-version`, `api-key`), https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
(`content_filter` errors, the first chunk without choices).
"""

from __future__ import annotations

from urllib.parse import quote

from gateway.body import Parsed
from gateway.providers.base import Outgoing
from gateway.providers.openai_compatible import OpenAICompatible, json_headers

_API_VERSION = "2024-10-21"


class AzureOpenAI(OpenAICompatible):
    """One deployment; its name is the account's model."""

    def request(self, path: str, body: Parsed) -> Outgoing:
        """The same request at the deployment.

        A base URL that ends in `/v1` is Azure's newer interface, which has no deployments in its
        paths and no version.
        """
        endpoint = path.removeprefix("/v1")
        base = self.account.path
        if not base.endswith("/v1"):
            deployment = quote(self.account.model, safe="")
            version = self.account.options.get("api_version", _API_VERSION)
            base += f"/openai/deployments/{deployment}"
            endpoint_path = f"{endpoint}?api-version={quote(version, safe='')}"
        else:
            endpoint_path = endpoint
        return Outgoing(base + endpoint_path, self.headers(body), self.body(endpoint, body))

    def headers(self, body: Parsed) -> dict[str, str]:
        """All but Host and Content-Length."""
        return json_headers(body) | {"api-key": self.account.credentials.get("api_key", "")}
