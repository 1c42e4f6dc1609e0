"""Where keys go, and a person's word for it: what the command line has confirmed before a key leaves this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import DEFAULT_KEY, Endpoint
from judgeloop.wire.line import is_local, split_address


class Sending(NamedTuple):
    """The value of an environment variable that goes to a host (with its port, where one is stated); ``in_clear``: by plain http,
    to a host that is not this machine."""

    variable: str
    host: str
    in_clear: bool

    def __str__(self) -> str:
        return f"the value of {self.variable} to {self.host}{', unencrypted' if self.in_clear else ''}"

    def record(self) -> dict[str, Any]:
        """As environment.json holds it."""
        return {"variable": self.variable, "host": self.host, "unencrypted": self.in_clear}


def recorded(environment: Mapping[str, Any]) -> list[Sending]:
    """What was confirmed in a folder with that environment.json. Entries that cannot be read confirm nothing."""
    entries = environment.get("keys_confirmed")
    return [
        Sending(str(entry.get("variable")), str(entry.get("host")), entry.get("unencrypted") is True)
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
    ]


@dataclass(frozen=True)
class Consent:
    """How it is confirmed that keys are sent. ``yes``: it is, whatever they are. ``ask`` shows sentences and gives a person's answer;
    None where there is nobody to ask. ``file``: the experiment file that names the endpoints; empty where the command line does."""

    yes: bool
    ask: Callable[[Sequence[str]], bool | None]
    file: str = ""

    def needed(self, endpoints: Iterable[Endpoint]) -> list[Sending]:
        """What has to be confirmed, each once: every key that goes out unencrypted, and of endpoints of a file every variable that
        they name, but for OPENAI_API_KEY at OpenAI's own address."""
        return list(dict.fromkeys(sending for endpoint in endpoints for sending in self._needed(endpoint)))

    def _needed(self, endpoint: Endpoint) -> Iterator[Sending]:
        try:
            address = split_address(endpoint.base_url or "")
        except ValueError:
            return  # an engine, or no address: nothing is sent there
        host = str(address.hostname)
        host = host if host.isascii() else host.encode("idna").decode()  # letters that look like others are seen
        place = f"[{host}]" if ":" in host else host
        place = f"{place}:{address.port}" if address.port else place
        in_clear = address.scheme == "http" and not is_local(address.hostname)
        for _, variable in endpoint.variables():
            is_own = endpoint.at_openai and variable == DEFAULT_KEY
            if in_clear or (self.file and not is_own):
                yield Sending(variable, place, in_clear)

    def confirm(self, sendings: Sequence[Sending]) -> None:
        """Have these confirmed. Raises InvalidInput where they are not."""
        if self.yes or not sendings:
            return
        subject = self.file or "this command"
        answer = self.ask([f"{subject} sends {each}" for each in sendings])
        if answer is None:
            raise InvalidInput(f"{subject} sends {' and '.join(map(str, sendings))}; give --yes to confirm that")
        if not answer:
            raise InvalidInput(
                f"{subject}: not confirmed, and nothing was sent; name other keys or addresses, or confirm"
            )

    def check(self, endpoint: Endpoint, confirmed: Sequence[Sending]) -> list[Sending]:
        """What ``yes`` confirms of an address that became known while asking, as that of a trained model: nobody is asked then, and
        nothing has to be confirmed on this machine. Raises InvalidInput where something has to be and is not."""
        if is_local(urlsplit(endpoint.base_url or "").hostname):
            return []
        new = [each for each in self.needed([endpoint]) if each not in confirmed]
        if new and not self.yes:
            raise InvalidInput(
                f"{' and '.join(map(str, new))}: nobody has confirmed that this is sent; give --yes to confirm it"
            )
        return new
