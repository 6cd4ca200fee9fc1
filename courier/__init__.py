"""Events out: hits go from the stream into the ledger, and from the ledger to AMS.

`consume` reads the stream and acknowledges what is committed; `record` writes a batch in one transaction, judged by
`classify`, summed up by `engagement`, queued by the rules of `outbox`. `deliver` then runs the plans of `outbox`:
each call is made by `ams`, its answer read by `answer`, and a row leaves only on a valid result. `replay` queues again.
"""
