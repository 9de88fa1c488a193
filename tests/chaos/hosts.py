"""Workers on separate hosts that can be cut off: network namespaces where they can be made, else processes.

Either way a worker reaches Redis and S3 through fault proxies of its own, one at the address of each link.
"""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from tests.chaos.victims import Place
from tests.faults.proxy import FaultProxy

Link: TypeAlias = Literal["redis", "s3"]
Form: TypeAlias = Literal["namespaces", "processes"]
LINKS: Final[tuple[Link, ...]] = ("redis", "s3")


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where one worker runs, and its links to the services."""

    place: Place
    proxies: dict[Link, FaultProxy]
    devices: dict[Link, str]
    """Our end of each link; none where hosts are processes."""

    def cut(self, *links: Link) -> None:
        """From now on nothing passes, and no connection is closed."""
        for link in links:
            self._set(link, passing=False)

    def heal(self) -> None:
        for link in LINKS:
            self._set(link, passing=True)

    def _set(self, link: Link, *, passing: bool) -> None:
        if self.devices:
            _ip("link", "set", self.devices[link], "up" if passing else "down")
        else:
            self.proxies[link].mode = "clear" if passing else "silent"


def best_form() -> Form:
    """Namespaces, where this process may make them."""
    name = f"autoseq-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except (OSError, subprocess.CalledProcessError):
        return "processes"
    return "namespaces"


@contextlib.contextmanager
def hosts(count: int, form: Form, env: Mapping[str, str]) -> Iterator[Sequence[Host]]:
    """So many hosts, before the services of `env` on this machine's loopback."""
    with contextlib.ExitStack() as undo:
        make = _namespace if form == "namespaces" else _process
        yield [make(number, env, undo) for number in range(count)]


def _process(_number: int, env: Mapping[str, str], undo: contextlib.ExitStack) -> Host:
    proxies = {link: undo.enter_context(FaultProxy(_port(env, link))) for link in LINKS}
    return Host(place=Place(env=_env(env, proxies)), proxies=proxies, devices={})


def _namespace(number: int, env: Mapping[str, str], undo: contextlib.ExitStack) -> Host:
    """A namespace with one pair of devices for each link, and no other way out."""
    tag = uuid.uuid4().hex[:8]
    name = f"autoseq-{tag}"
    _ip("netns", "add", name)
    undo.callback(_ip, "netns", "delete", name)  # the devices go with it
    _ip("-n", name, "link", "set", "lo", "up")
    devices, proxies = {}, {}
    for index, link in enumerate(LINKS):
        ours, theirs = f"as{tag}{index}", f"as{tag}{index}n"
        net = f"10.{64 + os.getpid() % 128}.{number}."  # of the range that is private, and used by nothing but these
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        _ip("address", "add", f"{net}{4 * index + 1}/30", "dev", ours)
        _ip("-n", name, "address", "add", f"{net}{4 * index + 2}/30", "dev", theirs)
        _ip("link", "set", ours, "up")
        _ip("-n", name, "link", "set", theirs, "up")
        devices[link] = ours
        proxies[link] = undo.enter_context(FaultProxy(_port(env, link), host=f"{net}{4 * index + 1}"))
    place = Place(env=_env(env, proxies), inside=("ip", "netns", "exec", name))
    return Host(place=place, proxies=proxies, devices=devices)


def _port(env: Mapping[str, str], link: Link) -> int:
    port = urlsplit(env["AUTOSEQ_REDIS_URL" if link == "redis" else "AUTOSEQ_S3_ENDPOINT"]).port
    assert port is not None
    return port


def _env(env: Mapping[str, str], proxies: dict[Link, FaultProxy]) -> dict[str, str]:
    """The services as they are reached from the host."""
    redis, s3 = proxies["redis"], proxies["s3"]
    url = urlsplit(env["AUTOSEQ_REDIS_URL"])
    return {
        "AUTOSEQ_REDIS_URL": url._replace(netloc=f":{url.password}@{redis.host}:{redis.port}").geturl(),
        "AUTOSEQ_S3_ENDPOINT": s3.endpoint,
    }


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
