"""The worker's OpenAPI holds: whatever it allows is answered as it says, and whatever it forbids is refused."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from attn_client.embedded import EmbeddedServer
from attn_client.worker.app import Served, make_app
from attn_client.worker.settings import WorkerSettings
from tests.e2e.settings import SMALL
from tests.e2e.worker import MODEL, worker

EXAMPLES = 40
KEY = "right"
TOKENS_MAX = 4
# What the schema cannot say: limits of this worker, and settings that must fit each other.
UNSAID = [positive_data_acceptance]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The worker's schema, with the worker behind it."""
    narrow = WorkerSettings(tokens_max=TOKENS_MAX, tokens_default=2)
    with EmbeddedServer(tmp_path_factory.mktemp("data")) as server, worker(server.address, narrow) as serving:
        app = make_app(Served(serving.engine, MODEL, narrow, SMALL.recall, KEY))
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


def _bring_near(body: object) -> None:
    """Let a good body name the model that is served and few tokens: others are refused before anything is done."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str):
        body["model"] = MODEL
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int) and body[name] > TOKENS_MAX:
            body[name] = TOKENS_MAX


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/completions", "POST"),
        ("/v1/chat/completions", "POST"),
        ("/v1/models", "GET"),
        ("/v1/models/{model}", "GET"),
        ("/health", "GET"),
    ],
)
def test_every_call_holds_to_what_its_schema_says(api: schemathesis.BaseSchema, path: str, method: str) -> None:
    """Proves that generated requests get documented statuses, types and bodies, and never a 500."""
    operation = api[path][method]

    @given(operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def holds(case: schemathesis.Case) -> None:
        _bring_near(case.body)
        case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=UNSAID)

    holds()


def test_the_schema_has_every_path_that_is_served(api: schemathesis.BaseSchema) -> None:
    """Proves that no call is left out above."""
    assert len(list(api.get_all_operations())) == 5
