-- How well each attack does on each target by itself. The metrics are those of view metrics.
--
--   attack             name of the attack
--   model              the target
--   examples           how many examples were scored
--   auc                area under the ROC, by ranks: a tie counts half
--   balanced_accuracy  the largest (TPR + 1 − FPR) / 2 over the thresholds
--   tpr_at_10pct       TPR at 10% FPR
--   tpr_at_10pct_lo    lower end of its Clopper–Pearson 95% interval; NULL where non-members × FPR < 1
--   tpr_at_10pct_hi    upper end
--   tpr_at_1pct        at 1% FPR
--   tpr_at_1pct_lo     lower end
--   tpr_at_1pct_hi     upper end
--   tpr_at_0_1pct      at 0.1% FPR
--   tpr_at_0_1pct_lo   lower end
--   tpr_at_0_1pct_hi   upper end
--   tpr_at_0_01pct     at 0.01% FPR
--   tpr_at_0_01pct_lo  lower end
--   tpr_at_0_01pct_hi  upper end
--   tpr_at_0_001pct    at 0.001% FPR
--   tpr_at_0_001pct_lo lower end
--   tpr_at_0_001pct_hi upper end
--   tpr_at_0fp         without any false positive: a count, which the data always resolves
--   tpr_at_0fp_lo      lower end
--   tpr_at_0fp_hi      upper end
create view metrics_by_model as
select m.attack, m.model, m.members + m.nonmembers as examples, m.* exclude (attack, model, members, nonmembers)
from _metrics('_curve_by_model') as m
order by m.attack, m.model;
