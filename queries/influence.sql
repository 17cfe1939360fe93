-- Whose presence in the training set helps whom most (Feldman & Zhang 2020): last run of attack `influence`.
--
-- For each `other` the ten examples that help it most, fewer where fewer help. Store.influence gives any pairs.
--
--   example    the one that is trained on
--   other      the one whose correctness changes
--   influence  the share of the models trained on `example` that predict the label of `other`, minus that of the models
--              that were not trained on it: above 0, it helps
create view influence as
select r.example, r.other, r.influence
from stored.influence as r;
