-- What is asked of a listmonk's own database, as `ledger/queries.sql` is written. Columns that not every version has are
-- taken from the row as JSON. Nothing is believed of the campaign that stands on an event: an id has to lead to it.

-- name: columns
-- The columns of the tables $1.
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = ANY(current_schemas(false)) AND table_name = ANY($1::text[]);

-- name: campaign
-- The campaign with the number or the UUID $1.
SELECT id, uuid::text AS uuid FROM campaigns WHERE id::text = $1 OR uuid::text = lower($1);

-- name: tracking
-- Who was sent campaign $1, behind the row $2, and under which ids.
SELECT
    t.id, s.email, t.azure_message_id::text AS azure_id, to_jsonb(t) ->> 'internet_message_id' AS message_id,
    to_jsonb(t) ->> 'sent_at' AS at
FROM azure_message_tracking t JOIN subscribers s ON s.id = t.subscriber_id
WHERE t.campaign_id = $1 AND t.id > $2
ORDER BY t.id;

-- name: deliveries
-- Delivery reports of campaign $1, behind the row $2: those whose id is that of one recipient of one campaign.
WITH led AS (
    SELECT e.id AS event, min(t.campaign_id) AS campaign, min(t.subscriber_id) AS subscriber
    FROM azure_delivery_events e JOIN azure_message_tracking t ON t.azure_message_id::text = e.azure_message_id::text
    GROUP BY e.id HAVING count(DISTINCT (t.campaign_id, t.subscriber_id)) = 1
)
SELECT e.id, s.email, e.status, to_jsonb(e) ->> 'status_reason' AS reason, to_jsonb(e) ->> 'event_timestamp' AS at
FROM led JOIN azure_delivery_events e ON e.id = led.event JOIN subscribers s ON s.id = led.subscriber
WHERE led.campaign = $1 AND e.id > $2
ORDER BY e.id;

-- name: engagements
-- Opens and clicks of campaign $1, behind the row $2: those whose ids lead to one recipient of one campaign.
WITH known AS MATERIALIZED (
    SELECT
        campaign_id, subscriber_id, azure_message_id::text AS azure_id,
        nullif(to_jsonb(t) ->> 'internet_message_id', '') AS message_id
    FROM azure_message_tracking t
), told AS MATERIALIZED (
    SELECT id, azure_message_id::text AS azure_id, to_jsonb(e) ->> 'internet_message_id' AS message_id
    FROM azure_engagement_events e
), led AS (
    SELECT id, campaign_id, subscriber_id FROM told JOIN known USING (azure_id)
    UNION
    SELECT id, campaign_id, subscriber_id FROM told JOIN known USING (message_id)
), one AS (
    SELECT id, min(campaign_id) AS campaign, min(subscriber_id) AS subscriber FROM led GROUP BY id HAVING count(*) = 1
)
SELECT
    e.id, s.email, e.engagement_type AS kind, to_jsonb(e) ->> 'engagement_context' AS url,
    to_jsonb(e) ->> 'user_agent' AS user_agent, to_jsonb(e) ->> 'event_timestamp' AS at
FROM one JOIN azure_engagement_events e ON e.id = one.id JOIN subscribers s ON s.id = one.subscriber
WHERE one.campaign = $1 AND e.id > $2
ORDER BY e.id;

-- name: unled_deliveries
-- How many delivery reports stand under campaign $1 whose id leads nowhere.
SELECT count(*) AS events FROM azure_delivery_events e
WHERE e.campaign_id = $1 AND e.azure_message_id::text NOT IN (SELECT azure_message_id::text FROM azure_message_tracking);

-- name: unled_engagements
-- How many opens and clicks stand under campaign $1 whose ids lead nowhere.
SELECT count(*) AS events FROM azure_engagement_events e
WHERE e.campaign_id = $1
    AND e.azure_message_id::text NOT IN (SELECT azure_message_id::text FROM azure_message_tracking)
    AND coalesce(to_jsonb(e) ->> 'internet_message_id', '') NOT IN (
        SELECT coalesce(nullif(to_jsonb(t) ->> 'internet_message_id', ''), '-') FROM azure_message_tracking t
    );
