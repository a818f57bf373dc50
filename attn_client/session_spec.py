"""The wire form of what is fixed when a session is made."""

from attn_client.settings import BookmarkSettings
from protos.memsvc.v1 import types_pb2

_POLICIES = {
    "every": types_pb2.POLICY_KIND_EVERY,
    "fixed": types_pb2.POLICY_KIND_FIXED,
    "surprisal": types_pb2.POLICY_KIND_SURPRISAL,
}
_FINDERS = {"flat": types_pb2.FINDER_KIND_FLAT, "hnsw": types_pb2.FINDER_KIND_HNSW}


def session_spec(fingerprint: types_pb2.Fingerprint, bookmarks: BookmarkSettings) -> types_pb2.SessionSpec:
    """Specification of a session that a model with this fingerprint writes."""
    return types_pb2.SessionSpec(
        fingerprint=fingerprint,
        policy=types_pb2.PolicySpec(
            kind=_POLICIES[bookmarks.policy], coverage=bookmarks.coverage, every_tokens=bookmarks.every_tokens
        ),
        search=types_pb2.SearchSpec(
            finder=_FINDERS[bookmarks.finder],
            trail_blocks=bookmarks.trail_blocks,
            trail_decay=bookmarks.trail_decay,
            trail_tokens=bookmarks.trail_tokens,
            links_max=bookmarks.links_max,
            link_similarity_min=bookmarks.link_similarity_min,
            centring_tokens=bookmarks.centring_tokens,
        ),
    )
