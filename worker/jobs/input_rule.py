"""Which objects in S3 a recipe may use as images."""

from dataclasses import dataclass

from recipes.reference import S3Reference
from storage import keys
from worker.settings import Settings


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """Allows images of runs, and everything under listed prefixes. All other objects in the bucket stay private."""

    bucket: str
    """The bucket of the runs."""
    prefix: str = ""
    """The prefix of the runs."""
    run_id: str | None = None
    """The run whose recipe is read; its own inputs are always allowed."""
    reads_runs: bool = True
    prefixes: tuple[str, ...] = ()
    """Addresses that end with a slash: s3://bucket/ or s3://bucket/folder/."""

    @staticmethod
    def of(config: Settings, run_id: str | None = None) -> "InputRule":
        """The rule of the settings."""
        others = (f"s3://{bucket}/" for bucket in config.s3_input_buckets if bucket != config.s3_bucket)
        return InputRule(
            bucket=config.s3_bucket,
            prefix=config.s3_prefix,
            run_id=run_id,
            reads_runs=config.s3_read_runs,
            prefixes=(*others, *config.s3_input_prefixes),
        )

    def allows(self, reference: S3Reference) -> bool:
        if reference.address.startswith(self.prefixes):
            return True
        run_id = keys.run_of_image(self.prefix, reference.key) if reference.bucket == self.bucket else None
        return run_id is not None and self.may_read_run(run_id)

    def may_read_run(self, run_id: str) -> bool:
        """Whether the recipe may use images of the run `run_id`. Runs have no owners: one setting decides for all."""
        return self.reads_runs or run_id == self.run_id

    def __str__(self) -> str:
        """What is allowed, for an error message."""
        folder = keys.run_folder(self.prefix, "RUN_ID")
        runs = f"images in inputs/ and steps/ of s3://{self.bucket}/{folder}" if self.reads_runs else ""
        return ", ".join(filter(None, (runs, *self.prefixes))) or "no s3:// images"
