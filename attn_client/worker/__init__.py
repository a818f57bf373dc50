"""The worker that answers HTTP requests in OpenAI's shapes: one model, many sessions, one memory server.

HTTP (app) --> Ask --> Engine --+--> Rows          opens and closes readers of sessions, on threads
 ^                              `--> Generation    read and decoded in turns, on the one thread of the model
 `------------ events ---------------'
"""
