-- How well each attack does, over all of its targets together.
--
-- TPR at an FPR is the largest over the thresholds whose empirical FPR is at most that. There are two kinds of 95%
-- interval. _boot_lo and _boot_hi, the ones to quote: percentile bootstrap, 1,000 times other examples of the same kind
-- with all of their models' scores, the threshold chosen anew each time. _lo and _hi: Clopper–Pearson, for these
-- examples and this threshold only, which is narrower than the leak is known. Neither is for other models. All are NULL
-- where the FPR is finer than the data resolves (non-members × FPR < 1), and _boot_ until `lirastore attack` has
-- computed them. Without any false positive the bootstrap tells little: it hinges on the few highest non-members.
--
--   attack                                                   name of the attack
--   preset                                                   whose numerics: paper, or the code that is imitated
--   targets                                                  how many models were attacked
--   examples                                                 how many examples were scored
--   auc                                                      area under the ROC, by ranks: a tie counts half
--   auc_boot_lo, auc_boot_hi                                 its bootstrap interval
--   balanced_accuracy                                        the largest (TPR + 1 − FPR) / 2 over the thresholds
--   balanced_accuracy_boot_lo, balanced_accuracy_boot_hi     its bootstrap interval
--   tpr_at_10pct, tpr_at_10pct_lo, tpr_at_10pct_hi           TPR at 10% FPR, and its Clopper–Pearson interval
--   tpr_at_10pct_boot_lo, tpr_at_10pct_boot_hi               its bootstrap interval
--   tpr_at_1pct, tpr_at_1pct_lo, tpr_at_1pct_hi              at 1% FPR
--   tpr_at_1pct_boot_lo, tpr_at_1pct_boot_hi                 its bootstrap interval
--   tpr_at_0_1pct, tpr_at_0_1pct_lo, tpr_at_0_1pct_hi        at 0.1% FPR
--   tpr_at_0_1pct_boot_lo, tpr_at_0_1pct_boot_hi             its bootstrap interval
--   tpr_at_0_01pct, tpr_at_0_01pct_lo, tpr_at_0_01pct_hi     at 0.01% FPR
--   tpr_at_0_01pct_boot_lo, tpr_at_0_01pct_boot_hi           its bootstrap interval
--   tpr_at_0_001pct, tpr_at_0_001pct_lo, tpr_at_0_001pct_hi  at 0.001% FPR
--   tpr_at_0_001pct_boot_lo, tpr_at_0_001pct_boot_hi         its bootstrap interval
--   tpr_at_0fp, tpr_at_0fp_lo, tpr_at_0fp_hi                 without any false positive; always resolved
--   tpr_at_0fp_boot_lo, tpr_at_0fp_boot_hi                   its bootstrap interval
create view metrics as
with covered as (
    select s.attack, count(distinct s.model) as targets, count(distinct s.example) as examples
    from scores as s
    group by s.attack
)
select
    v.attack,
    a.preset,
    v.targets,
    v.examples,
    m.auc,
    b.auc_boot_lo,
    b.auc_boot_hi,
    m.balanced_accuracy,
    b.balanced_accuracy_boot_lo,
    b.balanced_accuracy_boot_hi,
    m.tpr_at_10pct,
    m.tpr_at_10pct_lo,
    m.tpr_at_10pct_hi,
    b.tpr_at_10pct_boot_lo,
    b.tpr_at_10pct_boot_hi,
    m.tpr_at_1pct,
    m.tpr_at_1pct_lo,
    m.tpr_at_1pct_hi,
    b.tpr_at_1pct_boot_lo,
    b.tpr_at_1pct_boot_hi,
    m.tpr_at_0_1pct,
    m.tpr_at_0_1pct_lo,
    m.tpr_at_0_1pct_hi,
    b.tpr_at_0_1pct_boot_lo,
    b.tpr_at_0_1pct_boot_hi,
    m.tpr_at_0_01pct,
    m.tpr_at_0_01pct_lo,
    m.tpr_at_0_01pct_hi,
    b.tpr_at_0_01pct_boot_lo,
    b.tpr_at_0_01pct_boot_hi,
    m.tpr_at_0_001pct,
    m.tpr_at_0_001pct_lo,
    m.tpr_at_0_001pct_hi,
    b.tpr_at_0_001pct_boot_lo,
    b.tpr_at_0_001pct_boot_hi,
    m.tpr_at_0fp,
    m.tpr_at_0fp_lo,
    m.tpr_at_0fp_hi,
    b.tpr_at_0fp_boot_lo,
    b.tpr_at_0fp_boot_hi
from covered as v
join _metrics('_pooled') as m on m.attack = v.attack
left join attacks as a on a.attack = v.attack
left join _boot as b on b.attack = v.attack
order by v.attack;
