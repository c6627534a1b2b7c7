-- Forgetting a package looks for the plans from it as well as for those to it: without these it reads every plan there is.
CREATE INDEX depot_plans_by_base ON depot_plans (base);
CREATE INDEX depot_plan_frames_by_base ON depot_plan_frames (base);
