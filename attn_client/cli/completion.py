"""`attn-client completion`: the script by which a shell completes commands, flags and their choices.

eval "$(attn-client completion bash)"
"""

import argparse

from attn_client.errors import InvalidSettings


def print_completion(shell: str, parser: argparse.ArgumentParser) -> None:
    """Print the script. Raises InvalidSettings where shtab is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise InvalidSettings("completion: expected shtab to be installed (extra client), got none") from error
    print(shtab.complete(parser, shell=shell))
