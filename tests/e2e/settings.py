"""Settings that make tiny models forget quickly, so that a few hundred tokens already need recall."""

from attn_client.settings import BookmarkSettings, ProbeSettings, RecallSettings, Settings, WindowSettings

SMALL = Settings(
    window=WindowSettings(sink_tokens=64, window_tokens=128, chunk_tokens=64),
    recall=RecallSettings(top_blocks=2, neighbours=1, budget_blocks=4, timeout_s=20.0),
    probe=ProbeSettings(layer=1, salience_vocabulary=0),
    bookmarks=BookmarkSettings(policy="surprisal", coverage=0.2, centring_tokens=256),
)
