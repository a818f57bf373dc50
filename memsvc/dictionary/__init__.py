"""The dictionary: checkpoints over ordered bookmarks, in skip-list levels, and the searches that read them.

Pure: no I/O, no sessions. `dictionary` owns rows, lists and bounds; `descent` searches it exactly or within a budget;
`find` searches it in the source's own order and says how it went.
"""
