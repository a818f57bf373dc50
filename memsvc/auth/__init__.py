"""Who may do what: credentials and their tenants, what each call asks for, how tenants' names are kept apart, quotas.

    a call's metadata or certificate --> CredentialFile --> Caller (tenant, scopes)
    Caller --> rules: may it make this call            Caller --> Namespace: whose names are these
           --> Quotas: has its tenant room

Invariants:
    A tenant comes from a credential and from nothing in a request.
    No secret is kept, logged, or part of a message: a file holds digests only.
Must not know: gRPC, sessions, files other than the credentials'.
"""
