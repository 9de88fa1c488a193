"""The documentation says what the program does: its recipes load, its Python runs, its names exist."""

import ast
import contextlib
import inspect
import io
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr

from core.model_folder import fingerprint, read_spec
from core.plan import plan
from recipes import recipe as recipe_module
from recipes.defaults import image_defaults
from recipes.fields import allowed
from recipes.load import load
from recipes.recipe import ImageSettings, JudgeSettings, OutputSettings, Recipe, Retry, StepCacheSettings, TextSettings
from storage.events import EVENTS
from tools import event_schema
from worker import settings as worker_settings
from worker.cli.main import app
from worker.settings import PROJECT, Settings

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "guide.md",
    ROOT / "docs" / "events.md",
    ROOT / "docs" / "traps.md",
    ROOT / "docs" / "measured.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "models" / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
]
GUIDE = PAGES[1].read_text()
ARCHITECTURE = PAGES[5].read_text()
TEXT = "\n".join(page.read_text() for page in PAGES) + (ROOT / ".env.example").read_text()

SETTING = re.compile(r"AUTOSEQ_[A-Z0-9_]+")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; of none, by the empty name."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def section(title: str) -> str:
    """The guide's words under a heading of the second level."""
    return re.split(r"^## ", GUIDE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(text: str) -> list[list[str]]:
    """The tables' rows, cell by cell, heads and rulers left out."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith("-")]


@pytest.mark.parametrize("text", [text for page in PAGES for text in blocks(page.read_text(), "yaml")])
def test_every_recipe_loads(text: str) -> None:
    spec = read_spec(ROOT / "models" / "tiny-bagel")
    assert load(text, spec=spec).name == re.findall(r"^name: (.+)$", text, re.MULTILINE)[0]


@pytest.mark.parametrize("text", [text for page in PAGES for text in blocks(page.read_text(), "python")])
def test_all_python_compiles(text: str) -> None:
    compile(text, "<docs>", "exec")


@pytest.mark.model
def test_the_python_api_does_what_the_guide_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for text in blocks(section("Python API"), "python"):
            exec(text, names)  # one program in several blocks, as the reader types them
    assert [type(output).__name__ for output in names["outputs"]] == ["str", "Image", "str", "str", "Image"]
    assert "<think>" in printed.getvalue()
    assert {path.name for path in tmp_path.glob("*.png")} == {"2.png", "5.png", "picture-0.png", "picture-1.png"}


def in_yaml(value: object) -> str:
    """A default as a recipe has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)


KINDS: dict[str, Any] = {
    "": Recipe,
    "text": TextSettings,
    "image": ImageSettings,
    "image.step_cache": StepCacheSettings,
    "judge": JudgeSettings,
    "retry": Retry,
    "output": OutputSettings,
}
FIELDS = {f"{group}.{field.name}".lstrip("."): field for group, kind in KINDS.items() for field in fields(kind)}


def documented_fields() -> dict[str, list[str]]:
    """Field -> the cells behind it, from the tables in the order of KINDS."""
    groups = iter(KINDS)
    found: dict[str, list[str]] = {}
    for first, *rest in rows(section("The recipe, field by field")):
        if first == "field":
            group = next(groups)
        else:
            found[f"{group}.{first.strip('`')}".lstrip(".")] = rest
    return found


def docstrings(module: Any, kind: str) -> dict[str, str]:
    """The docstrings of a class's attributes, each as one line."""
    found: dict[str, str] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef) and node.name == kind:
            for field, text in zip(node.body, node.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as words)):
                        found[name] = " ".join(words.split())
    return found


def test_the_guide_has_every_field_of_a_recipe() -> None:
    assert documented_fields().keys() == FIELDS.keys()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_field_means_in_the_guide_what_it_means_in_the_code(name: str) -> None:
    group, _, field = name.rpartition(".")
    assert documented_fields()[name][-1] == docstrings(recipe_module, KINDS[group].__name__)[field]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_guide_has_a_fields_bounds_and_default(name: str) -> None:
    bounds, default, *_ = documented_fields()[name]
    assert bounds == allowed(tuple(name.split(".")))
    if FIELDS[name].default is MISSING:
        assert default == "must be given"
    elif name in KINDS and FIELDS[name].default is not None:
        assert default in {"the model's", "see below"}
    elif name == "image.cfg_img_scale":  # the guide has what holds for generation
        assert float(default) == image_defaults(None, "generation")["cfg_img_scale"]
    else:
        assert default == in_yaml(FIELDS[name].default)


def test_the_guide_has_the_defaults_of_editing() -> None:
    images = {name: rest for name, rest in documented_fields().items() if name.rpartition(".")[0] == "image"}
    cells = {name: rest[2] for name, rest in images.items() if rest[2]}
    said = {name.removeprefix("image."): cell for name, cell in cells.items()}
    official = {"cfg_img_scale": ImageSettings.cfg_img_scale}
    values = {**image_defaults(None, "editing"), **official}
    assert said == {name: in_yaml(value) for name, value in values.items()}


def test_the_page_of_events_is_current() -> None:
    stored = (ROOT / "docs" / "events.md").read_text()
    assert stored == event_schema.docs_text(), "run: python -m tools.event_schema --docs > docs/events.md"


def test_the_guide_names_every_event_of_a_run() -> None:
    named = set(re.findall(r"`([a-z]+)`", section("What happens to a run")))
    assert {kind.type for kind in EVENTS} - {"gap"} <= named


def test_settings_and_their_documentation_are_the_same() -> None:
    real = {f"AUTOSEQ_{name.upper()}" for name in Settings.model_fields}
    assert set(SETTING.findall(TEXT)) == real


def default_text(name: str) -> str:
    """The default of a setting as the guide has it; empty where the setting's docstring says what it is."""
    value = Settings.model_fields[name].default
    match value:
        case bool():
            return str(value).lower()
        case SecretStr():
            return value.get_secret_value()
        case str() | Path() if str(value).startswith(str(PROJECT)):
            return Path(value).relative_to(PROJECT).as_posix()
        case ():
            return "[]"
        case int() | float():
            return f"{value:.0f}"
    return str(value) if isinstance(value, str) else ""


def settings_rows() -> list[list[str]]:
    """The table of settings, from the code."""
    meanings = docstrings(worker_settings, "Settings")
    return [[f"`AUTOSEQ_{name.upper()}`", default_text(name), meanings[name]] for name in Settings.model_fields]


def test_the_table_of_settings_is_current() -> None:
    assert [row for row in rows(section("Deployment")) if row[0].startswith("`AUTOSEQ_")] == settings_rows()


def command_rows() -> list[list[str]]:
    """The table of commands, from their help."""
    commands = typer.main.get_group(app).commands
    texts = {name: inspect.cleandoc(command.help or "").split("\n\n")[0] for name, command in commands.items()}
    return [[f"`autoseq {name}`", text.replace("\n", " ")] for name, text in texts.items()]


def test_the_table_of_commands_is_current() -> None:
    assert [row for row in rows(section("The command line")) if row[0].startswith("`autoseq ")] == command_rows()


def test_the_guide_pins_the_model_of_the_repository() -> None:
    assert re.findall("^model_sha256: (.+)$", GUIDE, re.MULTILINE) == [fingerprint(ROOT / "models" / "tiny-bagel")]


def test_the_architecture_has_every_script() -> None:
    scripts = {path.stem for path in (ROOT / "storage" / "redis" / "lua").glob("*.lua")}
    assert {first.strip("`") for first, *_ in rows(ARCHITECTURE)} >= scripts


def test_the_architecture_names_only_what_exists() -> None:
    paths = re.findall(r"`((?:worker|core|storage|recipes|tests|tools|docs)/[\w./-]*)`", ARCHITECTURE)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_command_that_is_named_exists_and_every_command_is_named() -> None:
    real = set(typer.main.get_group(app).commands)
    assert set(re.findall(r"\bautoseq ([a-z]+(?:-[a-z]+)*)\b", TEXT)) == real


def test_the_plan_in_the_guide_is_that_of_its_recipe() -> None:
    rules = section("The rules of the sequence")
    shown = re.findall(r"^(\d+) +(\w+)", blocks(rules, "")[0], re.MULTILINE)
    steps = plan(load(blocks(rules, "yaml")[0]))
    assert shown == [(str(step.number), step.kind) for step in steps]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_names_only_what_exists() -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", PAGES[0].read_text()) + blocks(PAGES[0].read_text(), "sh"))
    names = re.findall(r"(?<![\w.-])[\w.-]+/(?:[\w./-]+)?", code)
    missing = [name for name in names if not name.startswith(".venv/") and not (ROOT / name).exists()]
    assert names
    assert not missing
    targets = re.findall(r"make ([a-z]+)", PAGES[0].read_text())
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_contact_sheet_is_small() -> None:
    assert (ROOT / "docs" / "contact-sheet.png").stat().st_size < 200_000
