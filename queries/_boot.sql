-- The bootstrap intervals of each run's metrics, in columns; `attack` as in stored.intervals.
create view _boot as
select
    i.attack,
    max(i.lo) filter (i.metric = 'auc') as auc_boot_lo,
    max(i.hi) filter (i.metric = 'auc') as auc_boot_hi,
    max(i.lo) filter (i.metric = 'balanced_accuracy') as balanced_accuracy_boot_lo,
    max(i.hi) filter (i.metric = 'balanced_accuracy') as balanced_accuracy_boot_hi,
    max(i.lo) filter (i.metric = 'tpr_at_10pct') as tpr_at_10pct_boot_lo,
    max(i.hi) filter (i.metric = 'tpr_at_10pct') as tpr_at_10pct_boot_hi,
    max(i.lo) filter (i.metric = 'tpr_at_1pct') as tpr_at_1pct_boot_lo,
    max(i.hi) filter (i.metric = 'tpr_at_1pct') as tpr_at_1pct_boot_hi,
    max(i.lo) filter (i.metric = 'tpr_at_0_1pct') as tpr_at_0_1pct_boot_lo,
    max(i.hi) filter (i.metric = 'tpr_at_0_1pct') as tpr_at_0_1pct_boot_hi,
    max(i.lo) filter (i.metric = 'tpr_at_0_01pct') as tpr_at_0_01pct_boot_lo,
    max(i.hi) filter (i.metric = 'tpr_at_0_01pct') as tpr_at_0_01pct_boot_hi,
    max(i.lo) filter (i.metric = 'tpr_at_0_001pct') as tpr_at_0_001pct_boot_lo,
    max(i.hi) filter (i.metric = 'tpr_at_0_001pct') as tpr_at_0_001pct_boot_hi,
    max(i.lo) filter (i.metric = 'tpr_at_0fp') as tpr_at_0fp_boot_lo,
    max(i.hi) filter (i.metric = 'tpr_at_0fp') as tpr_at_0fp_boot_hi
from stored.intervals as i
group by i.attack;
