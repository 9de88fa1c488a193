"""What is imported to submit, watch and plan stays light: no torch, and no services below the worker."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "safetensors"}
SERVICES = {"celery", "kombu", "redis", "boto3", "botocore"}
PYDANTIC = {"pydantic", "pydantic_core", "pydantic_settings"}


def packages_behind(module: str) -> set[str]:
    """The top-level packages that a new process holds after importing `module`."""
    script = f"import json, sys, {module}\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "worker",
        "worker.client.client",
        "worker.app",
        "worker.tasks",
        "worker.cli.main",
        "recipes",
        "recipes.load",
        "storage.redis.follow",
    ],
)
def test_no_model_code_is_loaded_to_submit_or_to_serve(module: str) -> None:
    assert not packages_behind(module) & HEAVY


@pytest.mark.parametrize("module", ["core.plan", "core.sequence", "core.inferencer", "core.cost", "core.scripted"])
def test_the_interpreter_needs_neither_weights_nor_services(module: str) -> None:
    assert not packages_behind(module) & (HEAVY | SERVICES | PYDANTIC)


def test_the_recipe_language_needs_no_services() -> None:
    assert not packages_behind("recipes.load") & (SERVICES | {"core", "storage", "worker"})


@pytest.mark.model
def test_the_python_api_with_a_real_model_needs_no_services() -> None:
    found = packages_behind("core.bagel")
    assert "torch" in found
    assert not found & (SERVICES | PYDANTIC | {"storage", "worker"})


def test_asking_for_the_app_is_what_loads_celery() -> None:
    assert "celery" not in packages_behind("worker")
    assert "celery" in packages_behind("worker.app")


def test_the_package_says_what_it_does_not_have() -> None:
    import worker  # noqa: PLC0415 (the one test that needs it)

    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = worker.absent
