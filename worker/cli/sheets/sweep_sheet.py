"""The contact sheet of a sweep: the last image of each run, in rows and columns by the swept fields."""

import io
from collections.abc import Callable

from PIL import Image

from recipes.sweep import values_text
from storage.figures import figures
from storage.journal import Journal
from storage.sheet import Tile, tiled_sheet
from storage.sweeps import Sweep
from worker.cli.sheets.run_sheet import read_image
from worker.client.sweeps import States

ACROSS = 8
"""Images in a row when only one field varies."""
SIDES_PX = ((4, 256), (8, 192), (256, 128))
"""Side of an image by the largest number of images in a row."""


def sweep_sheet(sweep: Sweep, states: States, journal: Callable[[str], Journal]) -> bytes:
    """A PNG; `journal` returns a run's folder. A run without an image, such as a failed one, leaves its place empty."""
    fixed = {field: values[0] for field, values in sweep.fields.items() if len(values) == 1}
    *fields, last = [field for field in sweep.fields if field not in fixed] or sweep.fields
    across = len(sweep.fields[last]) if fields else min(ACROSS, len(sweep.runs))
    side_px = next(side_px for most, side_px in SIDES_PX if across <= most)
    tiles = []
    for number, run in enumerate(sweep.runs):
        image, state = last_image(journal(run.run_id), side_px), states[run.run_id]
        label = "" if fields else values_text({last: run.values[last]})
        why = "" if image else state.state if state else "unknown"
        caption = "\n".join(filter(None, (label, why)))
        tiles.append(Tile(image=image, caption=caption, row=number // across, column=number % across))
    firsts = [run.values for run in sweep.runs[::across]]
    sheet = tiled_sheet(
        tiles,
        side_px=side_px,
        title=", ".join(filter(None, (f"{sweep.name}: {sweep.sweep_id}", values_text(fixed)))),
        row_labels=[values_text({field: values[field] for field in fields}) for values in firsts] if fields else [],
        column_labels=[values_text({last: value}) for value in sweep.fields[last]] if fields else [],
    )
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()


def last_image(journal: Journal, side_px: int) -> Image.Image | None:
    """The last selected image of a complete run, reduced to about the size it is shown at; None if there is none."""
    manifest = journal.manifest()
    shown = figures(manifest.artifacts) if manifest else ()
    if not shown:
        return None
    image = read_image(journal, shown[-1].selected[-1].key)
    if max(image.size) > 2 * side_px:  # a sweep may have hundreds of large images in memory
        image.thumbnail((2 * side_px, 2 * side_px))
    return image
