"""Every setting of Bud, in one typed class: `BUD_…` variables, or `.env`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.kernel.errors import InvalidInput

ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Settings; `.env.sample` and docs/settings.md are generated from this class."""

    model_config = SettingsConfigDict(
        env_prefix="BUD_", env_file=ROOT / ".env", extra="ignore", frozen=True
    )

    data_dir: Path = Field(
        ROOT / ".bud",
        description="Folder for everything Bud keeps: database, keys, models, facts, logs.",
    )
    keys_dir: Path | None = Field(
        None, description="Folder of the encryption keys; empty means keys/ in the data folder."
    )
    host: str = Field("127.0.0.1", description="Address the dashboard and the gateway listen on.")
    app_port: int = Field(8501, ge=1, le=65535, description="Port of the dashboard.")
    gateway_port: int = Field(8502, ge=1, le=65535, description="Port of the inference gateway.")
    gateway_workers: int = Field(
        1,
        ge=1,
        le=16,
        description="Processes of the gateway; they share its port. One for each CPU that it may "
        "use.",
    )
    public_gateway_url: str = Field(
        "",
        description="Base URL that callers use for the gateway, shown in examples; "
        "empty means http://<host>:<gateway port>.",
    )
    tls: bool = Field(
        False, description="Whether a proxy in front terminates TLS; makes cookies Secure."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL of the database; empty means SQLite in the data folder."
    )
    jobs_database_url: str = Field(
        "", description="SQLAlchemy URL of the job engine's database; empty means SQLite."
    )
    admin_email: str = Field(
        "admin@bud.local", description="E-mail address of the admin made at the first start."
    )
    admin_password: SecretStr | None = Field(
        None,
        description="Password of the first admin; empty means a one-time password is printed.",
    )
    session_hours: int = Field(12, ge=1, le=720, description="Hours until a log-in ends.")
    max_body_mb: int = Field(
        32, ge=1, le=1024, description="Largest request body that the gateway accepts, in MB."
    )
    max_upload_mb: int = Field(
        200,
        ge=1,
        le=4096,
        description="Largest form with a file that the gateway accepts (audio, input of batches), "
        "in MB.",
    )
    files_max_mb: int = Field(
        10_000,
        ge=1,
        description="Disk space for the files of batches of all projects, in MB; uploads beyond it "
        "are refused.",
    )
    keep_files_days: int = Field(
        30,
        ge=1,
        le=36_500,
        description="Days that batches and their files are kept; an upload can say less.",
    )
    facts_max_mb: int = Field(
        256,
        ge=1,
        description="Disk space for request facts that are not yet ingested, in MB; "
        "what is over it is dropped and counted.",
    )
    health_check_s: float = Field(
        5,
        ge=0,
        le=3600,
        description="Seconds from one health check of a replica by the gateway to the next; "
        "0 checks none.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or CIDR ranges of proxies in front of the gateway, separated by "
        "commas; only these are believed in X-Forwarded-For and in the country header.",
    )
    country_header: str = Field(
        "",
        description="Header in which a trusted proxy gives the caller's country for blocking "
        "rules, such as CF-IPCountry.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose web pages may call the gateway, separated by commas, such as "
        "https://app.example.org; * is every one, empty is none.",
    )
    cors_headers: str = Field(
        "",
        description="Headers that such pages may send beyond those of OpenAI's and Anthropic's "
        "clients, separated by commas.",
    )
    jwt_issuers: str = Field(
        "",
        description="Issuers whose access tokens (JWT) open the gateway beside API keys: a JSON "
        "list, see docs/access.md.",
    )
    otlp_endpoint: str = Field(
        "",
        description="Where the gateway sends traces by OTLP over HTTP, such as "
        "http://localhost:4318; empty makes none.",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="Headers sent with traces, name=value separated by commas."
    )
    trace_ratio: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests that are traced when their caller does not say.",
    )
    valkey_url: SecretStr | None = Field(
        None,
        description="Valkey or Redis server through which the gateways of several hosts keep "
        "limits together, valkey://[user:password@]host[:port], or valkeys:// with TLS; empty "
        "means that there is one host.",
    )
    keep_requests_days: int = Field(
        400,
        ge=1,
        le=36_500,
        description="Days that requests are kept in the metrics, with the time of the machines.",
    )
    keep_jobs_days: int = Field(
        90, ge=1, le=36_500, description="Days that a job is kept after its end, with its log."
    )
    keep_audit_days: int = Field(
        3650, ge=1, le=36_500, description="Days that an entry of the audit log is kept."
    )
    refresh_boards_days: int = Field(
        0,
        ge=0,
        le=365,
        description="Days after which the boards of the leaderboards are fetched anew from GitHub; "
        "an admin applies what differs. 0 fetches only on request.",
    )
    refresh_catalogue_days: int = Field(
        0,
        ge=0,
        le=365,
        description="Days after which the catalogue's sources (Hugging Face, models.dev, LiteLLM) "
        "are fetched anew; an admin applies what differs. 0 fetches only on request.",
    )
    refresh_apply: bool = Field(
        False,
        description="Whether what a scheduled refresh finds is applied at once, instead of "
        "waiting for an admin.",
    )
    stale_prices_days: int = Field(
        90, ge=1, le=3650, description="Age in days from which a host's price is marked as old."
    )
    stale_facts_days: int = Field(
        365,
        ge=1,
        le=3650,
        description="Age in days from which a fact of the catalogue is marked as old.",
    )
    github_api_url: str = Field(
        "https://api.github.com",
        description="Where boards are asked for their newest commit; a mirror can stand here.",
    )
    github_raw_url: str = Field(
        "https://raw.githubusercontent.com", description="Where the files of boards are read from."
    )
    hub_url: str = Field(
        "https://huggingface.co",
        description="Hub that the catalogue's open models are looked up on.",
    )
    models_dev_url: str = Field(
        "https://models.dev/api.json",
        description="models.dev's file of hosted models with their prices.",
    )
    litellm_prices_url: str = Field(
        "https://raw.githubusercontent.com/BerriAI/litellm/main/"
        "model_prices_and_context_window.json",
        description="LiteLLM's file of hosted models with their prices.",
    )
    model_server_module: str = Field(
        "core.deployments.model_server",
        description="Python module that serves one model as a process; the tests put a double "
        "here to make load without a model.",
    )
    artifacts: str = Field(
        "",
        description="Where the files of models are kept: empty means models/ in the data folder, "
        "s3://bucket/prefix an object store; deployments then fetch a copy to this machine.",
    )
    s3_endpoint: str = Field(
        "", description="URL of the object store, such as MinIO's; empty means AWS."
    )
    s3_region: str = Field("", description="Region of the object store; empty means boto3's own.")
    s3_access_key_id: str = Field(
        "", description="Access key of the object store; empty means what boto3 finds by itself."
    )
    s3_secret_access_key: SecretStr | None = Field(
        None, description="Secret that belongs to the access key of the object store."
    )
    max_model_gb: int = Field(
        1000, ge=1, description="Largest file of a model that is downloaded, in GB."
    )
    private_hosts: str = Field(
        "",
        description="Hosts in private networks that models may be downloaded from and that "
        "providers may be at, with http or https; names separated by commas.",
    )
    huggingface_token: SecretStr | None = Field(
        None, description="Token for gated models on Hugging Face."
    )
    clamd: str = Field(
        "",
        description="Where ClamAV's daemon listens, host:port or the absolute path of its socket; "
        "it then scans the files of models too. Empty means without it.",
    )

    @property
    def keys_folder(self) -> Path:
        """Where the encryption keys are."""
        return self.keys_dir or self.data_dir / "keys"

    @property
    def gateway_url(self) -> str:
        """The gateway as callers see it, without `/v1`."""
        return self.public_gateway_url.rstrip("/") or f"http://{self._local}:{self.gateway_port}"

    @property
    def local_gateway_url(self) -> str:
        """The gateway as this machine reaches it, without `/v1`."""
        return f"http://{self._local}:{self.gateway_port}"

    @property
    def local_app_url(self) -> str:
        """The dashboard as this machine reaches it."""
        return f"http://{self._local}:{self.app_port}"

    @property
    def _local(self) -> str:
        everywhere = ("0.0.0.0", "::", "")  # noqa: S104 (compared, not bound)
        return "127.0.0.1" if self.host in everywhere else self.host


@cache
def settings() -> Settings:
    """The settings of this process; read once. Raises InvalidInput for a value that cannot be."""
    try:
        return Settings()
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> InvalidInput:
    """The first value that cannot be, by the variable that it came from; secrets stay unsaid."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    field = Settings.model_fields.get(name)
    secret = field is None or "Secret" in str(field.annotation)
    value = "" if secret else f" is {first['input']!r}"
    reason = first["msg"].removeprefix("Input ")
    return InvalidInput(
        f"BUD_{name.upper()}{value}: it {reason}.",
        remedy="Correct the option, the variable or .env; docs/settings.md tells of each.",
    )
