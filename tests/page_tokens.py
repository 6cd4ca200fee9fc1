"""Turn a page into the sequence of tags and texts that a parser of somebody else's understood.

Two sequences can be compared place by place, which trees cannot: a tag that was added moves nothing but itself.
"""

import warnings
from collections.abc import Iterator

import bs4
import msgspec
from bs4.element import PageElement, PreformattedString
from selectolax.lexbor import LexborHTMLParser, LexborNode


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A start tag as a reader understood it."""

    name: str
    #: In the order of the tag, each name once: the first counts. None: it has no value.
    attributes: dict[str, str | None]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an element, written or implied."""

    name: str


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Characters; the kind tells text from a comment, a doctype or whatever else the reader knows."""

    kind: str
    text: str


Token = Tag | End | Text


def merged(tokens: list[Token]) -> list[Token]:
    """Return *tokens* with neighbouring text in one piece: a pixel parts it, and so do some readers."""
    merged: list[Token] = []
    for token in tokens:
        last = merged[-1] if merged else None
        if isinstance(token, Text) and isinstance(last, Text) and token.kind == last.kind == "text":
            merged[-1] = Text(kind="text", text=last.text + token.text)
        else:
            merged.append(token)
    return merged


def soup_tokens(page: str) -> list[Token]:
    """Return *page* as BeautifulSoup reads it with html.parser; the first of several attributes counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bs4.XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", bs4.MarkupResemblesLocatorWarning)
        soup = bs4.BeautifulSoup(page, "html.parser", on_duplicate_attribute="ignore", multi_valued_attributes=None)
    return merged(list(_soup_walk(soup)))


def _soup_walk(top: bs4.Tag) -> Iterator[Token]:
    # A stack, because hostile pages nest deeper than Python calls.
    waiting: list[PageElement | End] = list(reversed(top.contents))
    while waiting:
        node = waiting.pop()
        if isinstance(node, End):
            yield node
        elif isinstance(node, bs4.Tag):
            yield Tag(name=node.name, attributes={name: str(value) for name, value in node.attrs.items()})
            waiting.append(End(name=node.name))
            waiting += reversed(node.contents)
        elif isinstance(node, bs4.Comment):
            yield Text(kind="comment", text=str(node))
        elif isinstance(node, PreformattedString) and not isinstance(node, bs4.CData):
            yield Text(kind=type(node).__name__, text=str(node))
        else:
            yield Text(kind="text", text=str(node))


def browser_tokens(page: str) -> list[Token]:
    """Return *page* as Lexbor reads it, which follows the tree construction of the WHATWG."""
    root = LexborHTMLParser(page).root
    assert root is not None
    # The document itself, where comments stand before the first element.
    return merged(list(_browser_walk(root.parent or root)))


def _browser_walk(top: LexborNode) -> Iterator[Token]:
    node: LexborNode | None = top
    closing = False
    while node is not None:
        if not closing:
            yield from _browser_token(node)
            if node.child is not None:
                node = node.child
                continue
        if node.is_element_node:
            yield End(name=str(node.tag))
        if node.mem_id == top.mem_id:
            return
        closing = node.next is None
        node = node.next or node.parent


def _browser_token(node: LexborNode) -> Iterator[Token]:
    if node.is_element_node:
        yield Tag(name=str(node.tag), attributes=dict(node.attributes))
    elif node.is_text_node:
        yield Text(kind="text", text=node.text_content or "")
    elif node.is_comment_node:
        yield Text(kind="comment", text=node.comment_content or "")
    elif not node.is_document_node:
        yield Text(kind=str(node.tag), text=node.html or "")
