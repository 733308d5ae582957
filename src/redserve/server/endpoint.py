"""One ready model as the service speaks for it: its wire formats, each made when it is first asked for."""

from dataclasses import replace

from redserve.errors import UnsupportedMediaType
from redserve.models import ServedModel
from redserve.protocol import Codec, Npy, OctetStream, OpenInference, PredictJson
from redserve.server.deadlines import Deadlines
from redserve.server.statistics import ModelStatistics

_JSON = b"application/json"
_NPY = b"application/x-npy"
_ROWS = b"application/octet-stream"


class Endpoint:
    """A model, its codecs and its statistics.

    Args:
        model: That answers.
        statistics: Told how its requests ended.
        deadlines: The server's; those of the model have the budget that its options name.

    Attributes:
        model: The same.
        entrance: Its, which every request passes.
        statistics: The same.
        deadlines: When answers of this model are due.
    """

    def __init__(self, model: ServedModel, statistics: ModelStatistics, deadlines: Deadlines) -> None:
        self.model = model
        self.entrance = model.entrance
        self.statistics = statistics
        timeout_s = model.options.timeout_s
        self.deadlines = deadlines if timeout_s is None else replace(deadlines, default_s=timeout_s)
        engine = model.engine
        json = PredictJson(
            engine.inputs,
            engine.outputs,
            row_wise=engine.batchability.is_row_wise,
            row_wise_reason=engine.batchability.reason,
        )
        self._json = json
        self._open_inference: OpenInference | None = None
        self._codecs: dict[bytes, Codec] = {_JSON: json, b"": json}

    def codec(self, content_type: bytes) -> Codec:
        """That of `/predict` for a body of this type, as the client sent it; empty is JSON.

        Raises:
            UnsupportedMediaType: There is none, or not for this model.
        """
        codec = self._codecs.get(content_type)
        if codec is not None:
            return codec
        media_type = content_type.partition(b";")[0].strip().lower()
        codec = self._codecs.get(media_type)
        if codec is not None:
            return codec
        if media_type.endswith(b"+json"):
            return self._json
        if media_type not in (_NPY, _ROWS):
            raise UnsupportedMediaType(
                f"send JSON with 'Content-Type: application/json', or one array of numbers as "
                f"'{_NPY.decode()}' or '{_ROWS.decode()}', not {media_type[:80].decode('latin-1')!r}"
            )
        engine = self.model.engine
        is_row_wise = engine.batchability.is_row_wise
        if media_type == _NPY:
            codec = Npy(engine.inputs, engine.outputs, row_wise=is_row_wise, json=self._json)
        else:
            codec = OctetStream(engine.inputs, row_wise=is_row_wise, json=self._json)
        self._codecs[media_type] = codec
        return codec

    @property
    def open_inference(self) -> OpenInference:
        """The codec of the Open Inference Protocol.

        Raises:
            UnsupportedMediaType: The model takes or gives a type that the protocol has no name for.
        """
        if self._open_inference is not None:
            return self._open_inference
        engine = self.model.engine
        try:
            codec = OpenInference(
                engine.inputs,
                engine.outputs,
                model_name=self.model.name,
                model_version=self.model.version,
                row_wise=engine.batchability.is_row_wise,
                labels=self.model.labels,
            )
        except ValueError as error:
            raise UnsupportedMediaType(f"model {self.model.name!r} is not served here: {error}") from error
        self._open_inference = codec
        return codec
