-- Whether a rollout that comes together with others of its environment waits for nothing but them. NULL: not yet, or it comes alone.
ALTER TABLE rollouts ADD COLUMN ready BIGINT;
