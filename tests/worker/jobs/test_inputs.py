"""Input images come from allowed places only, and are checked before anything is computed."""

import base64
import hashlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from recipes.recipe import ImageItem, Recipe, TextItem
from storage.objects.memory import MemoryStore
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import (
    MAX_BYTES,
    MAX_HELD_BYTES,
    MAX_TOTAL_BYTES,
    MAX_TOTAL_PIXELS,
    InputError,
    Sources,
    with_references,
)

PICTURES = InputRule(bucket="runs", prefix="made", prefixes=("s3://pictures/",))


def png(colour: str = "red", size: tuple[int, int] = (4, 3)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def recipe(*references: str, sha256: str | None = None) -> Recipe:
    images = tuple(ImageItem(image=reference, sha256=sha256) for reference in references)
    return Recipe(name="test", context=(TextItem(text="Look"), *images))


def test_images_come_from_the_folder_from_s3_and_from_the_recipe_itself(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png("red"))
    store = MemoryStore("pictures")
    store.put("a/b.png", png("green"), content_type="image/png")
    uri = "data:image/png;base64," + base64.b64encode(png("blue")).decode()
    sources = Sources(folder=tmp_path, store=store, rule=PICTURES)
    images = sources.fetch(recipe("photo.png", "s3://pictures/a/b.png", uri))
    assert [image.decode().getpixel((0, 0)) for image in images] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]
    assert images[0].sha256 == hashlib.sha256(png("red")).hexdigest()


def test_references_are_replaced_in_order_and_pinned(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(png("red" if name == "one.png" else "blue"))
    given = recipe("one.png", "two.png")
    images = Sources(folder=tmp_path).fetch(given)
    replaced = with_references(given, images, ["inputs/000.png", "inputs/001.png"])
    assert replaced.context == (
        TextItem(text="Look"),
        ImageItem(image="inputs/000.png", sha256=images[0].sha256),
        ImageItem(image="inputs/001.png", sha256=images[1].sha256),
    )


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (6, 4), "red").save(tmp_path / "photo.jpg", exif=exif)
    (image,) = Sources(folder=tmp_path).fetch(recipe("photo.jpg"))
    assert image.decode().size == (4, 6)


def test_a_wrong_pin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png())
    with pytest.raises(InputError, match=r"context\[1\].image: its SHA-256 is [0-9a-f]{64}, the recipe pins 0000"):
        Sources(folder=tmp_path).fetch(recipe("photo.png", sha256="0" * 64))


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    inside = tmp_path / "recipes"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    for reference in ("../secret.png", "link.png", str(tmp_path / "secret.png")):
        with pytest.raises(InputError, match=r"(outside|leaves) the recipe's folder|path is absolute"):
            Sources(folder=inside).fetch(recipe(reference))


@pytest.mark.parametrize("reference", ["http://127.0.0.1/a.png", "https://example.com/a.png", "file:///etc/passwd"])
def test_no_address_is_fetched(reference: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed: "):
        Sources(folder=tmp_path).fetch(recipe(reference))


def test_files_need_a_folder_and_buckets_must_be_allowed() -> None:
    with pytest.raises(InputError, match="this recipe has no folder"):
        Sources().fetch(recipe("photo.png"))
    with pytest.raises(InputError, match="no S3 store is configured"):
        Sources().fetch(recipe("s3://pictures/a.png"))
    for address in ("s3://other-bucket/a.png", "s3://pictures/missing.png"):
        with pytest.raises(InputError, match=f"{address} can't be read: it does not exist, or .* s3://pictures/$"):
            Sources(store=MemoryStore("pictures"), rule=PICTURES).fetch(recipe(address))


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header claims a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a readable image; allowed: PNG, JPEG, WebP"),
        (b"GIF89a" + bytes(20), "is not a readable image"),
        (png()[:50], "is a damaged image"),
        (bomb(20_000, 20_000), "pixels"),
        (bomb(9_000, 9_000), "is 9000 x 9000 pixels; at most 64,000,000"),
        (bytes(MAX_BYTES + 1), "at most 33,554,432 are allowed"),
    ],
)
def test_what_is_no_usable_image_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(data)
    with pytest.raises(InputError, match=message):
        Sources(folder=tmp_path).fetch(recipe("photo.png"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"context\[1\].image: .*photo.png can't be read: No such file"):
        Sources(folder=tmp_path).fetch(recipe("photo.png"))


def test_a_photo_whose_orientation_cannot_be_read_is_refused_before_the_run(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4), "red").save(tmp_path / "photo.png", exif=exif)
    content = bytearray((tmp_path / "photo.png").read_bytes())
    start = content.index(b"eXIf") + 4
    content[start : start + 4] = b"none"
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    content[start + length : start + length + 4] = zlib.crc32(content[start - 4 : start + length]).to_bytes(4, "big")
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(InputError, match=r"context\[1\].image: is a damaged image: not a TIFF file"):
        Sources(folder=tmp_path).fetch(recipe("photo.png"))


def test_a_name_that_leads_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=r"context\[1\].image: 'loop/photo.png' can't be resolved"):
        Sources(folder=tmp_path).fetch(recipe("loop/photo.png"))


def padded(number: int, mebibytes: int) -> bytes:
    """A small image in a large file."""
    return png() + bytes(mebibytes * 2**20) + bytes([number])


def test_the_files_of_a_recipe_have_a_limit_in_all(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(padded(0, 31))
    most = MAX_TOTAL_BYTES // len(padded(0, 31))
    assert len(Sources(folder=tmp_path).fetch(recipe(*["large.png"] * most))) == most
    words = rf"context\[{most + 1}\].image: the images up to it have [0-9,]+ bytes in all; at most {MAX_TOTAL_BYTES:,}"
    with pytest.raises(InputError, match=words):
        Sources(folder=tmp_path).fetch(recipe(*["large.png"] * (most + 1)))


def test_the_pixels_of_a_recipe_have_a_limit_in_all(tmp_path: Path) -> None:
    for level in range(2):
        Image.new("L", (8000, 8000), level).save(tmp_path / f"{level}.png")
    sources = Sources(folder=tmp_path)
    assert len(sources.fetch(recipe(*["0.png", "1.png"] * 4))) == 8
    words = rf"context\[9\].image: the images up to it have 576,000,000 pixels in all; at most {MAX_TOTAL_PIXELS:,}"
    with pytest.raises(InputError, match=words):
        sources.fetch(recipe(*["0.png", "1.png"] * 5))


def test_the_images_of_all_recipes_of_a_sweep_have_a_limit(tmp_path: Path) -> None:
    sources = Sources(folder=tmp_path)
    fits = MAX_HELD_BYTES // len(padded(0, 31))
    for number in range(fits + 1):
        (tmp_path / "large.png").write_bytes(padded(number, 31))
        (tmp_path / f"{number}.png").symlink_to("large.png")
        if number < fits:
            sources.fetch(recipe(f"{number}.png"))
    with pytest.raises(InputError, match=rf"all images have [0-9,]+ bytes; at most {MAX_HELD_BYTES:,} are allowed"):
        sources.fetch(recipe(f"{fits}.png"))


class CountingStore(MemoryStore):
    """Counts how many objects are fetched."""

    fetched = 0

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        self.fetched += 1
        return super().get_address(address, max_bytes=max_bytes)


def test_equal_images_are_fetched_and_kept_once(tmp_path: Path) -> None:
    store = CountingStore("pictures")
    addresses = [f"s3://pictures/{number}.png" for number in range(24)]
    for number in range(24):
        store.put(f"{number}.png", png(), content_type="image/png")
    (tmp_path / "photo.png").write_bytes(png())
    sources = Sources(folder=tmp_path, store=store, rule=PICTURES)
    images = sources.fetch(recipe(*addresses, sha256=hashlib.sha256(png()).hexdigest()))
    unpinned = Sources(folder=tmp_path, store=store, rule=PICTURES).fetch(recipe("photo.png", *addresses))
    assert store.fetched == 1 + 24
    assert {id(image) for image in images} == {id(images[0])}
    assert {id(image) for image in unpinned} == {id(unpinned[0])}


def test_a_pin_that_is_known_opens_no_other_place() -> None:
    store = MemoryStore("pictures")
    store.put("a.png", png(), content_type="image/png")
    given = recipe("s3://pictures/a.png", "s3://secrets/a.png", sha256=hashlib.sha256(png()).hexdigest())
    with pytest.raises(InputError, match=r"context\[2\].image: s3://secrets/a.png can't be read"):
        Sources(store=store, rule=PICTURES).fetch(given)
