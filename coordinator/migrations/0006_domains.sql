-- The failure domain that a host belonged to when its rollout began: the value of the label that the spec names. NULL where
-- it names none, or the host has no such label.
ALTER TABLE rollout_hosts ADD COLUMN domain TEXT;
