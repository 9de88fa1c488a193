"""A recipe reads images of runs and of listed places; every other object in the bucket stays private."""

import pytest

from recipes.reference import S3Reference, parse_reference
from storage.objects.s3 import S3Store
from tests.worker.jobs.test_inputs import png
from tests.worker.serving import DEADLINE_S, PREFIX, WorkerProcess, config_of, make_run, recipe, request
from tests.worker.test_tasks import deliver, wait_for_record
from worker.client import Client, InputError
from worker.errors import RunFailed
from worker.jobs.input_rule import InputRule
from worker.settings import Settings

RULE = InputRule(bucket="runs", prefix="made", run_id="own", prefixes=("s3://pictures/", "s3://runs/uploads/"))
CLOSED = InputRule(bucket="runs", prefix="made", run_id="own", reads_runs=False)


def allows(rule: InputRule, address: str) -> bool:
    reference = parse_reference(address)
    assert isinstance(reference, S3Reference)
    return rule.allows(reference)


@pytest.mark.parametrize(
    "name", ["inputs/000.png", "inputs/001.jpg", "steps/004-image.png", "steps/004-image.v0.v1.png"]
)
def test_images_of_runs_may_be_used_unless_a_setting_forbids_it(name: str) -> None:
    assert allows(RULE, f"s3://runs/made/own/{name}")
    assert allows(RULE, f"s3://runs/made/other/{name}")
    assert allows(CLOSED, f"s3://runs/made/own/{name}")
    assert not allows(CLOSED, f"s3://runs/made/other/{name}")


@pytest.mark.parametrize(
    "key",
    [
        *("made/other/recipe.json", "made/other/commits/001.json", "made/other/index.html", "made/other/manifest.json"),
        *("made/other/steps/003-thinking.txt", "made/other/steps/004-image.png/x.png", "made/steps/004-image.png"),
        *("made/sweeps/inputs/000.png", "made/sweeps/night/contact-sheet.png", "other/own/inputs/000.png"),
        *(
            "inputs/000.png",
            "made/-a/inputs/000.png",
            "made/other/inputs/\uff10\uff10\uff10.png",
            "made2/a/inputs/000.png",
        ),
        *("uploads", "uploads2/a.png"),
    ],
)
def test_no_other_object_of_the_bucket_may_be_used(key: str) -> None:
    assert not allows(RULE, f"s3://runs/{key}")


def test_listed_places_may_be_used_and_no_others_that_begin_alike() -> None:
    assert allows(RULE, "s3://pictures/any/where.png")
    assert allows(RULE, "s3://runs/uploads/a/b.png")
    for address in ("s3://pictures2/a.png", "s3://other/made/own/inputs/000.png"):
        assert not allows(RULE, address)


def test_the_settings_list_the_places() -> None:
    env = {"AUTOSEQ_S3_BUCKET": "runs", "AUTOSEQ_S3_PREFIX": "made"}
    given = config_of(env).model_copy(
        update={"s3_input_buckets": ("runs", "pictures"), "s3_input_prefixes": ("s3://runs/uploads/",)}
    )
    assert InputRule.of(given, "own") == RULE
    with pytest.raises(ValueError, match="s3_input_prefixes"):
        Settings(s3_input_prefixes=("s3://pictures/no-slash",))


def test_an_object_that_exists_and_one_that_does_not_get_the_same_answer(
    scripted_worker: WorkerProcess, client: Client, s3_store: S3Store, run_id: str
) -> None:
    make_run(request(run_id), s3_store)
    s3_store.put(f"tenants/{run_id}.png", png(), content_type="image/png")
    private = [
        *(f"{PREFIX}/{run_id}/commits/001.json", f"tenants/{run_id}.png"),
        *(
            f"{PREFIX}/{run_id}/commits/999.json",
            f"tenants/{run_id}-none.png",
            f"{PREFIX}/{run_id}/steps/999-image.png",
        ),
    ]
    answers = set()
    for number, key in enumerate(private):
        document = recipe(context=[{"image": s3_store.address(key)}, {"text": "Larger"}])
        deliver(scripted_worker, f"{run_id}-{number}", document)
        wait_for_record(client, f"{run_id}-{number}")
        with pytest.raises(RunFailed) as told:
            client.result(f"{run_id}-{number}", timeout_s=DEADLINE_S)
        with pytest.raises(InputError) as told_before:
            client.submit(document)
        assert str(told_before.value) == str(told.value)
        answers.add(str(told.value).replace(s3_store.address(key), "IT"))
    assert len(answers) == 1, answers


def test_a_result_of_an_earlier_run_may_be_edited(client: Client, s3_store: S3Store, run_id: str) -> None:
    make_run(request(run_id), s3_store)
    image = s3_store.address(f"{PREFIX}/{run_id}/steps/003-image.png")
    edited = client.submit(recipe(context=[{"image": image}, {"text": "Larger"}], num_images=1))
    assert client.result(edited, timeout_s=DEADLINE_S)["run_id"] == edited
