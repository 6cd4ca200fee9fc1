"""The tracker's settings: what an operator may say about hits in. Read by sidecar/settings.py."""

from typing import Annotated

import msgspec
from msgspec import Meta


class TrackerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hits in: where browsers reach us, and whom we believe about them."""

    listen: Annotated[str, Meta(description="Address and port for public HTTP.")] = "127.0.0.1:8080"
    admin_listen: Annotated[
        str, Meta(description="Address and port for health and metrics of a tracker that runs alone; empty: none.")
    ] = ""
    public_url: Annotated[
        str, Meta(description="Base of every injected URL; empty: `http://` and the listen address.")
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="Networks whose X-Forwarded-For is believed; empty: nobody's.")
    ] = ()
    append_wait: Annotated[
        float, Meta(gt=0, description="Seconds a hit may wait for the stream before the local journal takes it.")
    ] = 0.05
    journal_max_bytes: Annotated[
        int, Meta(ge=1048576, description="Octets of the local journal in all; full: hits are answered but not kept.")
    ] = 1073741824
