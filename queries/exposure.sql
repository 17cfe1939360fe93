-- How exposed each example is to each attack.
--
--   example         the example
--   label           its class
--   attack          name of the attack
--   mean_score_in   mean score over the models that were trained on it
--   mean_score_out  mean score over the others
--   detected        share of the models trained on it in which the attack calls it a member, at 0.1% FPR over all targets
create view exposure as
select
    x.example,
    x.label,
    s.attack,
    avg(s.score) filter (s.member) as mean_score_in,
    avg(s.score) filter (not s.member) as mean_score_out,
    avg(coalesce(s.score >= t.threshold, false)::integer) filter (s.member) as detected
from scores as s
join (
    select p.attack, min(p.threshold) filter (p.fpr <= 0.001) as threshold
    from _pooled as p
    group by p.attack
) as t on t.attack = s.attack
join examples as x on x.example = s.example
group by x.example, x.label, s.attack;
