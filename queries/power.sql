-- How well an attack does with fewer shadow models and fewer queries, over all of its targets together.
--
-- From `lirastore attack STORE NAME --models 4,8,16 --queries 1,2,all`: beside the target, each example has that many
-- shadow models, half of them trained on it. The metrics, and the bootstrap interval, are those of view metrics.
--
--   attack                  name of the attack
--   preset                  whose numerics: paper, or the code that is imitated
--   models                  how many shadow models, half of them IN
--   queries                 how many augmentations, the first ones
--   auc                     area under the ROC, by ranks: a tie counts half
--   balanced_accuracy       the largest (TPR + 1 − FPR) / 2 over the thresholds
--   tpr_at_1pct             TPR at 1% FPR
--   tpr_at_0_1pct           at 0.1% FPR
--   tpr_at_0_1pct_boot_lo, tpr_at_0_1pct_boot_hi  its bootstrap interval; NULL where non-members × FPR < 1, or until it
--                           has been computed
create view power as
select
    p.attack,
    p.preset,
    p.models,
    p.queries,
    m.auc,
    m.balanced_accuracy,
    m.tpr_at_1pct,
    m.tpr_at_0_1pct,
    b.tpr_at_0_1pct_boot_lo,
    b.tpr_at_0_1pct_boot_hi
from stored.power as p
join _metrics('_power') as m on m.attack = p.name
left join _boot as b on b.attack = p.name
order by p.attack, p.preset, p.models, p.queries;
