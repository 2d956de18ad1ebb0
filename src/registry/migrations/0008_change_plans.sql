-- A proposed deployment may be a plan of several steps: the plan as it was proposed, what it comes to, and the shift it became.
ALTER TABLE change_deployments ADD COLUMN plan TEXT;
ALTER TABLE change_deployments ADD COLUMN steps TEXT;
ALTER TABLE change_deployments ADD COLUMN shift_id TEXT;
-- The change that a shift was approved with.
ALTER TABLE shifts ADD COLUMN change_id BIGINT;
