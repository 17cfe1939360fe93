-- The n examples that one attack exposes most: first by `detected`, then by how far their mean scores lie apart.
--
--   example         the example
--   label           its class
--   attack          name of the attack
--   mean_score_in   mean score over the models that were trained on it
--   mean_score_out  mean score over the others
--   detected        share of the models trained on it in which the attack calls it a member, at 0.1% FPR over all targets
--   preset          whose numerics: paper, or the code that is imitated
create macro most_exposed(attack, n) as table
select e.example, e.label, e.attack, e.mean_score_in, e.mean_score_out, e.detected, e.preset
from _ranked as e
where e.attack = attack
order by e.rank
limit n;
