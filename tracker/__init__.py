"""Hits and providers' events in: answer at once, and keep what came until the courier has recorded it.

The flow, in the order in which to read it:

listener     sockets, limits and deadlines; what is no HTTP ends here
lane         the short way of a plain request for a pixel or a link, past what follows
app          the routes, and what every answer has in common
open         the pixel: the same image for any token, a hit for a valid one
click        the redirect: the exact destination, or a page that says nothing
unsubscribe  the page with one button, and RFC 8058; pages, forms: what it shows and reads
webhook      providers' events: authenticate, parse, keep, answer
bodies       their bodies, bounded; outcome: what a provider is told; once, shared_words: what is recorded once
documents    what a proof needs besides the request; fetch: how it is had
hit          request facts + claim + now = `Hit`; pure
keep         the step they share: make the hit, have it kept, count it
buffer       where it is kept: stream while Redis can be trusted, else journal; drain moves it back
stream       XADD in groups, each answered before its requests are; journal, segment: the same on the local disk
pipe         many commands on one connection; packs: how much of it in one write

Nothing is answered before its hit is durable or known to be kept nowhere, a provider hears 2xx for what is durable
only, no visitor waits for PostgreSQL or for a slow Redis, and no token, address or query is ever logged.
"""
