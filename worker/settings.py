"""The settings of workers and clients, from the environment (AUTOSEQ_…), `.env` or `.autoseq/env`."""

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
    """Where Redis and S3 are, which model a worker serves, and its limits."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOSEQ_", env_file=(".env", ".autoseq/env"), extra="ignore", frozen=True
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """The Redis database for queue, results and progress; share it with nothing else. Use rediss:// for TLS."""

    s3_endpoint: str | None = None
    """URL of the S3 server. Default: AWS."""
    s3_region: str = "us-east-1"
    """Region of the bucket."""
    s3_access_key: SecretStr | None = None
    """Access key. Default: boto3's credential chain."""
    s3_secret_key: SecretStr | None = None
    """Secret key. Default: boto3's credential chain."""
    s3_bucket: str = "autosequence"
    """Bucket for all runs."""
    s3_prefix: str = "runs"
    """Prefix of all objects: a run is stored under `<prefix>/<run id>/`."""
    s3_public_endpoint: str | None = None
    """URL of the S3 server for browsers, if it differs from s3_endpoint. URLs are presigned for this endpoint."""
    s3_public_url: str | None = None
    """Base URL at which the bucket is public. Default: none; URLs are presigned for the S3 endpoint of the process that
    creates them, and expire."""
    s3_url_expires_s: Annotated[int, Gt(0), Field(le=604_800)] = 604_800
    """How long a presigned URL is valid, in seconds; S3 allows at most a week."""
    s3_input_buckets: tuple[str, ...] = ()
    """Other buckets that recipes may read input images from."""
    s3_input_prefixes: tuple[Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]+/([^/]+/)*$")], ...] = ()
    """Folders that recipes may read input images from, such as s3://bucket/folder/, also in the bucket of the runs."""
    s3_read_runs: bool = True
    """Allow recipes to use the images of all runs in the bucket, as `branch` does. Otherwise only the run's inputs."""
    s3_send_checksums: bool = True
    """Send a SHA-256 checksum with every object for the server to verify. Turn off for servers that reject it."""

    s3_sse: Annotated[str | None, Field(pattern="^(AES256|aws:kms|aws:kms:dsse)$")] = None
    """Server-side encryption of the objects. Default: as the bucket is configured."""
    s3_sse_kms_key_id: str | None = None
    """ID of the KMS key for server-side encryption. Default: the AWS managed key."""

    model: str = str(PROJECT / "models" / "tiny-bagel")
    """Folder of the model that this worker serves, in BAGEL's official layout. `scripted` has no weights."""
    model_name: str | None = None
    """Name of the model in recipes. Default: the name of its folder in lower case."""
    device: str | None = None
    """Torch device: cuda, cuda:1, cpu … Default: a GPU if there is one, else the CPU."""
    dtype: Annotated[str | None, Field(pattern="^(float32|bfloat16)$")] = None
    """Precision of the weights. Default: bfloat16 on a GPU, float32 on a CPU."""
    fused: bool = True
    """Use the Triton kernels of the decoder on a GPU. Without Triton or a C compiler, PyTorch's operations are used."""
    quantize: Annotated[str | None, Field(pattern="^(int8|fp8|nf4)$")] = None
    """Quantization of the experts' weights, for smaller GPUs: int8, fp8 or nf4. It changes texts and images, so a run
    is continued only by workers with the same quantization."""
    gpus: tuple[int, ...] = ()
    """GPUs to spread one model over, for a model that does not fit on one."""
    max_batch: Annotated[int, Ge(1)] | None = None
    """How many variations are generated in one batch. Fewer need less memory and change images only within rounding.
    Default: 8, or fewer on a GPU whose total memory is too small for them."""
    context_tokens: Annotated[int, Ge(0)] = 32_768
    """Length of the context for which memory is reserved on a GPU, in tokens, when weights are placed."""
    threads: Annotated[int, Ge(1)] | None = None
    """CPU threads that a worker computes with. Default: torch's, within the cores and the CPU quota that the worker
    shares with the others of its `autoseq worker`. Another number may round differently."""
    cache_dir: Path = Field(default_factory=_cache_dir)
    """Folder that keeps the hashes of the model's files, so that a start does not read all weights to hash them.
    Default: autosequence in $XDG_CACHE_HOME or ~/.cache."""
    recipes: Path = PROJECT / "recipes"
    """Folder of the recipes that can be submitted by name."""

    scripted_delay_s: Annotated[float, Ge(0)] = 0.0
    """Seconds that the `scripted` model takes for each token and each denoising step."""

    visibility_timeout_s: Annotated[int, Ge(5)] = 90
    """Seconds without progress after which the broker delivers a message to another worker."""
    lease_s: Annotated[float, Gt(0)] = 20.0
    """Seconds without progress after which a run is given to another worker."""
    reconcile_interval_s: Annotated[float, Gt(0)] = 2.0
    """Seconds between two searches for runs that lost their worker or their message; one worker searches for all."""
    max_attempts: Annotated[int, Ge(1)] = 3
    """How many times in a row a run may start without completing another step before it fails."""
    step_timeout_s: Annotated[float, Gt(0)] = 3_600.0
    """Time limit of one step, in seconds."""
    run_timeout_s: Annotated[float, Gt(0)] = 86_400.0
    """Time limit of a run, in seconds, from the moment a worker takes it."""
    drain_timeout_s: Annotated[float, Gt(0)] = 30.0
    """Seconds that a worker which shuts down may spend on the current step before it returns the run to the queue."""
    outage_timeout_s: Annotated[float, Gt(0)] = 600.0
    """Seconds that a run waits for S3 or Redis to come back before it fails."""
    pending_upload_bytes: Annotated[int, Gt(0)] = 256 * 2**20
    """Bytes that may wait in memory for their upload while the next step is generated."""
    spool_bytes: Annotated[int, Ge(0)] = 2 * 2**30
    """Further bytes that may wait on disk, encoded, so that the GPU keeps working while S3 is unavailable."""
    spool_dir: Path | None = None
    """Folder for these files. Default: the system's temporary folder."""
    health_file: Path | None = None
    """File in which a worker writes its state every few seconds, for `autoseq health`. Default: none is written."""
    preview_interval_s: Annotated[float, Gt(0)] = 1.0
    """Minimum number of seconds between two previews of an image."""
    keep_progress_s: Annotated[int, Gt(0)] = 7 * 86_400
    """Seconds that Redis keeps the progress and the result of a finished run. Its objects in S3 are never deleted."""

    @property
    def served_model(self) -> str:
        """The name of the model that this worker serves, and the default model of clients with these settings."""
        return self.model_name or Path(self.model).name.lower()


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read on first use."""
    return Settings()


def queue_of(model: str) -> str:
    """The queue of runs on `model`."""
    return f"model.{model}"
