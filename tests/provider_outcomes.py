"""What each sample event of each provider must become: type, class, a machine's or not, and the step that finds it.

Written from what the providers document, not from what the code says. A sample with several events has its outcomes in
their order, parked ones last; no outcome: the provider is answered, and nothing is recorded.
"""

from collections.abc import Mapping
from types import MappingProxyType

NOTHING = ""
NO_ID = "parked: no_id"
#: It has ids of the provider's alone, and no event has taught us whose they are.
UNKNOWN_ID = "parked: unknown_id"

#: Event Grid. Our Message-ID stands in everything but the report of a suppressed address.
_AZURE = {
    "delivered by message_id": (
        *("delivered", "delivered as CloudEvent", "delivered, other spelling", "delivered, no details"),
        "expanded",
    ),
    "bounced hard by message_id": ("bounced",),
    "bounced block by message_id": ("bounced by policy", "quarantined", "filtered"),
    "bounced soft by message_id": ("bounced, full",),
    "failed unknown by message_id": ("failed",),
    "failed soft by message_id": ("failed for a while",),
    "opened by message_id": ("viewed", "viewed, as the SDK spells it"),
    "clicked by message_id": ("clicked", "clicked as CloudEvent"),
    "clicked by message_id; delivered by message_id": ("batch", "batch of CloudEvents"),
    "unknown by message_id": ("another status", "another engagement"),
    UNKNOWN_ID: ("suppressed", "text message"),
    NOTHING: ("handshake", "handshake by address", "subscription deleted"),
}
#: Events with the original headers; the notification of an identity has none, nor our tag.
_SES = {
    "accepted by message_id": ("send",),
    # A key is one message's, whoever else its mail went to.
    "accepted by message_id; accepted by message_id": ("send to two",),
    "bounced soft by message_id; bounced soft by message_id": ("bounce of two",),
    "rejected by message_id": ("reject",),
    "failed by message_id": ("rendering failure",),
    "delivered by message_id": ("delivery",),
    "deferred by message_id": ("delay",),
    "bounced hard by message_id": ("bounce",),
    "bounced soft by message_id": ("bounce, transient", "bounce, undetermined"),
    "bounced suppressed by message_id": ("bounce, suppressed", "bounce, account list", "complaint, account list"),
    "bounced unknown by message_id": ("bounce, new type",),
    "complained by message_id": ("complaint", "complaint, unnamed", "complaint of either"),
    "opened by message_id": ("open", "open by either", "old signature", "no subject"),
    "clicked by message_id": ("click",),
    "unsubscribed by message_id": ("unsubscription", "unsubscription from a topic"),
    "subscribed by message_id": ("subscription",),
    "unknown by message_id": ("complaint, not-spam", "complaint, auth-failure", "another event"),
    UNKNOWN_ID: ("bounce of an identity",),
    NOTHING: ("validated", "subscribed", "confirmation", "unsubscribed"),
}
#: It keeps our Message-ID.
_MAILGUN = {
    "accepted by message_id": ("accepted",),
    "rejected by message_id": ("rejected",),
    "delivered by message_id": ("delivered", "delivered, no status"),
    "bounced hard by message_id": ("failed for good", "failed, no code", "failed, status null"),
    "bounced soft by message_id": ("failed, full", "failed, too old"),
    "bounced block by message_id": ("failed, policy", "failed, blocked"),
    "bounced unknown by message_id": ("failed, other",),
    "bounced suppressed by message_id": (
        *("failed, bounced before", "failed, unsubscribed before", "failed, complained before"),
        "failed, suppressed by word",
    ),
    "deferred by message_id": ("failed for now", "failed, greylisted"),
    "opened by message_id": ("opened",),
    "opened machine by message_id": ("opened by Apple",),
    "clicked by message_id": ("clicked",),
    "unsubscribed by message_id": ("unsubscribed",),
    "complained by message_id": ("complained",),
    "unknown by message_id": ("stored",),
}
#: So does Postal; what is of a domain, of the server or of mail to us is no event.
_POSTAL = {
    "delivered by message_id": ("sent", "sent, tagged by us", "sent, tagged by the mailer"),
    "deferred by message_id": ("delayed", "held"),
    "bounced hard by message_id": ("failed",),
    "bounced block by message_id": ("failed, policy", "failed, spam"),
    "bounced soft by message_id": ("failed, too often",),
    "bounced unknown by message_id": ("failed, other", "bounced"),
    "bounced suppressed by message_id": ("held, suppressed",),
    "opened by message_id": ("loaded",),
    "clicked by message_id": ("clicked",),
    "unknown by message_id": ("another event",),
    NOTHING: ("incoming", "domain", "limit near", "limit"),
}
#: `smtp-id` is in what SendGrid does, and not in what recipients do: there our argument names the message.
_SENDGRID = {
    "accepted by message_id": ("processed",),
    "deferred by message_id": ("deferred",),
    "delivered by message_id": ("delivered",),
    "bounced hard by message_id": ("bounced", "bounced, no code"),
    "bounced soft by message_id": ("bounced, full", "blocked for a while", "expired"),
    "bounced block by message_id": ("blocked", "blocked, no code"),
    "bounced unknown by message_id": ("bounced, of no type",),
    "bounced suppressed by message_id": (
        *("dropped, bounced before", "dropped, unsubscribed before", "dropped, complained before"),
        "dropped, invalid before",
    ),
    "rejected by message_id": ("dropped for its content",),
    "unknown by message_id": ("another event",),
    "opened by token": ("opened",),
    "opened machine by token": ("opened by a machine",),
    "clicked by token": ("clicked",),
    "complained by token": ("complained",),
    "unsubscribed by token": ("unsubscribed", "unsubscribed from a group"),
    "subscribed by token": ("subscribed to a group",),
    "accepted by message_id; opened by token; delivered by message_id": ("batch",),
    UNKNOWN_ID: ("late bounce without our fields",),
    NOTHING: ("account", "empty batch"),
}
_POSTMARK = {
    "delivered by token": ("delivery", "of the older kind: delivery"),
    "opened by token": ("open", "of the older kind: open"),
    "clicked by token": ("click",),
    "bounced hard by token": (
        *("bounce HardBounce", "bounce with codes", "of the older kind: bounce", "suppressed after a bounce"),
    ),
    "rejected hard by token": ("bounce BadEmailAddress",),
    "bounced soft by token": ("bounce SoftBounce",),
    "bounced block by token": ("bounce Blocked", "bounce DMARCPolicy", "bounce VirusNotification"),
    "bounced suppressed by token": ("bounce ManuallyDeactivated", "bounce of an inactive address"),
    "bounced unknown by token": ("bounce Unknown", "bounce of a new type"),
    "deferred by token": ("bounce Transient", "bounce DnsError", "bounce OpenRelayTest"),
    "rejected by token": ("bounce Unconfirmed",),
    "failed by token": ("bounce SMTPApiError", "bounce TemplateRenderingFailed"),
    "complained by token": (
        *("bounce SpamNotification", "bounce SpamComplaint", "complaint", "suppressed after a complaint"),
    ),
    "unsubscribed by token": ("bounce Unsubscribe", "bounce without an address", "unsubscribed"),
    "subscribed by token": ("bounce Subscribe", "subscribed again"),
    "unknown by token": (
        *("bounce AutoResponder", "bounce AddressChange", "bounce ChallengeVerification", "bounce InboundError"),
        "suppressed for a new reason",
    ),
    NO_ID: ("suppressed by hand, no message",),
    UNKNOWN_ID: ("another record",),
}
_BREVO = {
    "accepted by token": ("request",),
    "sent by token": ("sent",),
    "delivered by token": ("delivered",),
    "deferred by token": ("deferred", "deferred without a reason"),
    "bounced hard by token": (
        *("deferred, but refused: address", "deferred, but refused: mailbox", "hard_bounce", "invalid_email"),
    ),
    "bounced soft by token": ("deferred, but refused: full", "soft_bounce"),
    "bounced block by token": ("deferred, but refused: policy", "blocked by the receiver"),
    "bounced unknown by token": ("deferred, but refused",),
    "bounced suppressed by token": ("blocked",),
    "failed by token": ("error",),
    "complained by token": ("spam", "complaint"),
    "unsubscribed by token": ("unsubscribe", "unsubscribed"),
    "subscribed by token": ("list_addition",),
    "clicked by token": ("click",),
    "opened by token": (
        *("opened", "unique_opened", "the older form of the header", "an object for the header", "one tag"),
        "tags in JSON",
    ),
    "opened machine by token": ("proxy_open", "unique_proxy_open"),
    "unknown by token": ("another event",),
    f"opened by token; delivered by token; {NO_ID}": ("a batch",),
    UNKNOWN_ID: ("a text for the header",),
}
_MAILJET = {
    "delivered by token": ("sent", "a number that lost its end"),
    "opened by token": ("open", "key in the payload"),
    "clicked by token": ("click",),
    "complained by token": ("spam",),
    "unsubscribed by token": ("unsub",),
    "bounced hard by token": ("bounce: user unknown", "bounce: no flag", "bounce: greylisted for good"),
    "bounced soft by token": ("bounce: not hard", "bounce: quota exceeded"),
    "bounced block by token": ("bounce: content blocked",),
    "bounced unknown by token": ("bounce: no reason",),
    "bounced suppressed by token": ("bounce: blacklisted", "blocked: user unknown", "blocked: preblocked"),
    "deferred by token": ("bounce: greylisted",),
    "rejected block by token": ("blocked: sender blocked",),
    "rejected hard by token": ("blocked: typofix",),
    "rejected by token": ("blocked: duplicate", "blocked: no reason"),
    "failed by token": ("blocked: template",),
    "unknown by token": ("another event",),
    f"opened by token; clicked by token; opened by token; {NO_ID}": ("grouped",),
    UNKNOWN_ID: ("a text for a payload",),
    NO_ID: ("a trial",),
}
_SPARKPOST = {
    "accepted by token": ("injection",),
    "delivered by token": ("delivery", "no event_id"),
    "deferred by token": ("delay",),
    "bounced hard by token": ("bounce 10", "bounce 30", "out_of_band"),
    "bounced soft by token": (
        *("bounce 20", "bounce 21", "bounce 22", "bounce 23", "bounce 24", "bounce 40", "bounce 70"),
    ),
    "bounced block by token": ("bounce 25", "bounce 50", "bounce 51", "bounce 52", "bounce 53", "bounce 54"),
    "bounced unknown by token": ("bounce 1", "bounce of a new class", "bounce without a class"),
    "bounced suppressed by token": (*("bounce of a suppressed address", "policy_rejection of a suppressed address"),),
    "rejected block by token": ("policy_rejection",),
    "rejected by token": ("policy_rejection without a class", "generation_rejection"),
    "failed by token": ("generation_failure",),
    "complained by token": ("spam_complaint",),
    "subscribed by token": ("bounce 80",),
    "unsubscribed by token": ("bounce 90", "list_unsubscribe", "link_unsubscribe"),
    "opened by token": ("open", "initial_open", "amp_open", "amp_initial_open"),
    "opened machine by token": ("open, prefetched",),
    "clicked by token": ("click", "amp_click"),
    "unknown by token": ("bounce 60", "bounce 100", "another event"),
    f"delivered by token; opened by token; {NO_ID}; {NO_ID}": ("a batch",),
    NO_ID: ("a class that is no event",),
    UNKNOWN_ID: ("the metadata cut off",),
    NOTHING: ("a trial", "a trial, alone", "mail to us"),
}
#: The original headers come first; where they are missing our tag.
_RESEND = {
    "sent by message_id": ("sent",),
    "accepted by message_id": ("scheduled",),
    "delivered by message_id": ("delivered",),
    "deferred by message_id": ("delayed",),
    "bounced hard by message_id": ("bounced: permanent",),
    "bounced soft by message_id": ("bounced: transient",),
    "bounced block by message_id": ("bounced: content", "bounced: attachment"),
    "bounced unknown by message_id": ("bounced: undetermined", "bounced: no reason"),
    "bounced suppressed by message_id": (
        *("bounced: suppressed", "bounced: on the account's list", "bounced: older, suppressed", "suppressed"),
    ),
    "complained by message_id": ("complained",),
    "opened by message_id": ("opened", "opened, told more", "several recipients", "copies", "a name"),
    "opened by token": ("tags in a list",),
    "clicked by message_id": ("clicked",),
    "failed by message_id": ("failed",),
    "unknown by message_id": ("another event",),
    UNKNOWN_ID: ("nothing of ours",),
    NOTHING: ("mail to us", "a contact", "a domain"),
}

#: By provider, the names of the samples by their outcome.
OUTCOMES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "azure": _AZURE,
        "ses": _SES,
        "mailgun": _MAILGUN,
        "postal": _POSTAL,
        "sendgrid": _SENDGRID,
        "postmark": _POSTMARK,
        "brevo": _BREVO,
        "mailjet": _MAILJET,
        "sparkpost": _SPARKPOST,
        "resend": _RESEND,
    }
)
