"""The engine in a notebook: no queue, no services. Run it cell by cell, or all at once from the repository's folder."""

# ruff: noqa: T201 - a notebook prints its results

# %% Load the model. Put the path of another model folder here.
from pathlib import Path

from core.bagel import Bagel
from core.events import Event, ImageReady, TextReady
from core.inferencer import AutoInterleavedInferencer

model = Bagel.load("models/tiny-bagel")
pictures = Path("out/notebook")
pictures.mkdir(parents=True, exist_ok=True)

# %% One sequence: the model plans, draws, says what to change, and draws again.
inferencer = AutoInterleavedInferencer(model, seed=76)
outputs = inferencer.generate_auto_sequence(["A magical forest"], num_images=3, think=True)
for number, output in enumerate(outputs, start=1):
    if isinstance(output, str):
        print(f"{number}. {output}")
    else:
        output.save(pictures / f"{number}.png")
        print(f"{number}. a picture of {output.width} x {output.height} pixels")

# %% Continue from the same context, one output at a time.
inferencer.add_to_context("Change the background to black")
night = inferencer.generate_image()
night.save(pictures / "night.png")

# %% Edit a picture, and print each output as soon as it is generated.


def print_output(event: Event) -> None:
    """Print a text, or save an image."""
    if isinstance(event, TextReady):
        print(f"step {event.step.number}: {event.text}")
    elif isinstance(event, ImageReady):
        event.image.save(pictures / f"edited-{event.index + 1}.png")
        print(f"step {event.step.number}: picture {event.index + 1}")


inferencer.reset()
inferencer.generate_auto_sequence(
    [night, "Add a small yellow star at the bottom right"],
    num_images=2,
    image={"num_timesteps": 16},
    on_event=print_output,
)
