-- How well each attack does, over all of its targets together.
--
-- TPR at an FPR is the largest over the thresholds whose empirical FPR is at most that. _lo and _hi are the
-- Clopper–Pearson 95% interval, for these examples, these models and this threshold: not for the leak in general.
-- Both are NULL where the FPR is finer than the data resolves (non-members × FPR < 1).
--
--   attack             name of the attack
--   targets            how many models were attacked
--   examples           how many examples were scored
--   auc                area under the ROC, by ranks: a tie counts half
--   balanced_accuracy  the largest (TPR + 1 − FPR) / 2 over the thresholds
--   tpr_at_10pct, tpr_at_10pct_lo, tpr_at_10pct_hi           TPR at 10% FPR, and the ends of its interval
--   tpr_at_1pct, tpr_at_1pct_lo, tpr_at_1pct_hi              at 1% FPR
--   tpr_at_0_1pct, tpr_at_0_1pct_lo, tpr_at_0_1pct_hi        at 0.1% FPR
--   tpr_at_0_01pct, tpr_at_0_01pct_lo, tpr_at_0_01pct_hi     at 0.01% FPR
--   tpr_at_0_001pct, tpr_at_0_001pct_lo, tpr_at_0_001pct_hi  at 0.001% FPR
--   tpr_at_0fp, tpr_at_0fp_lo, tpr_at_0fp_hi                 without any false positive; always resolved
create view metrics as
with covered as (
    select s.attack, count(distinct s.model) as targets, count(distinct s.example) as examples
    from scores as s
    group by s.attack
)
select v.attack, v.targets, v.examples, m.* exclude (attack, model, members, nonmembers)
from covered as v
join _metrics('_pooled') as m on m.attack = v.attack
order by v.attack;
