"""Run with the code of release 0.1.0: print as JSON what it finds in the bucket of the folder that is given."""

# mypy: ignore-errors

import json
import sys
from pathlib import Path

from worker.branch import branched
from worker.difference import compare
from worker.origin import origin_of_run
from worker.result import result_of
from worker.verify import verify

from storage.journal import Journal
from storage.objects import MemoryStore
from worker.history import PlaceError

PREFIX = "runs"


def branch_of(journal, at, variation):
    try:
        return branched(journal, at=at, variation=variation, overrides={"num_images": 1})
    except PlaceError:
        return None


def read(journal):
    commits, manifest, origin = journal.commits(), journal.manifest(), origin_of_run(journal)
    return {
        "recipe_sha256": origin.fingerprint,
        "yaml": origin.to_yaml(),
        "branches": [
            [branch_of(journal, commit.step, variation) for variation in (None, 0, 1, 2)] for commit in commits
        ],
        "result": manifest and result_of(manifest, journal),
        "verify": verify(journal).to_data(),
    }


def main(folder, pairs):
    store = MemoryStore()
    for file in folder.rglob("*.*"):
        store.put(file.relative_to(folder).as_posix(), file.read_bytes(), content_type="")
    runs = sorted({key.split("/")[1] for key in store.list(f"{PREFIX}/")} - {"sweeps"})
    journals = {run_id: Journal(store, PREFIX, run_id) for run_id in runs}
    found = {run_id: read(journal) for run_id, journal in journals.items()}
    differences = {f"{one} {other}": compare(one, other, journals.get).to_data() for one, other in pairs}
    return {"runs": found, "differences": differences}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
