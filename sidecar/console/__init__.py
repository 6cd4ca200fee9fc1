"""The operator's side: a JSON API, and pages that show captured mail and what became of it.

In reading order: `app` puts it together, `guard` says who may come in and what every answer carries, `asked` reads what
a request asks for, `api` answers it; `captured` reads captured mail, `inbox` shows it with `pages`.
"""
