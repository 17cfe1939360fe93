-- How exposed each example is to each attack.
--
--   example         the example
--   label           its class
--   attack          name of the attack
--   mean_score_in   mean score over the models that were trained on it
--   mean_score_out  mean score over the others
--   detected        share of the models trained on it in which the attack calls it a member, at 0.1% FPR over all targets
--   preset          whose numerics: paper, or the code that is imitated
create view exposure as
select g.example, x.label, g.attack, g.mean_score_in, g.mean_score_out, g.detected, a.preset
from (
    select
        s.example,
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
    group by s.example, s.attack
) as g
join examples as x on x.example = g.example
left join attacks as a on a.attack = g.attack;
