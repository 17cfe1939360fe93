-- The steps of the ablation, each with the attack that shows it: the one that is the same computation if only that ran.
--
--   preset  the result's; NULL if neither has run. Only results of the preset `paper` are steps
--   others  as in _published_ablation
create view _ablation_rows as
select
    p.* exclude (same_as)
    replace (if(own.attack is null and twin.attack is not null, p.same_as, p.attack) as attack),
    coalesce(own.preset, twin.preset) as preset
from _published_ablation as p
left join stored.attacks as own on own.attack = p.attack and own.named = p.attack and own.preset = 'paper'
left join stored.attacks as twin on twin.attack = p.same_as and twin.named = p.same_as and twin.preset = 'paper';
