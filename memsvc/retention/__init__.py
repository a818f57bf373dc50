"""What leaves a session, and how the disk gets its room back.

    forget     blocks before a position leave: one record, then they are gaps that no recall returns
    compact    log and segments written anew without what is void or left, then put in place of the old ones
    policy     which blocks are too old or too many

Invariants:
    Sinks, and what any tail or snapshot needs to go on, stay.
    Files change by being replaced: segments are shared with forks, and bytes under a name never change.
Must not know: gRPC, argparse.
"""
