-- How well each attack does on each target by itself. The metrics are those of view metrics, the intervals Clopper–Pearson.
--
--   attack             name of the attack
--   preset             whose numerics: paper, or the code that is imitated
--   model              the target
--   examples           how many examples were scored
--   auc                area under the ROC, by ranks: a tie counts half
--   balanced_accuracy  the largest (TPR + 1 − FPR) / 2 over the thresholds
--   tpr_at_10pct, tpr_at_10pct_lo, tpr_at_10pct_hi           TPR at 10% FPR, and the ends of its interval
--   tpr_at_1pct, tpr_at_1pct_lo, tpr_at_1pct_hi              at 1% FPR
--   tpr_at_0_1pct, tpr_at_0_1pct_lo, tpr_at_0_1pct_hi        at 0.1% FPR
--   tpr_at_0_01pct, tpr_at_0_01pct_lo, tpr_at_0_01pct_hi     at 0.01% FPR
--   tpr_at_0_001pct, tpr_at_0_001pct_lo, tpr_at_0_001pct_hi  at 0.001% FPR
--   tpr_at_0fp, tpr_at_0fp_lo, tpr_at_0fp_hi                 without any false positive; always resolved
create view metrics_by_model as
select
    m.attack,
    a.preset,
    m.model,
    m.members + m.nonmembers as examples,
    m.* exclude (attack, model, members, nonmembers)
from _metrics('_by_target') as m
left join attacks as a on a.attack = m.attack
order by m.attack, m.model;
