"""`autoseq`: what scripts and people get from each command, and what the shell is told."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from recipes.schema import schema_text
from tests.worker.shell import CLOSED, LONG, SHORT, Shell, end_of, lines_until, one_error, said
from worker.settings import PROJECT


def test_help_says_what_the_exit_codes_mean(shell: Shell) -> None:
    text = said(shell("--help"))
    for name in ("demo", "dev", "worker", "run", "submit", "watch", "list", "show", "cancel", "validate", "plan"):
        assert f"{name} " in text
    assert "Exit codes" in text


def test_the_version_is_printed(shell: Shell) -> None:
    assert said(shell("--version")).startswith("autoseq 0.")


def test_a_mistyped_command_is_corrected(shell: Shell) -> None:
    result = shell("sumbit")
    assert result.exit_code == 2
    assert "Did you mean 'submit'?" in result.stderr


def test_help_loads_no_service_and_no_model() -> None:
    heavy = ("torch", "celery", "redis", "boto3", "PIL")
    program = f"import sys, worker.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_the_schema_is_the_one_beside_the_recipes(shell: Shell) -> None:
    assert said(shell("schema")) == schema_text()


def test_every_fault_of_every_recipe_is_told(shell: Shell) -> None:
    shell.recipe("name: Bad Name\ncontext: []\nnum_image: 3\n", "bad.yaml")
    result = shell("validate", "bad.yaml", "magical-forest", "magic-forest")
    assert said(result, code=2) == "magical-forest: ok\n"
    assert result.stderr.count("error: bad.yaml:") == 3
    assert "bad.yaml:3:1: unknown field 'num_image'" in result.stderr
    assert "did you mean 'magical-forest'?" in result.stderr


def test_validation_reads_the_images(shell: Shell) -> None:
    shell.recipe("name: mine\ncontext:\n  - image: photo.png\n  - text: Bigger\n")
    (shell.folder / "photo.png").write_bytes(b"no image")
    assert "mine.yaml: context[0].image: is not a readable image" in one_error(shell("validate", "mine.yaml"), code=2)
    Image.new("RGB", (64, 64)).save(shell.folder / "photo.png")
    assert said(shell("validate", "mine.yaml")) == "mine.yaml: ok\n"


def test_validation_leaves_images_in_s3_to_the_worker(shell: Shell) -> None:
    shell.recipe("name: mine\ncontext:\n  - image: s3://bucket/photo.png\n  - text: Bigger\n")
    assert said(shell("validate", "mine.yaml")) == "mine.yaml: ok\n"


def test_validation_knows_the_sizes_of_a_model_that_is_here(shell: Shell) -> None:
    shell.recipe(SHORT + "image:\n  width: 100\n  height: 100\n")
    model = str(PROJECT / "models" / "tiny-bagel")
    assert "multiple" in shell("validate", "mine.yaml", "--model", model).stderr
    shell.use({"AUTOSEQ_MODEL": "nowhere"})
    assert said(shell("validate", "mine.yaml")) == "mine.yaml: ok\n"
    assert "no such file" in one_error(shell("validate", "mine.yaml", "--model", "nowhere"), code=2)


def test_faults_come_as_json(shell: Shell) -> None:
    shell.recipe(SHORT)
    shell.recipe("name: bad\ncontext:\n  - text: A cat\nselect: best\n", "bad.yaml")
    first, second, third = json.loads(said(shell("validate", "mine.yaml", "none.yaml", "bad.yaml", "--json"), code=2))
    assert first == {"recipe": "mine.yaml", "ok": True, "faults": [], "warnings": []}
    assert second["faults"] == [
        {
            "file": "none.yaml",
            "line": None,
            "column": None,
            "field": None,
            "message": "no such file; expected a recipe file (YAML)",
            "allowed": None,
        }
    ]
    (fault,) = third["faults"]
    assert (fault["file"], fault["line"], fault["column"], fault["field"]) == ("bad.yaml", 4, 9, "select")
    assert "best" in fault["message"]
    assert "judge" in fault["allowed"]


def test_characters_that_no_font_has_are_named(shell: Shell) -> None:
    shell.recipe("name: mine\ncontext:\n  - text: A cat \ue123 and a dog\n")  # a private character
    result = shell("run", "mine.yaml", "--model", "scripted")
    assert result.exit_code == 0, result.stderr
    assert "The contact sheet lacks the characters \ue123: install fonts" in result.stderr


def test_seeds_that_a_double_can_not_hold_are_strings_in_json(shell: Shell) -> None:
    def seed_of(seed: int) -> object:
        return json.loads(said(shell("show-recipe", "magical-forest", "--set", f"seed={seed}", "--json")))["seed"]

    assert seed_of(2**53) == 2**53
    assert seed_of(2**53 + 1) == str(2**53 + 1)


def test_a_model_is_found_by_its_name(shell: Shell) -> None:
    path = shell("plan", "night-sky", "--model", str(PROJECT / "models" / "tiny-bagel"), "--json")
    assert said(shell("plan", "night-sky", "--model", "tiny-bagel", "--json")) == said(path)
    shutil.copytree(PROJECT / "models" / "tiny-bagel", shell.folder / "models" / "Mine")
    assert json.loads(said(shell("plan", "night-sky", "--model", "mine", "--json")))["model"] == "mine"


def test_without_settings_the_error_names_the_default_address_and_autoseq_dev(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_connection: object) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr("redis.connection.Connection._connect", refuse)  # this machine may have a Redis there
    shell.use({})
    error = one_error(shell("list"), code=3)
    assert "Redis at 127.0.0.1:6379 can't be used" in error
    assert "AUTOSEQ_REDIS_URL is not set and this folder has no .autoseq/env: run `autoseq dev` here" in error


def test_a_plan_counts_what_a_recipe_costs(shell: Shell) -> None:
    model = str(PROJECT / "models" / "tiny-bagel")
    text = said(shell("plan", "magical-forest", "--model", model, "--set", "num_images=1"))
    assert "read initial: A magical forest" in text
    assert "draw image 1" in text
    assert "counted with the model's tokenizer" in text
    assert "~" not in text


def test_a_plan_without_the_tokenizer_is_marked_as_an_estimate(shell: Shell) -> None:
    text = said(shell("plan", "magical-forest"))
    assert "estimated" in text
    assert "~" in text


def test_plan_and_validate_warn_of_what_the_model_was_not_trained_on(shell: Shell) -> None:
    given = "night-sky", "--model", str(PROJECT / "models" / "tiny-bagel")
    small = "--set", "image.width=32", "--set", "image.height=64"
    for command in ("plan", "validate"):
        warned = shell(command, *given, *small)
        assert warned.exit_code == 0
        assert "warning: image.width: 32 px; tiny-bagel was trained on images with sides of 64 px" in warned.stderr
        assert "warning" not in shell(command, *given).stderr
    assert json.loads(said(shell("plan", *given, *small, "--json")))["warnings"][0]["field"] == "image.width"


def test_a_plan_comes_as_json(shell: Shell) -> None:
    plan = json.loads(said(shell("plan", "edit-photo", "--set", "max_context_items=3", "--json")))
    kinds = [step["kind"] for step in plan["steps"]]
    assert kinds == ["read", "read", "draw", "write", "forget", "draw"]
    assert plan["steps"][-1]["context_tokens"] > plan["steps"][-1]["new_tokens"] > 0
    assert plan["exact_tokens"] is False


def test_a_tokenizer_that_is_none_is_named(shell: Shell) -> None:
    model = shell.folder / "model"
    model.mkdir()
    for name in ("config.json", "llm_config.json", "ema.safetensors"):
        (model / name).symlink_to(PROJECT / "models" / "tiny-bagel" / name)
    (model / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: not a tokenizer" in one_error(shell("plan", "night-sky", "--model", "model"), code=2)


@pytest.mark.parametrize(
    ("override", "why"),
    [("num_images", "is not an override"), ("num_image=3", "num_images"), ("num_images=0", "too small")],
)
def test_a_wrong_override_is_bad_input(override: str, why: str, shell: Shell) -> None:
    assert why in one_error(shell("plan", "magical-forest", "--set", override), code=2)


def test_variables_are_given_on_the_command_line(shell: Shell) -> None:
    shell.recipe("name: mine\ncontext:\n  - text: A ${animal}\nnum_images: ${images}\n")
    given = ("--var", "animal=fox", "--var", "images=1")
    assert "read initial: A fox" in said(shell("plan", "mine.yaml", *given))
    assert said(shell("validate", "mine.yaml", *given)) == "mine.yaml: ok\n"
    assert "A fox" in shell("run", "mine.yaml", *given).stderr
    result = shell("validate", "mine.yaml", "--var", "animl=fox")
    assert "mine.yaml:3:11: context[0].text: unknown variable 'animal'; did you mean 'animl'?" in result.stderr
    assert "variable animl: the recipe does not use it; did you mean 'animal'?" in result.stderr
    assert "'animal' is not a variable; expected name=value" in one_error(
        shell("plan", "mine.yaml", "--var", "animal"), code=2
    )


def test_a_recipe_is_shown_with_its_defaults_and_loads_again(shell: Shell) -> None:
    arguments = ("any-place", "--set", "seed=3", "--var", "place=A night sky")
    text = said(shell("show-recipe", *arguments))
    assert "  - text: A night sky  # --var\n    thought: false  # default\nnum_images: 3\n" in text
    assert "\nthink: true  # from magical-forest.yaml\n" in text
    shell.recipe(text)
    assert said(shell("show-recipe", "mine.yaml", "--json")) == said(shell("show-recipe", *arguments, "--json"))


def test_a_recipe_is_shown_for_a_model(shell: Shell) -> None:
    model = str(PROJECT / "models" / "tiny-bagel")
    assert "  num_timesteps: 24  # the model's\n" in said(shell("show-recipe", "night-sky", "--model", model))
    shell.use({"AUTOSEQ_MODEL": "nowhere"})
    assert "  num_timesteps: 50  # default\n" in said(shell("show-recipe", "night-sky"))
    assert "too small" in one_error(shell("show-recipe", "night-sky", "--set", "num_images=0"), code=2)


def test_wrong_settings_are_named(shell: Shell) -> None:
    shell.use({"AUTOSEQ_DTYPE": "float8"})
    assert "AUTOSEQ_DTYPE: " in one_error(shell("validate", "magical-forest"), code=2)


def test_services_that_are_away_are_named(shell: Shell) -> None:
    shell.use({"AUTOSEQ_REDIS_URL": CLOSED})
    for arguments in (["list"], ["submit", "magical-forest"]):
        assert "Redis at 127.0.0.1:1 can't be used" in one_error(shell(*arguments), code=3)


def test_a_redis_address_that_is_none_is_told_without_its_secrets(shell: Shell) -> None:
    shell.use({"AUTOSEQ_REDIS_URL": "secret@host"})
    message = one_error(shell("list"), code=3)
    assert "AUTOSEQ_REDIS_URL can't be used" in message
    assert "secret" not in message


@pytest.mark.parametrize("gpus", ["a", "0,,1", "0,0", "-1"])
def test_wrong_gpu_numbers_are_refused(gpus: str, shell: Shell) -> None:
    result = shell("worker", f"--gpus={gpus}")
    assert result.exit_code == 2
    assert "0,1" in result.stderr


# autoseq run


def test_a_run_here_leaves_what_s3_would_hold(shell: Shell) -> None:
    shell.recipe(SHORT)
    result = shell("run", "mine.yaml", "--set", "seed=3", "--out", "made")
    (folder,) = (shell.folder / "made").iterdir()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"recipe.json", "manifest.json", "index.html", "contact-sheet.png", "commits/001.json"} <= found
    assert f"contact sheet  {(folder / 'contact-sheet.png').as_uri()}" in said(result)
    assert "[2/6] thinking: " in result.stderr
    assert "succeeded in" in result.stderr
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.width > 2 * 192


def test_a_run_that_is_done_is_not_done_again(shell: Shell) -> None:
    shell.recipe(SHORT)
    first = json.loads(said(shell("run", "mine.yaml", "--json")))
    made = {path: Path(path).stat().st_mtime_ns for path in first["images"]}
    again = shell("run", "mine.yaml", "--json")
    assert json.loads(said(again)) == first
    assert "thinking" not in again.stderr
    assert {path: Path(path).stat().st_mtime_ns for path in first["images"]} == made


def test_a_run_that_was_interrupted_goes_on_where_it_was(shell: Shell) -> None:
    shell.use({"AUTOSEQ_MODEL": "scripted", "AUTOSEQ_SCRIPTED_DELAY_S": "0.002"})
    shell.recipe(LONG)
    process = shell.start("run", "mine.yaml")
    lines_until(process, "image 1: ")
    process.send_signal(signal.SIGINT)
    code, output = end_of(process)
    assert code == 130
    assert "Run the same command again to resume after the last completed step." in output
    shell.use({"AUTOSEQ_MODEL": "scripted"})
    again = shell("run", "mine.yaml")
    assert "resuming after step " in again.stderr
    assert "image 1: " not in again.stderr
    assert "image 2  " in said(again)


@pytest.mark.model
def test_a_run_on_real_weights(shell: Shell) -> None:
    shell.recipe("name: mine\ncontext:\n  - text: A large red circle at the center\nimage:\n  num_timesteps: 6\n")
    result = shell("run", "mine.yaml", "--model", str(PROJECT / "models" / "tiny-bagel"), "--json")
    (image,) = json.loads(said(result))["images"]
    assert "model loaded: 19 MB" in result.stderr
    with Image.open(image) as drawn:
        assert drawn.size == (64, 64)


def test_a_model_that_is_not_here_is_named(shell: Shell) -> None:
    assert "nowhere/" in one_error(shell("run", "magical-forest", "--model", "nowhere"), code=2)


def test_a_folder_that_can_not_be_made_is_named(shell: Shell) -> None:
    (shell.folder / "file").write_text("")
    assert "file/out: Not a directory" in one_error(shell("run", "night-sky", "--out", "file/out"), code=2)


def test_the_benchmark_takes_the_options_of_the_engine(shell: Shell) -> None:
    assert "usage: autoseq bench" in said(shell("bench", "--help"))
    assert "/no/such/folder" in one_error(shell("bench", "--model_path", "/no/such/folder"), code=2)
    tiny = str(PROJECT / "models" / "tiny-bagel")
    measured = said(
        shell(
            "bench",
            "--model_path",
            tiny,
            "--only",
            "phases",
            "--rounds",
            "1",
            "--num_timesteps",
            "4",
            "--contexts",
            "20",
        )
    )
    assert "text token, 20 before it" in measured
