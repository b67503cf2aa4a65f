"""Serve a model version over HTTP, with a page to try it.

    python main.py
    python main.py --model modelFile/menu-20261120-101500 --port 8080
    python main.py --decision confident --min-confidence 0.9 --fallback-class neutral
    python main.py --host 0.0.0.0 --keys keys.txt

Then open http://127.0.0.1:8133, or ask from any program on this machine:

    curl --data-binary @image.jpg http://127.0.0.1:8133/v1/predict
    curl -F image=@image.jpg http://127.0.0.1:8133/v1/predict

A version that becomes the current one of the folder is served at once, without a restart.
"""

import argparse
import contextlib
import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagesieve import console, logs
from imagesieve.model import ENGINES, PRECISIONS, decisions

if TYPE_CHECKING:
    from imagesieve.prediction.predictor import Predictor
    from imagesieve.serving.app import Service

EXAMPLES = """\
  python main.py
  python main.py --model modelFile/menu-20261120-101500 --port 8080
  python main.py --decision confident --min-confidence 0.9 --fallback-class neutral
  python main.py --host 0.0.0.0 --keys keys.txt
  curl --data-binary @image.jpg http://127.0.0.1:8133/v1/predict
"""

_log = logging.getLogger("imagesieve.main")


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM (exit code 0) or Ctrl-C (130)."""
    options = parse(arguments)
    policy = decisions.from_options(options)
    logs.start_logging("main", quiet=options.quiet)

    from imagesieve.serving import config, server
    from imagesieve.serving.app import create_app

    server.return_freed_memory()
    listener = server.listen(options.host, options.port)
    url = server.url_of(listener)
    with (
        contextlib.ExitStack() as last,
        contextlib.closing(listener),
        config.assemble(options, policy, listener.getsockname()[0]) as service,
        server.Server(create_app(service), listener, service.limits) as http,
    ):
        _log.info("Listening on %s; loading the model from %s.", url, options.model)
        loaded = functools.partial(announce, url, service)
        service.models.load_in_background(loaded, http.stop)
        last.push(functools.partial(_end, service))
        http.run(before_stop=service.models.close)
    return console.EXIT_OK


def _end(service: "Service", _kind: object, error: BaseException | None, _trace: object) -> None:
    """Log the end; if an engine hangs, end the process too: Python would wait for its threads."""
    if error is None:
        _log.info("Stopped.")
    if service.pipeline.has_overdue_runs:
        code = console.report_error(error) if error else console.EXIT_OK
        logging.shutdown()
        os._exit(code)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    from imagesieve.serving import config

    parser = console.argument_parser(
        "Serve a model version over HTTP, with a page to try it.", EXAMPLES
    )
    add = parser.add_argument
    model = "a model version, or a folder of versions, whose current one is taken (modelFile)"
    port = console.whole_number(0, 65535)
    add("--model", type=Path, default=Path("modelFile"), metavar="FOLDER", help=model)
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    add("--port", type=port, default=8133, help="port to listen on; 0 takes a free one (8133)")
    add("--engine", choices=ENGINES, default="auto", help="what runs the model (auto)")
    add("--precision", choices=PRECISIONS, default="auto", help="of its arithmetic (auto)")
    decisions.add_options(parser)
    config.add_options(parser)
    return parser.parse_args(arguments)


def announce(url: str, service: "Service", predictor: "Predictor") -> None:
    """Check that the model goes with the options; log what is being served, and how to ask it."""
    if service.corrections:
        service.corrections.check(predictor.classes, predictor.policy)
    _log.info("Serving %s with %s at %s", predictor.version.name, predictor.engine.name, url)
    _log.info("Try: curl --data-binary @image.jpg %s/v1/predict", url)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
