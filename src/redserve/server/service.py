"""The models as one service: finds who answers a request, and knows what all requests have in common.

infer(target, headers, body) -> repository -> Endpoint: codec -> Call -> Reply(bytes)
"""

from collections.abc import Callable

from redserve.errors import RedserveError
from redserve.models import ModelRepository, ModelState, ServedModel
from redserve.protocol import Body, Codec
from redserve.server.call import Call
from redserve.server.deadlines import HEADER as TIMEOUT_MS
from redserve.server.endpoint import Endpoint
from redserve.server.reply import Reply
from redserve.server.statistics import Statistics
from redserve.server.targets import Target
from redserve.server.terms import Terms


class InferenceService:
    """Answers requests for inference, for every model of a repository.

    Args:
        repository: The models.
        terms: What all requests have in common.
        statistics: Told how each request ended.
    """

    def __init__(self, repository: ModelRepository, *, terms: Terms, statistics: Statistics) -> None:
        self.repository = repository
        self.terms = terms
        self.statistics = statistics
        self._endpoints: dict[ServedModel, Endpoint] = {}

    def infer(
        self,
        target: Target,
        headers: dict[bytes, bytes],
        body: Body,
        answer: Callable[[Reply], None],
        arrived_s: float,
    ) -> Call:
        """Begin a request; `answer` may be called before this returns, when it is refused.

        Args:
            target: Which model, and which protocol.
            headers: As the client sent them, names in lower case.
            body: The whole body.
            answer: Called once, on the loop, unless the call is cancelled.
            arrived_s: `time.perf_counter()` when the request arrived.

        Returns:
            The call, for cancelling it when the client leaves.
        """
        call = Call(self.terms, target.is_open_inference, headers, answer, arrived_s)
        try:
            model = self.repository.get(target.model or None, target.version or None)
            call.model = model.name
            endpoint = self._endpoint_of(model)
            call.deadline_s = endpoint.deadlines.deadline_s(headers.get(TIMEOUT_MS), arrived_s=arrived_s)
            if target.is_open_inference:
                codec: Codec = endpoint.open_inference
            else:
                codec = endpoint.codec(headers.get(b"content-type", b""))
        except RedserveError as error:
            call.fail(error)
            return call
        call.begin(endpoint, codec, body)
        return call

    def warm_up(self) -> None:
        """Make the codecs of the models that are ready, so that no first request waits for them."""
        for model in self.repository:
            if model.state is ModelState.READY:
                self._endpoint_of(model)

    def model_label(self, model_name: str) -> str:
        """The `model` label of a request for `model_name`, served or not yet; empty where there is no such model."""
        if model_name:
            return model_name if model_name in self.repository else ""
        names = [model.name for model in self.repository]
        return names[0] if len(names) == 1 else ""

    def _endpoint_of(self, model: ServedModel) -> Endpoint:
        endpoint = self._endpoints.get(model)
        if endpoint is None:
            statistics = self.statistics.of(model.name, model.version)
            endpoint = Endpoint(model, statistics, self.terms.deadlines)
            kept = {known: its for known, its in self._endpoints.items() if known.state is not ModelState.STOPPED}
            self._endpoints = {**kept, model: endpoint}
        return endpoint
