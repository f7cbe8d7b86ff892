"""Stripe's form encoding: `amount=5&metadata[order_id]=x&payment_method_types[0]=card`, read field by field.

Owns the typed reading of one request's parameters. Fields that nobody asked for are refused by `finish`, so
an endpoint's list of parameters is the code that reads them. Pure.
"""

import hashlib
import re
from urllib.parse import parse_qsl

from app.dev.sandbox.refusals import invalid, missing_parameter, unknown_parameter

FIELDS_MAX = 200
TEXT_LENGTH_MAX = 1000
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_METADATA_KEYS_MAX, _METADATA_KEY_LENGTH_MAX, _METADATA_VALUE_LENGTH_MAX = 50, 40, 500


class Form:
    """The parameters of one request. Readers raise StripeRefusal naming the parameter."""

    def __init__(self, body: bytes, query: str = "") -> None:
        try:
            self._pairs = [
                *parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX),
                *parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX),
            ]
        except ValueError as error:
            raise invalid("Invalid request: the parameters are not a UTF-8 form, or too many.") from error
        self._fields = dict(self._pairs)

    def fingerprint(self, endpoint: str) -> bytes:
        """What makes two requests the same one: the endpoint and every parameter, in any order.

        The first 16 bytes are the endpoint's, the others the parameters', so that a difference can be named.
        """
        parameters = repr(sorted(self._pairs)).encode()
        return hashlib.sha256(endpoint.encode()).digest()[:16] + hashlib.sha256(parameters).digest()[:16]

    def text(self, name: str, *, required: bool = False, length_max: int = TEXT_LENGTH_MAX) -> str | None:
        """A string; an empty one means "not given", as at Stripe."""
        value = self._fields.pop(name, None)
        if not value:
            if required:
                raise missing_parameter(name)
            return None
        if len(value) > length_max or "\0" in value:
            raise invalid(f"Invalid string: {name} must be at most {length_max} characters.", None, name)
        return value

    def required(self, name: str) -> str:
        """A string that must be there."""
        return self.text(name, required=True) or ""

    def required_integer(self, name: str, low: int, high: int) -> int:
        """An integer within the bounds that must be there."""
        number = self.integer(name, low, high)
        if number is None:
            raise missing_parameter(name)
        return number

    def integer(self, name: str, low: int, high: int) -> int | None:
        """An integer within the bounds, or None when it was not given."""
        value = self.text(name)
        if value is None:
            return None
        code = "parameter_invalid_integer"
        if not _INTEGER.fullmatch(value):
            raise invalid(f"Invalid integer: {value[:40]}", code, name)
        number = int(value)
        if number < low:
            raise invalid(f"Invalid {name}: this value must be greater than or equal to {low}.", code, name)
        if number > high:
            too_large = "amount_too_large" if name.startswith("amount") else code
            raise invalid(f"Invalid {name}: this value must be no more than {high}.", too_large, name)
        return number

    def flag(self, name: str) -> bool:
        """A boolean; false when it was not given."""
        value = self.choice(name, ("true", "false"))
        return value == "true"

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """One of the allowed words, or None when it was not given."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", None, name)
        return value

    def items(self, name: str) -> list[str]:
        """An array: `name[]=a&name[]=b` or `name[0]=a&name[1]=b`."""
        prefix = f"{name}["
        taken = [(key, value) for key, value in self._pairs if key.startswith(prefix)]
        for key, _ in taken:
            self._fields.pop(key, None)
            if not re.fullmatch(r"\[[0-9]{0,3}\]", key[len(name) :]):
                raise invalid(f"Invalid array: {name}", None, name)
        return [value for _, value in taken]

    def mapping(self, name: str) -> dict[str, str]:
        """A hash of strings, with Stripe's limits for metadata."""
        found: dict[str, str] = {}
        for key in [key for key in self._fields if key.startswith(f"{name}[")]:
            value = self._fields.pop(key)
            inner = key[len(name) + 1 : -1]
            if not key.endswith("]") or not inner or "[" in inner or "]" in inner:
                raise invalid(f"Invalid hash: {name}", None, name)
            if len(inner) > _METADATA_KEY_LENGTH_MAX or len(value) > _METADATA_VALUE_LENGTH_MAX:
                raise invalid(
                    f"Metadata keys and values are limited to 40 and 500 characters: {key}", None, key
                )
            if value:
                found[inner] = value
        if len(found) > _METADATA_KEYS_MAX:
            raise invalid("Metadata is limited to 50 keys.", None, name)
        return found

    def finish(self) -> None:
        """Refuse whatever was not asked for."""
        for name in self._fields:
            raise unknown_parameter(name.partition("[")[0])
