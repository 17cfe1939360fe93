-- The results table of Carlini et al. 2022 with this store's numbers beside the published ones.
--
-- First the table's rows in its order, then newer attacks and other forms of LiRA, which it does not have: all with the
-- preset `paper`. Results of the same attacks in another code's numerics come last, in rows of their own. What is
-- measured is NULL where the attack has not run; what is published is NULL where the store's data set is none of the
-- paper's (256 models each), or the paper has no value. All are fractions: 8.4% is 0.084.
--
--   row                                                   as in the paper's talk; with another preset that in brackets
--   attack                                                the named attack that stands for it, or its result's name
--   preset                                                whose numerics: paper, or the code that is imitated
--   balanced_accuracy                                     as in view metrics, and so the rates and the intervals
--   balanced_accuracy_boot_lo, balanced_accuracy_boot_hi  its 95% interval by bootstrap over examples
--   tpr_at_0_1pct                                         TPR at 0.1% FPR, over all targets together
--   tpr_at_0_1pct_boot_lo, tpr_at_0_1pct_boot_hi          its 95% interval by bootstrap over examples
--   tpr_at_0_001pct                                       TPR at 0.001% FPR
--   tpr_at_0_001pct_boot_lo, tpr_at_0_001pct_boot_hi      its 95% interval by bootstrap over examples
--   published_balanced_accuracy                           the paper's
--   published_tpr_at_0_1pct                               likewise
--   published_tpr_at_0_001pct                             likewise
--   data_set                                              the data set that the published values are of
create view paper_table as
select
    r.row,
    r.attack,
    m.preset,
    m.balanced_accuracy,
    m.balanced_accuracy_boot_lo,
    m.balanced_accuracy_boot_hi,
    m.tpr_at_0_1pct,
    m.tpr_at_0_1pct_boot_lo,
    m.tpr_at_0_1pct_boot_hi,
    m.tpr_at_0_001pct,
    m.tpr_at_0_001pct_boot_lo,
    m.tpr_at_0_001pct_boot_hi,
    p.balanced_accuracy as published_balanced_accuracy,
    p.tpr_at_0_1pct as published_tpr_at_0_1pct,
    p.tpr_at_0_001pct as published_tpr_at_0_001pct,
    p.data_set
from _paper_rows as r
cross join stored.info as i
left join _published as p on p.attack = r.named and p.data_set = i.dataset and not r.imitation
left join metrics as m on m.attack = r.attack and m.preset = r.preset
order by r.imitation, r.place, r.preset, r.attack;
