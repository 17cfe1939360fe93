-- How LiRA is built up step by step: the ablation of the talk of Carlini et al. 2022, this store's numbers beside it.
--
-- Three chains that start from the same attack, all with the preset `paper`: no other has these steps. What is measured
-- is NULL where the attack has not run; what is published is of CIFAR-10 (256 models) and NULL for a store of anything
-- else. All rates are fractions: 8.4% is 0.084.
--
--   chain                    whose models set the threshold: nobody's, OUT only, IN and OUT
--   step                     from 1
--   adds                     what this step adds to the one before
--   attack                   the step's attack; the named attack that is the same computation, if only that has run
--   preset                   whose numerics: paper
--   tpr_at_0_1pct            TPR at 0.1% FPR, over all targets together, as in view metrics
--   tpr_at_0_1pct_boot_lo    lower end of its 95% interval by bootstrap over examples
--   tpr_at_0_1pct_boot_hi    upper end
--   published_tpr_at_0_1pct  the talk's
--   data_set                 the data set that the published value is of
create view ablation_table as
select
    s.chain,
    s.step,
    s.adds,
    s.attack,
    m.preset,
    m.tpr_at_0_1pct,
    m.tpr_at_0_1pct_boot_lo,
    m.tpr_at_0_1pct_boot_hi,
    if(i.dataset = 'cifar10', s.tpr, null) as published_tpr_at_0_1pct,
    if(i.dataset = 'cifar10', i.dataset, null) as data_set
from _ablation_rows as s
cross join stored.info as i
left join metrics as m on m.attack = s.attack and m.preset = s.preset
order by s.place, s.step;
