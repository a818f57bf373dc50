"""The wire form of what is fixed when a session is made."""

from attn_client.settings import BookmarkSettings
from protos.memsvc.v1 import types_pb2

_POLICIES = {
    "every": types_pb2.POLICY_KIND_EVERY,
    "fixed": types_pb2.POLICY_KIND_FIXED,
    "surprisal": types_pb2.POLICY_KIND_SURPRISAL,
    "relevance": types_pb2.POLICY_KIND_RELEVANCE,
    "novelty": types_pb2.POLICY_KIND_NOVELTY,
    "distance": types_pb2.POLICY_KIND_DISTANCE,
    "topic_shift": types_pb2.POLICY_KIND_TOPIC_SHIFT,
    "attention": types_pb2.POLICY_KIND_ATTENTION,
    "rarity": types_pb2.POLICY_KIND_RARITY,
    "hybrid": types_pb2.POLICY_KIND_HYBRID,
}
_METRICS = {
    "cosine": types_pb2.METRIC_COSINE,
    "dot": types_pb2.METRIC_DOT,
    "pearson": types_pb2.METRIC_PEARSON,
}
_FINDERS = {
    "flat": types_pb2.FINDER_KIND_FLAT,
    "hnsw": types_pb2.FINDER_KIND_HNSW,
    "faiss": types_pb2.FINDER_KIND_FAISS,
    "walk": types_pb2.FINDER_KIND_WALK,
    "dictionary": types_pb2.FINDER_KIND_DICTIONARY,
    "auto": types_pb2.FINDER_KIND_AUTO,
    "faiss_gpu": types_pb2.FINDER_KIND_FAISS_GPU,
}
_LINK_SEARCHES = {
    # What sessions that were made without the field have: they open with these settings.
    "finder": types_pb2.LINK_SEARCH_UNSPECIFIED,
    "walk": types_pb2.LINK_SEARCH_WALK,
}


def session_spec(fingerprint: types_pb2.Fingerprint, bookmarks: BookmarkSettings) -> types_pb2.SessionSpec:
    """Specification of a session that a model with this fingerprint writes."""
    weights = bookmarks.hybrid_weights if bookmarks.policy == "hybrid" else ()
    return types_pb2.SessionSpec(
        fingerprint=fingerprint,
        policy=types_pb2.PolicySpec(
            kind=_POLICIES[bookmarks.policy],
            coverage=bookmarks.coverage,
            every_tokens=bookmarks.every_tokens,
            weights=[types_pb2.PolicyWeight(kind=_POLICIES[name], weight=weight) for name, weight in weights],
        ),
        search=types_pb2.SearchSpec(
            finder=_FINDERS[bookmarks.finder],
            trail_blocks=bookmarks.trail_blocks,
            trail_decay=bookmarks.trail_decay,
            trail_tokens=bookmarks.trail_tokens,
            links_max=bookmarks.links_max,
            link_similarity_min=bookmarks.link_similarity_min,
            centring_tokens=bookmarks.centring_tokens,
            metric=_METRICS[bookmarks.metric],
            link_search=_LINK_SEARCHES[bookmarks.link_search],
            index_every_tokens=bookmarks.index_every_tokens,
        ),
        keep_text=bookmarks.keep_text,
    )
