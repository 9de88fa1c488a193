"""Recipes in every state of repair, to the loader: as files, as data, with overrides, as a task's arguments."""

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from core.model_folder import read_spec
from recipes.canonical import recipe_sha256, to_document
from recipes.faults import RecipeError
from recipes.load import find, load, load_resolved
from recipes.overrides import parse_override
from recipes.recipe import ImageItem, Recipe
from storage import keys
from storage.errors import InvalidNameError
from storage.redis.record import RunRecord
from tests.properties.cases import refused
from tests.properties.damage import ODD_VALUES, damaged, damaged_data, nested
from worker.jobs.request import RequestError, RunRequest

ROOT: Final = Path(__file__).parents[2]
TINY: Final = read_spec(ROOT / "models" / "tiny-bagel")
LANGUAGE: Final = (
    *(
        b"extends: case.yaml\n",
        b"extends: ./parent.yaml\n",
        b"extends: magical-forest\n",
        b"extends: ../../x.yaml\n",
        b"extends: ",
    ),
    *(b"vars: {a: b, c: 5}\n", b"${a}", b"$${a}", b"${", b"${a b}", b"${" * 50, b"vars: {a: '${a}'}\n"),
)
"""What refers to other files and other places."""
SHIPPED: Final = sorted((ROOT / "recipes").glob("*.yaml"))
TOKENS: Final = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\t",
        b"\r",
        b"\r\n",
        b"\x85",
    ),
    *(
        b"\xe2\x80\xa8",
        b"<<: *a\n",
        b"&a ",
        b"*a ",
        b"!!python/object:os.system ",
        b"!!binary ",
        b"!<!> ",
        b"--- \n",
        b"...\n",
    ),
    *(
        b"%YAML 1.1\n",
        b"? ",
        b": ",
        b"- ",
        b"- - - - - ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"[[[[[[[[[[[[",
        b'"',
        b"'",
        b"|\n",
        b">-\n",
        b"#",
    ),
    *(
        b"0x1F",
        b"0o7",
        b"1e999",
        b".nan",
        b"-.inf",
        b"9" * 400,
        b"9" * 5000,
        b"null",
        b"~",
        b"yes",
        b"seed: ",
        b"context:\n",
    ),
    *(
        b"num_images: 99999999999999999999\n",
        b"image: {width: 1e3}\n",
        b"a" * 70_000,
        b"\n" * 3000,
        b"\\ud800",
        b"\\x00",
        b",",
    ),
)


@cache
def shipped() -> Sequence[bytes]:
    return [file.read_bytes() for file in SHIPPED]


@cache
def shipped_data() -> Sequence[Mapping[str, Any]]:
    return [yaml.safe_load(content) for content in shipped()]


def must_come_back(recipe: Recipe) -> None:
    """What was accepted is read back as itself, for any model, and is known by the same hash."""
    again = load_resolved(to_document(recipe))
    hashes = ["0" * 64 for item in recipe.context if isinstance(item, ImageItem)]
    if again != recipe or recipe_sha256(to_document(again), hashes) != recipe_sha256(to_document(recipe), hashes):
        raise AssertionError(f"read back as {again}")


def loads(source: Any, naming: str = "", **options: Any) -> bool:
    """Whether the loader takes it. Any error but a RecipeError whose every fault is one line gets out."""
    try:
        recipe = load(source, **options)
    except RecipeError as error:
        lines = [str(fault) for fault in error.faults]
        if not lines or any(not line.strip() or len(line.splitlines()) != 1 or naming not in line for line in lines):
            raise AssertionError(f"faults without their place: {lines[:5]!r}") from error
        return False
    must_come_back(recipe)
    return True


def file_case(folder: Path) -> Any:
    """Of a recipe file: noise, or a shipped recipe with wounds."""
    file = folder / "case.yaml"
    (folder / "parent.yaml").write_bytes(b"name: parent\ncontext:\n- text: A ${a}\nvars: {a: cat}\n")

    def case(rng: random.Random) -> bool:
        match rng.randrange(10):
            case 0:
                content = rng.randbytes(rng.choice((0, 1, 3, 50, 500)))
            case 1:
                content = b"".join(rng.choice(TOKENS) for _ in range(rng.randint(1, 30)))
            case 2:
                content = _swollen(rng)
            case _:
                content = damaged(rng.choice(shipped()), rng, rng.choice((TOKENS, LANGUAGE)))
        file.write_bytes(content)
        return loads(file, naming=str(folder), spec=rng.choice((None, TINY)))

    return case


def _swollen(rng: random.Random) -> bytes:
    """Deep, long, wide, or small with a large meaning."""
    size = rng.choice((10, 30, 500, 20_000))
    match rng.randrange(6):
        case 0:
            return b"[" * size
        case 1:
            return b"".join(b" " * depth + b"a:\n" for depth in range(min(size, 700)))
        case 2:
            levels = [b"a0: &a0 [x, x]"] + [
                b"a%d: &a%d [*a%d, *a%d]" % (level, level, level - 1, level - 1) for level in range(1, 40)
            ]
            return b"\n".join(levels)
        case 3:
            return b"name: a\ncontext:\n" + b"- text: x\n" * size
        case 4:
            return b"\n".join(b"key%d: 1" % number for number in range(size))
        case _:
            return b"name: " + b"9" * size + b"\nseed: -" + b"1" * size


def data_case(rng: random.Random) -> bool:
    """Of a recipe as data, nearly right, with overrides that are nearly right."""
    document = damaged_data(rng.choice(shipped_data()), rng)
    overrides = damaged_data(_overrides(rng), rng) if rng.random() < 0.3 else None
    return loads(document, overrides=overrides, spec=rng.choice((None, TINY)))


def text_case(rng: random.Random) -> bool:
    """Of a recipe as YAML text, nearly right."""
    document = damaged_data(rng.choice(shipped_data()), rng)
    try:
        text = yaml.safe_dump(document, allow_unicode=rng.random() < 0.5, width=rng.choice((20, 10**6)))
    except (yaml.YAMLError, RecursionError, UnicodeError):
        text = json.dumps(document) if rng.random() < 0.5 else repr(document)
    return loads(text, naming="<recipe>:")


def _overrides(rng: random.Random) -> dict[str, Any]:
    names = [
        "num_images",
        "image.width",
        "width",
        "text.top_k",
        "context.0.text",
        "context.0",
        "retry.below",
        "image",
        "seed",
    ]
    return {rng.choice(names): rng.choice(ODD_VALUES) for _ in range(rng.randint(1, 4))}


SETS: Final = (
    *(b"num_images=5", b"image.width=512", b"context.0.text=A dog", b"text={top_k: 5}", b"seed=0x10", b"think=true"),
    *(b"refinement_prompts=[larger, 'blue']", b'name="a"', b"image.cfg_interval=[0.1, 0.9]", b"context.1={text: B}"),
)
SET_TOKENS: Final = (
    *(
        b"=",
        b".",
        b"..",
        b"0",
        b"9" * 5000,
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b"\n",
        b": ",
        b", ",
        b"#",
        b"\0",
        b"\xff",
    ),
    *(b"a." * 30, b"[" * 50, b"&a ", b"*a", b"!!int ", b"\xe2\x80\xa8", b" ", b"\t", b"-1", b"1e999", b".nan", b"null"),
)


def set_case(rng: random.Random) -> bool:
    """Of `--set` on a command line, whose bytes come as the system hands them over."""
    content = damaged(rng.choice(SETS), rng, SET_TOKENS) if rng.random() < 0.9 else rng.choice(SETS)
    text = content.decode("utf-8", "surrogateescape")
    given: dict[str, Any] = {}

    def parse() -> None:
        key, value = parse_override(text)
        given[key] = value

    if refused(parse, RecipeError, naming="override"):
        return False
    return loads({"name": "test", "context": [{"text": "A cat"}]}, overrides=given, naming="override")


NAMES: Final = (b"run-1", b"a", b"A.b_c-9", b"0" * 128, b"recipe-" + b"f" * 64, b"..", b"a/b", b"a b")
NAME_TOKENS: Final = (
    b"/",
    b"..",
    b"\0",
    b"\n",
    b" ",
    b":",
    b"\xff",
    b"\xc3\xa9",
    b"\xd9\xa3",
    b"%2f",
    b"a" * 130,
    b"*",
    b"{",
    b"-",
)


def name_case(rng: random.Random) -> bool:
    """Of a run id, an idempotency key, a prefix: what is taken is safe as a part of a key."""
    text = damaged(rng.choice(NAMES), rng, NAME_TOKENS).decode("utf-8", "surrogateescape")
    kind = rng.randrange(3)

    def call() -> str:
        if kind == 0:
            return keys.run_folder("runs", text)
        return keys.idempotency(text) if kind == 1 else keys.run_folder(text, "run")

    if refused(call, InvalidNameError, naming="must be"):
        return False
    key = call()
    if not key.isascii() or not key.isprintable() or " " in key or (kind != 1 and {".", ".."} & set(key.split("/"))):
        raise AssertionError(f"unsafe: {key!r}")
    return True


def request_case(rng: random.Random) -> bool:
    """Of the task's arguments, as JSON brings them: what is understood can be written down and read again."""
    recipe = damaged_data(rng.choice(shipped_data()), rng) if rng.random() < 0.6 else rng.choice(["magical-forest", ""])
    kwargs = {
        "recipe": recipe,
        "overrides": _overrides(rng),
        "variables": {"a": "b"},
        "priority": "high",
        "idempotency_key": "key-1",
    }
    given = damaged_data({name: kwargs[name] for name in kwargs if rng.random() < 0.7}, rng)
    args = [rng.choice(ODD_VALUES) for _ in range(rng.choice((0, 0, 0, 1, 2, 5)))]
    if not isinstance(given, dict):
        given = {"recipe": given}
    if rng.random() < 0.1:
        given = {**given, "recipe": nested(rng, rng.choice((10, 100, 300)))}
    asked: list[RunRequest] = []
    if refused(lambda: asked.append(RunRequest.parse("run-1", args, given)), RequestError):
        return False
    (request,) = asked
    record = RunRecord(
        run_id="run-1",
        document=request.recipe,
        overrides=request.overrides,
        priority=request.priority,
        idempotency_key=request.idempotency_key,
        variables=request.variables,
        submitted_at=1.0,
    )
    text = record.to_json()
    text.encode()
    again = RunRequest.of(RunRecord.from_json("run-1", text))
    if json.dumps(again.kwargs(), sort_keys=True) != json.dumps(request.kwargs(), sort_keys=True):
        raise AssertionError(f"written down, it is read as {again}")
    if isinstance(request.recipe, str):
        name = request.recipe
        refused(lambda: find(name), RecipeError)
        return True
    document = request.recipe
    refused(lambda: load(document, overrides=request.overrides), RecipeError)
    return True
