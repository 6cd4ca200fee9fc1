"""Name every reason for which a mail, or a part of one, leaves as it came.

The values are stored in the ledger and shown by the console: a word is added, never renamed.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a mail or a part is untouched."""

    # The whole mail.
    DKIM_SIGNED = "dkim_signed"
    SIGNED = "signed"
    ENCRYPTED = "encrypted"
    INLINE_PGP = "inline_pgp"
    REPORT = "report"
    AUTO_SUBMITTED = "auto_submitted"
    TRACKING_OFF = "tracking_off"
    NO_HTML = "no_html"
    NOTHING_TO_TRACK = "nothing_to_track"
    REWRITE_FAILED = "rewrite_failed"

    # A structure that mail programs read in different ways, or that is too large to read.
    MALFORMED_HEADER = "malformed_header"
    AMBIGUOUS_HEADER = "ambiguous_header"
    HEADER_LIMIT = "header_limit"
    PART_LIMIT = "part_limit"
    DEPTH_LIMIT = "depth_limit"
    LINK_LIMIT = "link_limit"
    NO_BOUNDARY = "no_boundary"
    BOUNDARY_REUSED = "boundary_reused"
    ENCODED_MULTIPART = "encoded_multipart"

    # A part that is not what the reader sees as the text.
    ATTACHMENT = "attachment"
    EMBEDDED_MESSAGE = "embedded_message"
    RELATED_RESOURCE = "related_resource"
    CALENDAR = "calendar"
    AMP = "amp"
    OTHER_TYPE = "other_type"
    TEXT_LINKS_OFF = "text_links_off"
    EMPTY = "empty"

    # A part that would have to be guessed at.
    UNKNOWN_ENCODING = "unknown_encoding"
    UNDECODABLE = "undecodable"
    UNKNOWN_CHARSET = "unknown_charset"
    CHARSET_ROUND_TRIP = "charset_round_trip"

    # A link of a part that is worked on.
    CLICKS_OFF = "clicks_off"
    OPT_OUT = "opt_out"
