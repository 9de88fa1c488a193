"""`autoseq plan --memory`: what a recipe needs, and on which GPUs it runs."""

import json
from typing import Any

from tests.worker.shell import Shell, one_error, said
from worker.settings import PROJECT

PUBLISHED = ("--memory", "--model", "BAGEL-7B-MoT")
CARDS = (80, 48, 24, 16, 12)


def planned(shell: Shell, *given: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(said(shell("plan", *given, *PUBLISHED, "--json")))
    return plan


def cards(plan: dict[str, Any], quantization: str | None, key: str) -> list[Any]:
    (precision,) = (one for one in plan["precisions"] if one["quantization"] == quantization)
    assert [card["gib"] for card in precision["cards"]] == list(CARDS)
    return [card[key] for card in precision["cards"]]


def test_the_published_model_is_planned_without_its_folder(shell: Shell) -> None:
    plan = planned(shell, "magical-forest")
    assert (plan["model"], plan["images_at_once"], plan["exact_tokens"]) == ("bagel-7b-mot", 1, False)
    assert cards(plan, None, "fits") == ["fits", "fits", "offload", "offload", "offload"]
    assert cards(plan, "nf4", "fits") == ["fits", "fits", "fits", "fits", "offload"]
    assert cards(plan, None, "resident_layers") == sorted(cards(plan, None, "resident_layers"), reverse=True)
    assert [one["weights_bytes"] // 10**9 for one in plan["precisions"]] == [29, 16, 10]
    assert plan["precisions"][0]["context_bytes"] > plan["context_tokens"] * 57_344
    for resident, host in zip(*(cards(plan, None, key) for key in ("resident_layers", "host_bytes")), strict=True):
        assert resident + round(host / 932.3e6) == 28


def test_a_batch_is_as_large_as_the_gpu_allows(shell: Shell) -> None:
    plan = planned(shell, "magical-forest", "--set", "variations_per_image=8")
    assert cards(plan, None, "batch") == [8, 6, 1, 1, 1]
    assert cards(plan, "nf4", "batch") == [8, 8, 4, 1, 1]


def test_smaller_images_and_fewer_branches_need_less(shell: Shell) -> None:
    given = ("night-sky", "--set", "variations_per_image=4")
    large = planned(shell, *given)["precisions"][0]
    small = planned(shell, *given, "--set", "image.width=512", "--set", "image.height=512")["precisions"][0]
    plain = planned(shell, *given, "--set", "image.cfg_text_scale=1")["precisions"][0]
    assert small["activations_bytes"] < large["activations_bytes"]
    assert small["context_bytes"] < large["context_bytes"]
    assert plain["activations_bytes"] < large["activations_bytes"]


def test_a_context_too_long_for_a_gpu_names_what_would_fit(shell: Shell) -> None:
    plan = planned(shell, "magical-forest", "--set", "num_images=12")
    assert plan["context_tokens"] > 100_000
    assert cards(plan, "int8", "fits") == ["fits", "fits", "no", "no", "no"]
    longer = f"AUTOSEQ_CONTEXT_TOKENS={plan['context_tokens']}"
    assert cards(plan, "int8", "would_fit") == [None, None, longer, longer, "a smaller max_context_items"]
    shell.use({"AUTOSEQ_CONTEXT_TOKENS": str(plan["context_tokens"])})
    assert cards(planned(shell, "magical-forest", "--set", "num_images=12"), "int8", "fits")[2:4] == ["offload"] * 2


def test_the_table_says_what_fits(shell: Shell) -> None:
    first, *rows = said(shell("plan", "magical-forest", *PUBLISHED)).splitlines()[:4]
    assert first.split("\t") == ["weights", "size", "context", "activations", *(f"{card} GB" for card in CARDS)]
    assert [row.split("\t")[0] for row in rows] == ["bfloat16", "int8", "nf4"]
    assert rows[0].split("\t")[4:7] == ["fits, batch 1", "fits, batch 1", "offload 14 of 28 layers, batch 1"]


def test_a_model_folder_is_counted_as_it_is(shell: Shell) -> None:
    model = str(PROJECT / "models" / "tiny-bagel")
    plan = json.loads(said(shell("plan", "magical-forest", "--memory", "--model", model, "--json")))
    assert plan["exact_tokens"] is True
    assert plan["precisions"][0]["weights_bytes"] == 17_731_382
    assert set(cards(plan, None, "fits")) == {"fits"}


def test_a_model_without_weights_has_no_memory_to_plan(shell: Shell) -> None:
    error = one_error(shell("plan", "magical-forest", "--memory", "--model", "scripted"), code=2)
    assert "scripted has no weights; --memory needs --model with a model folder" in error
