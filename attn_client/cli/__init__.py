"""Command line of the model side: `attn-client ask|ingest|search|serve`.

Exit codes: 0 done; 1 failed, with one line that says why, also for a value out of its range; 2 the flags cannot be
parsed, one line; 130 interrupted.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors of the world are one line on standard error."""
    # Here and not above: a wrong flag is answered before torch is loaded.
    from attn_client.cli.arguments import parser
    from attn_client.errors import AttnClientError

    arguments = parser().parse_args(argv)
    try:
        if arguments.command == "ask":
            from attn_client.cli import ask

            ask.run(arguments)
        elif arguments.command == "ingest":
            from attn_client.cli import ingest

            ingest.run(arguments)
        elif arguments.command == "search":
            from attn_client.cli import search

            search.run(arguments)
        elif arguments.command == "completion":
            from attn_client.cli.completion import print_completion

            print_completion(arguments.shell, parser())
        else:
            from attn_client.cli import serve

            serve.run(arguments)
    except AttnClientError as error:
        print(f"attn-client: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("attn-client: interrupted", file=sys.stderr)
        return 130
    return 0
