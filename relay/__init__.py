"""Mail in: speak SMTP to a mailer, decide and record each recipient, and hand the message to the real upstream.

The flow, in the order in which to read it:

server       listeners, limits and drain; reception, channel, conversation and auth are the pieces of a session
intake       one session and one envelope become a `Submission`; every exception becomes a reply
pipeline     the one place that knows the order: stamp, inject, correlate, forward
stamp        the deterministic Message-ID, the campaign, the Received line
inject       the tracked rendering of one recipient's message
correlate    the committed row without which no byte leaves
forward      the upstream's verdict, waited for while the mailer waits
queue        trouble: stored durably, tried again
replies      every SMTP reply we can give; address, commands and reader are the grammar of what we are told

Nothing answers 250 before every recipient is decided and recorded, and no error inside is ever a 5xx.
"""
