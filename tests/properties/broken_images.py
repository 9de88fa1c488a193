"""Image files in every state of repair, and references to images, to the checks of a run's inputs."""

import io
import random
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image

from recipes.recipe import ImageItem, Recipe
from recipes.reference import ImageReferenceError, parse_reference
from storage.objects.memory import MemoryStore
from tests.properties.cases import refused
from tests.properties.damage import damaged
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import MAX_PIXELS, InputError, Sources, checked

PLACE: Final = "context[0].image"
TOKENS: Final = (
    *(
        b"IHDR",
        b"PLTE",
        b"tRNS",
        b"IDAT",
        b"IEND",
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"iCCP",
        b"zTXt",
        b"iTXt",
        b"eXIf",
        b"gAMA",
    ),
    *(
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xda",
        b"\xff\xdb",
        b"\xff\xdd",
        b"\xff\xe1",
        b"\xff\xee",
    ),
    *(
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6",
        b"http://ns.adobe.com/xap/1.0/\0<",
    ),
    *(
        b"RIFF",
        b"WEBP",
        b"VP8 ",
        b"VP8L",
        b"VP8X",
        b"ANIM",
        b"ANMF",
        b"ALPH",
        b"EXIF",
        b"XMP ",
        b"ICCP",
        b"\0" * 64,
        b"\xff" * 64,
    ),
)
SIDES: Final = (0, 1, 2, 7, 255, 8000, 16_383, 16_384, 65_535, 100_000, 2**31 - 1, 2**31, 2**32 - 1)


@cache
def healthy() -> Sequence[bytes]:
    """One of each kind of PNG, JPEG and WebP."""
    picture = Image.effect_noise((20, 14), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "a" * 50, {0x9003: "2020:01:01 00:00:00"}
    grey, other = picture.convert("L"), picture.rotate(90, expand=False)
    palette = picture.convert("P")
    animated: dict[str, Any] = {"save_all": True, "append_images": [other, picture]}
    return [
        *(_saved(picture.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        _saved(grey.convert("I").convert("I;16"), "PNG"),
        _saved(palette, "PNG", transparency=3),
        _saved(picture, "PNG", exif=exif, dpi=(72, 72)),
        _saved(picture, "PNG", **animated),
        *(_saved(picture.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")),
        _saved(picture, "JPEG", progressive=True, exif=exif, comment=b"c" * 90),
        *(_saved(picture.convert(mode), "WEBP", lossless=True) for mode in ("RGB", "RGBA")),
        _saved(picture, "WEBP", exif=exif),
        _saved(picture, "WEBP", **animated),
    ]


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def image_case(rng: random.Random) -> bool:
    """Of an image file: one that is accepted is decoded, and can be turned into what the model reads."""
    data = rng.choice(healthy())
    if rng.random() < 0.2:
        data = _of_another_size(data, rng)
    if rng.random() < 0.9:
        data = damaged(data, rng, TOKENS)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        data = with_right_checksums(data)
    if refused(lambda: checked(PLACE, data), InputError, naming=PLACE):
        return False
    decoded = checked(PLACE, data).decode()
    if decoded.width * decoded.height > MAX_PIXELS:
        raise AssertionError(f"{decoded.size} was accepted")
    if decoded.width * decoded.height < 10**6:
        decoded.convert("RGBA").convert("RGB").getpixel((0, 0))
    return True


def _of_another_size(data: bytes, rng: random.Random) -> bytes:
    """The file with a header that claims other sides."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    if data.startswith(b"\x89PNG"):
        return with_right_checksums(data[:16] + struct.pack(">II", width, height) + data[24:])
    if data.startswith(b"\xff\xd8"):
        start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        return data[:start] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[start + 4 :]
    start = 26 if data[12:16] == b"VP8 " else 21 if data[12:16] == b"VP8L" else 24
    return data[:start] + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + data[start + 4 :]


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks, as far as their lengths make sense, have the right checksums: the damage is met later."""
    fixed, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        end = position + 8 + length
        if end + 4 > len(data):
            break
        chunk = data[position + 4 : end]
        fixed += data[position : position + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        position = end + 4
    return fixed + data[position:]


REFERENCES: Final = (
    *(
        b"photo.png",
        b"a/b c.png",
        b"s3://pictures/a/b.png",
        b"s3://other-bucket/a.png",
        b"../photo.png",
        b"/etc/passwd",
    ),
    *(
        b"data:image/png;base64,iVBORw0KGgo=",
        b"data:image/webp;base64,AAAA",
        b"file:///photo.png",
        b"http://127.0.0.1/a.png",
    ),
)
REFERENCE_TOKENS: Final = (
    *(
        b"/",
        b"..",
        b"../",
        b"./",
        b"//",
        b"\0",
        b"\n",
        b":",
        b"s3://",
        b"data:",
        b"%2e%2e/",
        b"\\",
        b"=",
        b"====",
        b"a" * 300,
    ),
    *(
        b"b/" * 3000,
        b"\xff",
        b"\xe2\x80\xae",
        b"~",
        b"C:",
        b" ",
        b"photo.png",
        b"link",
        b"loop",
        b"locked/photo.png",
        b"pipe",
    ),
)


def reference_case(folder: Path) -> Any:
    """Of a reference to an image, in a folder that holds one, links that lead out and in circles, and a pipe."""
    root = folder / "images"
    root.mkdir()
    (root / "photo.png").write_bytes(healthy()[4])
    (root / "link").symlink_to(folder)
    (root / "loop").symlink_to(root / "loop")
    store = MemoryStore("pictures")
    store.put("a/b.png", healthy()[4], content_type="image/png")
    sources = Sources(folder=root, store=store, rule=InputRule(bucket="runs", prefixes=("s3://pictures/",)))

    def case(rng: random.Random) -> bool:
        content = (
            damaged(rng.choice(REFERENCES), rng, REFERENCE_TOKENS) if rng.random() < 0.9 else rng.choice(REFERENCES)
        )
        text = content.decode("utf-8", "surrogateescape")
        known = not refused(lambda: parse_reference(text), ImageReferenceError)
        recipe = Recipe(name="test", context=(ImageItem(image=text),))
        fetched = not refused(lambda: sources.fetch(recipe), InputError, naming=PLACE)
        if fetched and not known:
            raise AssertionError(f"{text!r} is followed")
        return fetched

    return case
