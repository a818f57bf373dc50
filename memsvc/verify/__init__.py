"""Whether a data folder holds what it should, and what can be done where it does not.

    verify    reads everything and changes nothing
    repair    writes anew what log and blocks still say, and keeps every damaged byte in DIR/quarantine
    scrub     reads blocks in the background while a server runs

Invariants:
    Verifying reads formats by itself, as the modules that own them draw them: a fault of theirs must not hide there.
    Repairing guesses nothing: what a checksum does not vouch for is set aside and reported.
Must not know: gRPC, argparse.
"""
