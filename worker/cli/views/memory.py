"""The table of the memory that a recipe needs."""

from rich.table import Table

from core.memory import CONTEXT_TOKENS, gigabytes
from worker.cli.plan_memory import CARDS_GIB, Card, MemoryPlan
from worker.cli.views.console import table


def memory_table(found: MemoryPlan) -> Table:
    """What is needed with each quantization, one per line, and how the recipe runs on each GPU."""
    rows = table("weights", "size", "context", "activations", *(f"{gib} GB" for gib in CARDS_GIB))
    for precision in found.precisions:
        needs = precision.needs
        rows.add_row(
            precision.quantization or needs.dtype,
            gigabytes(needs.size.whole),
            gigabytes(needs.context),
            gigabytes(needs.activations),
            *(_cell(card, needs.size.num_layers) for card in precision.cards),
        )
    return rows


def _cell(card: Card, layers: int) -> str:
    if card.fits == "no":
        return "no" if card.would_fit is None else f"no; with {card.would_fit}"
    offloaded = f"offload {layers - card.resident_layers} of {layers} layers" if card.fits == "offload" else "fits"
    return f"{offloaded}, batch {card.batch}"


def memory_note(found: MemoryPlan) -> str:
    """How to read `memory_table`."""
    about = "" if found.exact else "about "
    return (
        f"{found.recipe} on {found.model}: at most {about}{found.tokens:,} tokens of context, and "
        f"{found.batch} image{'s' * (found.batch > 1)} at once. Estimates from the shapes of the model, for bfloat16 "
        "and one worker on the GPU. Activations are those of all images at once; a smaller batch needs less. Offloaded "
        "layers are in host memory and are copied for each pass. A worker places weights for a context of "
        f"AUTOSEQ_CONTEXT_TOKENS ({CONTEXT_TOKENS:,} by default)."
    )
