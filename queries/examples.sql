-- The examples: every one of them has a row in each model's outputs.
--
--   example     row of the store's arrays
--   label       its class; -1 where there is none
--   attackable  false where the store says that no attack should score it
create view examples as
select e.example, e.label, e.attackable
from stored.examples as e;
