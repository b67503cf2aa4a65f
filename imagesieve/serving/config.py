"""The service as the command line asks for it: every room, and what opens and closes with them."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from imagesieve import console

if TYPE_CHECKING:  # these load Flask, NumPy and Pillow, which `--help` must not wait for
    import flask

    from imagesieve.model.decisions import DecisionPolicy
    from imagesieve.serving.limits import ServingLimits
    from imagesieve.serving.models import Models


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `main.py` the options that `assemble` reads."""
    from imagesieve.serving import url_options
    from imagesieve.serving.access import options as access_options
    from imagesieve.serving.feedback import options as feedback_options

    access_options.add_options(parser)
    feedback_options.add_options(parser)
    url_options.add_options(parser)
    add = parser.add_argument_group("what it may cost").add_argument
    add(
        "--max-in-flight",
        type=console.whole_number(1, 1000),
        default=16,
        metavar="N",
        help="requests worked on at once; some more wait half a second, then they are told to "
        "come back (16)",
    )
    add(
        "--cache-entries",
        type=console.whole_number(0, 1_000_000),
        default=10_000,
        metavar="N",
        help="answers kept, so that the same bytes are judged once; 0 for none (10000)",
    )


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A service that is ready to be served.

    Attributes:
        models: not loaded yet.
        app: the application.
        limits: what its requests may cost.
        check: to be called with what describes the first model; raises UsageError when it does not
            go with the options.
    """

    models: "Models"
    app: "flask.Flask"
    limits: "ServingLimits"
    check: Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def assemble(
    options: argparse.Namespace, policy: "DecisionPolicy | None", address: str
) -> Iterator[Assembled]:
    """Give the service, and close what belongs to it in the end.

    Args:
        options: of `main.py`.
        policy: how labels are chosen; None for the version's own.
        address: the IP address that is listened on.

    Raises:
        UsageError: options do not go together, or the network could use the service without a key.
    """
    from imagesieve.serving import url_options
    from imagesieve.serving.access import options as access_options
    from imagesieve.serving.app import create_app
    from imagesieve.serving.explain import Explainer
    from imagesieve.serving.feedback import options as feedback_options
    from imagesieve.serving.limits import Admission, ServingLimits
    from imagesieve.serving.metrics import Metrics
    from imagesieve.serving.models import Models
    from imagesieve.serving.service import Service

    limits = ServingLimits(max_in_flight=options.max_in_flight, cache_entries=options.cache_entries)
    admission, metrics = Admission(limits), Metrics()
    models = Models(
        options.model, engine=options.engine, precision=options.precision, policy=policy
    )
    fetcher = url_options.from_options(options, limits)
    corrections = feedback_options.from_options(
        options, lambda: models.get().classes, admission, metrics.note_correction
    )
    with contextlib.ExitStack() as stack:
        explainer = stack.enter_context(contextlib.closing(Explainer()))
        service = Service(
            models,
            admission,
            access_options.from_options(options, address),
            fetcher.fetch if fetcher else None,
            corrections,
            explainer,
            metrics,
        )
        if corrections:
            corrections.open()
            stack.callback(corrections.close)
        stack.callback(models.join)
        stack.callback(models.close)
        check = corrections.check if corrections else lambda described: None
        yield Assembled(models, create_app(service), limits, check)
