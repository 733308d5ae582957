"""What ends `redserve bench` with a sentence and not with a traceback."""


class BenchError(Exception):
    """The server or the one who called it must change something; the text says what."""
