-- How LiRA is built up step by step: the ablation of the talk of Carlini et al. 2022, this store's numbers beside it.
--
-- Three chains that start from the same attack. What is measured is NULL where the attack has not run; what is
-- published is of CIFAR-10 (256 models) and NULL for a store of anything else. All rates are fractions: 8.4% is 0.084.
--
--   chain                    whose models set the threshold: nobody's, OUT only, IN and OUT
--   step                     from 1
--   adds                     what this step adds to the one before
--   attack                   the step's attack; the named attack that is the same computation, if only that has run
--   preset                   whose numerics: paper, or the code that is imitated
--   tpr_at_0_1pct            TPR at 0.1% FPR, over all targets together, as in view metrics
--   tpr_at_0_1pct_boot_lo    lower end of its 95% interval by bootstrap over examples
--   tpr_at_0_1pct_boot_hi    upper end
--   published_tpr_at_0_1pct  the talk's
--   data_set                 the data set that the published value is of
create view ablation_table as
with steps as (
    select p.* replace (if(own.attack is null and named.attack is not null, p.same_as, p.attack) as attack)
    from _published_ablation as p
    left join attacks as own on own.attack = p.attack
    left join attacks as named on named.attack = p.same_as
)
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
from steps as s
cross join stored.info as i
left join metrics as m on m.attack = s.attack
order by s.place, s.step;
