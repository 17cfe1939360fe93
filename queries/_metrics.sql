-- The metrics of each (attack, model) of some points, which are given by name: '_pooled', '_by_target' or '_power'.
--
-- With tp and fp counted inclusive of ties, the non-members' tp sum to the pairs in which the member scores at least
-- as much as the non-member, and the members' fp to the pairs in which it scores at most as much: AUC with mid-ranks.
create macro _metrics(points) as table
with best as (
    select
        p.attack,
        p.model,
        p.members,
        p.nonmembers,
        0.5 + sum(p.pairs) / nullif(2.0 * p.members * p.nonmembers, 0) as auc,
        (1 + max(p.advantage)) / 2 as balanced_accuracy,
        _most(max(p.tp) filter (p.fpr <= 0.1), p.nonmembers) as tp_10pct,
        _most(max(p.tp) filter (p.fpr <= 0.01), p.nonmembers) as tp_1pct,
        _most(max(p.tp) filter (p.fpr <= 0.001), p.nonmembers) as tp_0_1pct,
        _most(max(p.tp) filter (p.fpr <= 0.0001), p.nonmembers) as tp_0_01pct,
        _most(max(p.tp) filter (p.fpr <= 0.00001), p.nonmembers) as tp_0_001pct,
        _most(max(p.tp) filter (p.fp = 0), p.nonmembers) as tp_0fp
    from query_table(points) as p
    group by p.attack, p.model, p.members, p.nonmembers
)
select
    b.attack,
    b.model,
    b.members,
    b.nonmembers,
    b.auc,
    b.balanced_accuracy,
    b.tp_10pct / nullif(b.members, 0) as tpr_at_10pct,
    clopper_pearson_lo(_resolved(b.tp_10pct, 0.1, b.nonmembers), b.members) as tpr_at_10pct_lo,
    clopper_pearson_hi(_resolved(b.tp_10pct, 0.1, b.nonmembers), b.members) as tpr_at_10pct_hi,
    b.tp_1pct / nullif(b.members, 0) as tpr_at_1pct,
    clopper_pearson_lo(_resolved(b.tp_1pct, 0.01, b.nonmembers), b.members) as tpr_at_1pct_lo,
    clopper_pearson_hi(_resolved(b.tp_1pct, 0.01, b.nonmembers), b.members) as tpr_at_1pct_hi,
    b.tp_0_1pct / nullif(b.members, 0) as tpr_at_0_1pct,
    clopper_pearson_lo(_resolved(b.tp_0_1pct, 0.001, b.nonmembers), b.members) as tpr_at_0_1pct_lo,
    clopper_pearson_hi(_resolved(b.tp_0_1pct, 0.001, b.nonmembers), b.members) as tpr_at_0_1pct_hi,
    b.tp_0_01pct / nullif(b.members, 0) as tpr_at_0_01pct,
    clopper_pearson_lo(_resolved(b.tp_0_01pct, 0.0001, b.nonmembers), b.members) as tpr_at_0_01pct_lo,
    clopper_pearson_hi(_resolved(b.tp_0_01pct, 0.0001, b.nonmembers), b.members) as tpr_at_0_01pct_hi,
    b.tp_0_001pct / nullif(b.members, 0) as tpr_at_0_001pct,
    clopper_pearson_lo(_resolved(b.tp_0_001pct, 0.00001, b.nonmembers), b.members) as tpr_at_0_001pct_lo,
    clopper_pearson_hi(_resolved(b.tp_0_001pct, 0.00001, b.nonmembers), b.members) as tpr_at_0_001pct_hi,
    b.tp_0fp / nullif(b.members, 0) as tpr_at_0fp,
    clopper_pearson_lo(b.tp_0fp, b.members) as tpr_at_0fp_lo,
    clopper_pearson_hi(b.tp_0fp, b.members) as tpr_at_0fp_hi
from best as b;
