"""The headers of a request as the service reads them: by name, and what came in several lines is one value.

Lines of one name are joined by commas (RFC 9110, 5.3), so that a second one is never passed over: a deadline that is
said twice is no number, a body that is encoded twice has an encoding that is not read here.
"""

from collections.abc import Collection


def by_name(lines: Collection[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers by their names, which are in lower case."""
    headers = dict(lines)
    if len(headers) < len(lines):
        headers.clear()
        for name, value in lines:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers
