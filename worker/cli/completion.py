"""Shell completion of run ids and recipes. Quick, and silent if Redis can't be reached."""

from pathlib import Path

# ruff: noqa: PLC0415 - imported when the shell asks, so that --help and the completion of commands are quick

LIMIT = 50
TIMEOUT_S = 0.5
RECIPE_SUFFIXES = {".yaml", ".yml"}


def run_ids(incomplete: str) -> list[str]:
    """The ids of recent runs that begin with `incomplete`, the newest first."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    from storage.redis.runs import Runs
    from worker.settings import settings

    try:
        redis = Redis.from_url(
            settings().redis_url.get_secret_value(),
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        with redis:
            recent = Runs(redis).recent(LIMIT)
    except (RedisError, ValueError):  # ValueError: invalid settings or an invalid URL
        return []
    return [state.run_id for state in recent if state.run_id.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """The shipped recipes' names and the recipe files and folders that begin with `incomplete`."""
    from worker.settings import settings

    try:
        names = sorted(file.stem for file in settings().recipes.glob("*.yaml"))
    except ValueError:  # invalid settings
        names = []
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [f"{entry}/" if entry.is_dir() else str(entry) for entry in entries]
    shown = [file for file in files if file.endswith("/") or Path(file).suffix in RECIPE_SUFFIXES]
    return [one for one in (*names, *shown) if one.startswith(incomplete)]
