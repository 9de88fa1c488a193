"""Every setting of the worker and its clients, from the environment (AUTOSEQ_…), `.env` or `.autoseq/env`."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "autosequence"


class Settings(BaseSettings):
    """Where Redis and S3 are, what this worker serves, and how long things may take."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOSEQ_", env_file=(".env", ".autoseq/env"), extra="ignore", frozen=True
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Broker, results and progress: a database of its own. rediss:// for TLS; the password is part of the URL."""

    s3_endpoint: str | None = None
    """The S3 server; unset for AWS."""
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr | None = None
    """Unset: boto3's own ways of finding credentials."""
    s3_secret_key: SecretStr | None = None
    s3_bucket: str = "autosequence"
    s3_prefix: str = "runs"
    """Runs are put under <prefix>/<run id>/ in the bucket."""
    s3_public_endpoint: str | None = None
    """The S3 server as browsers reach it, when that differs from s3_endpoint: links are signed for it."""
    s3_public_url: str | None = None
    """Where the bucket can be read without a signature; unset, links are signed and expire."""
    s3_url_expires_s: Annotated[int, Gt(0), Field(le=604_800)] = 604_800
    """How long a signed link is valid; S3 allows a week at most."""
    s3_input_buckets: tuple[str, ...] = ()
    """Other buckets from which recipes may take input images."""
    s3_send_checksums: bool = True
    """Send a SHA-256 with every object, which the server verifies; off for servers that reject it."""

    s3_sse: Annotated[str | None, Field(pattern="^(AES256|aws:kms|aws:kms:dsse)$")] = None
    """How S3 encrypts the objects; unset, as the bucket says."""
    s3_sse_kms_key_id: str | None = None
    """The KMS key for that; unset, the account's own."""

    model: str = str(PROJECT / "models" / "tiny-bagel")
    """The folder of the model this worker serves, in the official BAGEL layout; `scripted` is one without weights."""
    model_name: str | None = None
    """What recipes call it; unset, the folder's name."""
    device: str | None = None
    """cuda, cuda:1, cpu …; unset, a GPU when there is one."""
    dtype: Annotated[str | None, Field(pattern="^(float32|bfloat16)$")] = None
    """Unset: bfloat16 on a GPU, float32 on a CPU."""
    gpus: tuple[int, ...] = ()
    """GPUs to spread one model over, when it does not fit on one."""
    max_batch: Annotated[int, Ge(1)] = 8
    """How many variations are drawn at once; fewer take less memory, and change images only within rounding."""
    cache_dir: Path = Field(default_factory=_cache_dir)
    """Where the hashes of the model's files are kept, so that a start does not read all weights only to hash them."""
    recipes: Path = PROJECT / "recipes"
    """Where a recipe that is given by name alone is looked up."""

    scripted_delay_s: Annotated[float, Ge(0)] = 0.0
    """How long the `scripted` model takes for each token and each denoising step."""

    visibility_timeout_s: Annotated[int, Ge(5)] = 90
    """A message whose worker shows no progress for this long is given to another by the broker itself."""
    lease_s: Annotated[float, Gt(0)] = 20.0
    """A run whose worker showed no progress for this long is given to another."""
    reconcile_interval_s: Annotated[float, Gt(0)] = 2.0
    """How often one of the workers looks for runs that lost their worker or their message."""
    max_attempts: Annotated[int, Ge(1)] = 3
    """A run that was started this often in a row without a new step fails: it seems to kill its workers."""
    step_timeout_s: Annotated[float, Gt(0)] = 3_600.0
    """The longest a single step may take."""
    run_timeout_s: Annotated[float, Gt(0)] = 86_400.0
    """The longest a run may take from when a worker took it."""
    drain_timeout_s: Annotated[float, Gt(0)] = 30.0
    """How long a worker that shuts down goes on with the step under way before it hands the run back."""
    outage_timeout_s: Annotated[float, Gt(0)] = 600.0
    """How long a run waits for S3 or Redis to come back before it fails."""
    pending_upload_bytes: Annotated[int, Gt(0)] = 256 * 2**20
    """How much may wait in memory to be uploaded while the next step is being generated."""
    spool_bytes: Annotated[int, Ge(0)] = 2 * 2**30
    """How much more may wait on disk, encoded, so that the GPU goes on while S3 is away."""
    spool_dir: Path | None = None
    """Where that is; unset, the system's folder for temporary files."""
    preview_interval_s: Annotated[float, Gt(0)] = 1.0
    """The least time between two previews of an image under way."""
    keep_progress_s: Annotated[int, Gt(0)] = 7 * 86_400
    """How long the progress and the result of a run stay in Redis. Its objects in S3 are kept."""

    @property
    def served_model(self) -> str:
        """The name of the model this worker serves, and the default model of clients that share these settings."""
        return self.model_name or Path(self.model).name.lower()


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def queue_of(model: str) -> str:
    """The queue of the runs that want `model`."""
    return f"model.{model}"
