"""The inspector: web pages on which a person looks at what sessions hold, and at why something was recalled.

    browser --> pages (routes, templates) --> views (records) --> door --> the API's own methods, session overviews
                  `--> entrance (login, headers)                   `--> the same credentials, tenants, scopes, quotas

Every page is a URL with a twin that ends in `.json` and says the same.

Invariants:
    Nothing that is served changes a session.
    Whoever looks sees what the same credential could read over gRPC, and nothing more.
    No page has inline scripts or styles, or loads anything from elsewhere.
    A view has at most `NODES_MAX` nodes (`memsvc.inspector.shapes`).
Must not know: locks, logs, finders.
"""
