"""The dictionary: checkpoints over bookmarks in levels, and the searches that read them.

Pure: no I/O, no sessions. `dictionary` owns rows, lists and bounds over chains or the timeline, and `descent` searches
it exactly or within a budget; `topical` owns checkpoints by similarity and searches them. `find` searches in the
source's own order and says how it went; `walker` lets bookmarks find their chains by it.
"""
