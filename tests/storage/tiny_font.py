"""A font for the tests of text on pictures: a few characters that Pillow's own lacks, each a solid box.

At 100 px, U+6797, U+68EE and U+1F389 are 100 px wide, U+05D0 is 30 and U+05D1 is 60 px wide of an advance of 100 px.
"""

import base64
import zlib
from pathlib import Path

HAS = "\u6797\u68ee\U0001f389\u05d0\u05d1"

_DATA = (
    "eNqFUctKI1EQPbdja2xFhRlFQUILgwgqYsIEFwFB3AiKr+AMbrQxbbeYxOAkkOxcqit3UXDhB7h27R+onyCIgogbHws3Pef2vb4QtZqqrnPq"
    "Ps6tggBgYQMR2JOzA/Gx9rE9QPSQXVzKOYXS3cMN8S7xgZetLG8dbzQBxijxX991Mv0n2yPMD+lJnwSOkGZ+Qf/l54plXDKD2GRoya4tOejD"
    "BPcPETfmnHIBdahlPUps552c604X86zvE/8prP0rUhfNuJd1SK30647O2oXm1APzjKxe9XZPvf6DR7ISR2BAmdw3FfAdaj2jwHuLhIyJGl0x"
    "gA8r5sROuOJbiwrrDRqmSfVB8OkGWyuLvShUNyrv1OrkXx6cpoahcGpR6jRgm2de1b8Nz7fNU5UH50+J3dXqz3cvbQzjuEamvtlWHTJP6Wfq"
    "Tq+qXPbBv1XOXNxtha7608CvDV2cqAh19TByb+J3otWKWZY8U8+CbCvZjDU/r/XEEJfsINlYPA7Npl7ZlGTBlyZ1TYSdf55OHRG7UlNPJkod"
    "KjfQhB/plXxlxvVKWWedrVpBHhXMwIWHErJwsK66+oX9BzhyYns="
)


def write_tiny_font(folder: Path) -> Path:
    file = folder / "Tiny-Regular.ttf"
    file.write_bytes(zlib.decompress(base64.b64decode(_DATA)))
    return file
