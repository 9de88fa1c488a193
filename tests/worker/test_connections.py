"""Settings come from the environment, and what they name is opened or found wanting in one line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.model_folder import ModelFolderError
from storage.objects.probe import probe
from tests.worker.serving import config_of, env_of
from worker.connections import ServiceUnavailableError, check_redis, connect_redis, connect_store
from worker.local.services import LocalServices
from worker.serve.engine import Engine
from worker.settings import PROJECT, Settings, queue_of, settings


def given(**values: object) -> Settings:
    return Settings(**{"_env_file": None, **values})  # type: ignore[arg-type]  # what a user may get wrong


def test_settings_are_read_from_the_environment_and_from_env_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOSEQ_S3_BUCKET", "from-the-environment")
    (tmp_path / ".autoseq").mkdir()
    (tmp_path / ".autoseq" / "env").write_text("AUTOSEQ_S3_BUCKET=from-a-file\nAUTOSEQ_S3_PREFIX=from-a-file\n")
    settings.cache_clear()
    found = settings()
    settings.cache_clear()
    assert (found.s3_bucket, found.s3_prefix) == ("from-the-environment", "from-a-file")


def test_secrets_are_not_shown() -> None:
    config = given(redis_url="redis://:hidden@host/0", s3_secret_key="hidden", s3_access_key="hidden")
    assert "hidden" not in repr(config) + str(config)


@pytest.mark.parametrize(
    "wrong",
    [{"visibility_timeout_s": 1}, {"dtype": "float16"}, {"s3_url_expires_s": 10**7}, {"outage_timeout_s": 0}],
)
def test_a_setting_out_of_bounds_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        given(**wrong)


def test_a_model_is_called_by_its_folder_unless_it_has_a_name() -> None:
    assert given(model="/models/BAGEL-7B-MoT").served_model == "bagel-7b-mot"
    assert given(model="/models/BAGEL-7B-MoT", model_name="bagel").served_model == "bagel"
    assert queue_of("bagel") == "model.bagel"


def test_redis_answers_or_is_named(services: LocalServices) -> None:
    with connect_redis(config_of(env_of(services, 0))) as redis:
        check_redis(redis)
    away = config_of(env_of(services, 0, redis_url="redis://:hidden@127.0.0.1:1/0"))
    with connect_redis(away, outage_timeout_s=0) as redis, pytest.raises(ServiceUnavailableError) as raised:
        check_redis(redis)
    assert "Redis at 127.0.0.1:1 can't be used" in str(raised.value)
    assert "AUTOSEQ_REDIS_URL" in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_hundreds_may_wait_on_one_client_at_once(services: LocalServices) -> None:
    with connect_redis(config_of(env_of(services, 0))) as redis:
        held = [redis.connection_pool.get_connection() for _ in range(200)]
        check_redis(redis)
        for connection in held:
            redis.connection_pool.release(connection)


def test_the_store_of_the_settings_keeps_its_word(services: LocalServices, prefix: str) -> None:
    store = connect_store(config_of(env_of(services, 0, s3_public_url="https://pictures.example/bucket")))
    probe(store, folder=f"{prefix}/")
    assert store.url("a/b.png") == "https://pictures.example/bucket/a/b.png"
    store.close()


def test_a_model_is_loaded_once_and_on_first_use() -> None:
    engine = Engine(given(model="scripted", scripted_delay_s=0.5))
    assert engine.spec().name == "scripted"
    assert not engine.loaded
    model = engine.model()
    assert engine.loaded
    assert engine.model() is model
    assert vars(model)["delay_s"] == 0.5


@pytest.mark.model
def test_loading_a_real_model_tells_how_far_it_is() -> None:
    engine = Engine(given(model=str(PROJECT / "models" / "tiny-bagel"), device="cpu", model_name="mine"))
    told: list[tuple[int, int]] = []
    assert engine.spec().name == "mine"
    assert engine.model(lambda done, total: told.append((done, total))).spec == engine.spec()
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0


def test_a_folder_that_is_no_model_is_an_error_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"llm_config\.json: no such file"):
        Engine(given(model=str(tmp_path))).spec()
