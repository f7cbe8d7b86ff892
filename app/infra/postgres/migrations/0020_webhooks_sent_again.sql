-- What an earlier release sends again has a schedule of its own: it began when that was asked for, not when the delivery
-- was created. When that was is not on record, so it begins now.
UPDATE webhook_deliveries SET failures = 0, since = now()
WHERE state = 'pending' AND round > 1 AND since IS NULL;
