-- The host of a rollout that migrates what all of them share: the first that is ordered to switch. NULL: another one does. Until now
-- it was the first of the list, but for hosts that came later.
ALTER TABLE rollout_hosts ADD COLUMN migrates BIGINT;
UPDATE rollout_hosts SET migrates = 1 WHERE position = 0 AND rollout IN (SELECT id FROM rollouts WHERE addition IS NULL);
