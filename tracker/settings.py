"""The tracker's settings: what an operator may say about hits in and providers' events. Read by sidecar/settings.py."""

from typing import Annotated

import msgspec
from msgspec import Meta

from providers.webhook import Entra, Trust

_IN_URL = "as `?key=` in its URL or as Basic password; any of them proves a request. Empty: it is closed."
_PUBLIC = "in PEM or in base64; any of them proves a request."


class TrackerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hits in: where browsers reach us, and whom we believe about them."""

    listen: Annotated[str, Meta(description="Address and port for public HTTP.")] = "127.0.0.1:8080"
    admin_listen: Annotated[
        str, Meta(description="Address and port for health and metrics of a tracker that runs alone; empty: none.")
    ] = ""
    public_url: Annotated[
        str, Meta(description="Base of every injected URL; empty: `http://` and the listen address.")
    ] = ""
    workers: Annotated[int, Meta(ge=0, description="Tracker processes on one port; 0: one for each core.")] = 1
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="Networks whose X-Forwarded-For is believed; empty: nobody's.")
    ] = ()
    page_template: Annotated[
        str,
        Meta(
            description="File with an HTML page of your own, as a template of Jinja, for unsubscribing and for what "
            "else people see; empty: a plain one."
        ),
    ] = ""
    append_wait: Annotated[
        float, Meta(gt=0, description="Seconds a hit may wait for the stream before the local journal takes it.")
    ] = 0.05
    journal_max_bytes: Annotated[
        int, Meta(ge=1048576, description="Octets of the local journal in all; full: hits are answered but not kept.")
    ] = 1073741824


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Providers' events in: what proves that a provider sent them. A provider without any of it gets 404."""

    azure_secret: Annotated[
        tuple[str, ...],
        Meta(description=f"Secrets of `/webhooks/azure` (Event Grid), {_IN_URL}"),
    ] = ()
    azure_tenant: Annotated[
        str,
        Meta(
            description="Event Grid with Entra ID, beside secrets or without any: the id of the tenant whose tokens "
            "are believed, with `azure_audience`."
        ),
    ] = ""
    azure_audience: Annotated[
        str, Meta(description="For whom such a token must be: the application's id or id URI (`api://…`).")
    ] = ""
    azure_callers: Annotated[
        tuple[str, ...],
        Meta(description="The application ids that may call; the default is Event Grid's own in the public cloud."),
    ] = ("4962773b-9cdb-44cf-a8bf-237846a00ab7",)
    ses_topics: Annotated[
        tuple[str, ...],
        Meta(description="SES: the TopicArns of SNS that are believed; empty: `/webhooks/ses` is closed."),
    ] = ()
    mailgun_secret: Annotated[
        tuple[str, ...],
        Meta(description="Mailgun's HTTP webhook signing keys, newest first; empty: `/webhooks/mailgun` is closed."),
    ] = ()
    postal_secret: Annotated[
        tuple[str, ...],
        Meta(
            description=f"Postal's public keys (what its DKIM record says after `p=`), {_PUBLIC} Empty, and no "
            "`postal_jwks`: `/webhooks/postal` is closed.",
            extra={"lines": True},
        ),
    ] = ()
    postal_jwks: Annotated[
        str,
        Meta(
            description="Postal's key set instead of a key: `https://postal.example.com/.well-known/jwks.json`. It is "
            "asked for at a public address only; for a server in a private network give its key."
        ),
    ] = ""
    postal_sha1: Annotated[
        bool, Meta(description="Whether Postal's old SHA-1 signature is enough, where there is no newer one.")
    ] = False
    sendgrid_secret: Annotated[
        tuple[str, ...],
        Meta(
            description=f"SendGrid's verification keys, {_PUBLIC} Empty: `/webhooks/sendgrid` is closed.",
            extra={"lines": True},
        ),
    ] = ()
    resend_secret: Annotated[
        tuple[str, ...],
        Meta(description="Resend's signing secrets (`whsec_…`), newest first; empty: `/webhooks/resend` is closed."),
    ] = ()
    postmark_secret: Annotated[tuple[str, ...], Meta(description=f"Secrets of `/webhooks/postmark`, {_IN_URL}")] = ()
    brevo_secret: Annotated[tuple[str, ...], Meta(description=f"Secrets of `/webhooks/brevo`, {_IN_URL}")] = ()
    mailjet_secret: Annotated[tuple[str, ...], Meta(description=f"Secrets of `/webhooks/mailjet`, {_IN_URL}")] = ()
    sparkpost_secret: Annotated[tuple[str, ...], Meta(description=f"Secrets of `/webhooks/sparkpost`, {_IN_URL}")] = ()

    def __repr__(self) -> str:
        """Show nothing: nearly all of it is secret."""
        return "WebhookSettings(…)"

    def trust(self, provider: str) -> Trust:
        """Return what is believed of *provider*: nothing of one that has no setting here."""
        secrets: tuple[str, ...] = getattr(self, f"{provider}_secret", ())
        return Trust(
            secrets=tuple(_unescaped(secret) for secret in secrets),
            topics=getattr(self, f"{provider}_topics", ()),
            key_set=getattr(self, f"{provider}_jwks", ""),
            sha1=getattr(self, f"{provider}_sha1", False),
            entra=self._entra() if provider == "azure" else None,
        )

    def _entra(self) -> Entra | None:
        if not self.azure_tenant:
            return None
        callers = tuple(caller.lower() for caller in self.azure_callers)
        return Entra(tenant=self.azure_tenant.lower(), audience=self.azure_audience, callers=callers)


def _unescaped(secret: str) -> str:
    # A file of variables has no other way to write the line ends of PEM than as two characters.
    return secret.replace("\\n", "\n") if secret.startswith("-----BEGIN") else secret
