-- What each need of the application of a rollout is met by, as its hooks are told: an object of application and text. NULL: nothing
-- is said.
ALTER TABLE rollouts ADD COLUMN needs TEXT;
