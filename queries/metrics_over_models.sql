-- How much each attack's success varies from target to target.
--
-- Mean and standard deviation (n − 1 in the denominator) of what metrics_by_model says of each target by itself. The mean
-- of TPRs, each at a threshold of its target's own, is not the TPR of all targets together.
--
--   attack  name of the attack
--   preset  whose numerics: paper, or the code that is imitated
--   targets  how many models were attacked
--   auc_mean, auc_std                              area under the ROC
--   balanced_accuracy_mean, balanced_accuracy_std  the largest (TPR + 1 − FPR) / 2 over the thresholds
--   tpr_at_1pct_mean, tpr_at_1pct_std              TPR at 1% FPR
--   tpr_at_0_1pct_mean, tpr_at_0_1pct_std          TPR at 0.1% FPR; each _std is NULL for a single target
create view metrics_over_models as
select
    m.attack,
    a.preset,
    count(*) as targets,
    avg(m.auc) as auc_mean,
    stddev_samp(m.auc) as auc_std,
    avg(m.balanced_accuracy) as balanced_accuracy_mean,
    stddev_samp(m.balanced_accuracy) as balanced_accuracy_std,
    avg(m.tpr_at_1pct) as tpr_at_1pct_mean,
    stddev_samp(m.tpr_at_1pct) as tpr_at_1pct_std,
    avg(m.tpr_at_0_1pct) as tpr_at_0_1pct_mean,
    stddev_samp(m.tpr_at_0_1pct) as tpr_at_0_1pct_std
from metrics_by_model as m
left join attacks as a on a.attack = m.attack
group by m.attack, a.preset
order by m.attack;
