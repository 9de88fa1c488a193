"""One run kills each worker that serves it, among many good ones."""

from tests.chaos.ground import Ground, Report, names
from worker.errors import RunFailed


def poison(on: Ground, *, seed: int, good: int, workers: int) -> Report:
    """The deadly run fails after its attempts, and all others succeed once."""
    fleet = on.have_workers(workers)
    fresh, deadly = names("good", seed), next(names("poison", seed, images=2))
    asked = [next(fresh) for _ in range(good)]
    (fleet.folder / "poison" / deadly).write_text("3")
    order = [*asked[: good // 3], deadly, *asked[good // 3 :]]
    for run_id in order:
        on.submit(run_id)
    on.until_over(order)
    faults = []
    state = on.client.state(deadly)
    types = [event["type"] for event in on.events(deadly)]
    starts = types.count("started")
    try:
        on.client.result(deadly)
        faults.append("the deadly run has a result")
    except RunFailed as error:
        if "giving up after 3 attempts without progress past step 2" not in str(error):
            faults.append(f"{deadly}: {error}")
    if (state.state, types[-1], types.count("failed")) != ("failed", "failed", 1):
        faults.append(f"{deadly}: {state.state}, with the events {types}")
    return Report(
        name="poison among good runs",
        figures=f"{good} good runs on {workers} workers; the deadly one was started {starts} times: {state.error}",
        faults=[*faults, *on.faults(asked)],
    )
