-- The true positive rate of every attack at one false positive rate, such as 0.001, over all targets together.
--
--   attack     name of the attack
--   fpr        the false positive rate that was asked for
--   tpr        the largest over the thresholds whose empirical FPR is at most that
--   tpr_lo     lower end of its Clopper–Pearson 95% interval; NULL where non-members × FPR < 1
--   tpr_hi     upper end
--   threshold  the smallest of those thresholds; NULL if none qualifies
--   preset     whose numerics: paper, or the code that is imitated
create macro tpr_at_fpr(fpr) as table
select
    b.attack,
    _rate(fpr) as fpr,
    b.tp / nullif(b.members, 0) as tpr,
    clopper_pearson_lo(_resolved(b.tp, _rate(fpr), b.nonmembers), b.members) as tpr_lo,
    clopper_pearson_hi(_resolved(b.tp, _rate(fpr), b.nonmembers), b.members) as tpr_hi,
    b.threshold,
    a.preset
from (
    select
        c.attack,
        c.members,
        c.nonmembers,
        _most(max(c.tp) filter (c.fpr <= _rate(fpr)), c.nonmembers) as tp,
        min(c.score) filter (c.fpr <= _rate(fpr)) as threshold
    from _curve('_pooled_scores') as c
    group by c.attack, c.members, c.nonmembers
) as b
left join attacks as a on a.attack = b.attack
order by b.attack;
