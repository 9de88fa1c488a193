"""Valid recipes, drawn."""

from pathlib import Path

from hypothesis import strategies as st

from core.model_folder import read_spec
from recipes.variables import escaped

TINY = read_spec(Path(__file__).parents[2] / "models" / "tiny-bagel")

specs = st.sampled_from([None, TINY])
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
# What a writer or a reader of recipes could stumble over.
texts |= st.text(st.sampled_from("${}x"), min_size=1, max_size=8)
texts |= st.text(st.sampled_from(" \n\r\t#:-'\"|>?&*!%@`[]{},x1\x85\u2028\ufeff"), min_size=1, max_size=8)
texts |= st.sampled_from(["no", "0123", "0o17", "1e3", "12:30:00", "2001-01-01", "~", "=", "<<", ".inf", "---", "a: b"])

items = st.builds(lambda text: {"text": text}, texts) | st.builds(
    lambda image: {"image": image}, st.sampled_from(["s3://bucket/a.png", "data:image/png;base64,AAAA", "a b/c.png"])
)
_fields = st.fixed_dictionaries(
    {"name": st.just("test"), "context": st.lists(items, min_size=1, max_size=4)},
    optional={
        "model": st.sampled_from([None, "tiny-bagel", "7b", "1.5"]),
        "seed": st.integers(0, 2**63 - 1),
        "num_images": st.integers(1, 64),
        "think": st.booleans(),
        "refinement_prompts": st.lists(st.none() | texts, max_size=4),
        "refine_instruction": st.none() | texts,
        "max_context_items": st.none() | st.integers(5, 256),
        "pin": st.sampled_from(["initial", "none"]),
        "retry": st.none() | st.fixed_dictionaries({"below": st.floats(0, 1), "times": st.integers(1, 8)}),
        "text": st.fixed_dictionaries({}, optional={"temperature": st.floats(0, 5), "top_k": st.integers(0, 9)}),
        # A size that every model here can draw.
        "image": st.fixed_dictionaries(
            {"width": st.just(64), "height": st.just(32)}, optional={"cfg_img_scale": st.floats(0, 100)}
        ),
        "output": st.fixed_dictionaries({}, optional={"page": st.booleans()}),
    },
)
recipes = _fields.map(lambda fields: escaped({"image": {"width": 64, "height": 32}, **fields}))
"""As data, without variables."""
