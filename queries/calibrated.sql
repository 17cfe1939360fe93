-- What every attack achieves with thresholds that are calibrated at a false positive rate on the other models only.
--
-- A target's threshold is that of verdict. It knows nothing of the target, so the FPR that comes of it is not quite the
-- one that was asked for, and more so for single targets. All attacks are computed, also if the answer is filtered.
--
--   attack            name of the attack
--   fpr               the false positive rate that was asked for
--   fpr_realised      the share of the non-members called members, over all targets together
--   fpr_realised_min  the smallest such share of a single target
--   fpr_realised_max  the largest
--   tpr_realised      the share of the members called members, over all targets together
--   preset            whose numerics: paper, or the code that is imitated
create macro calibrated(fpr) as table
with called as (
    select
        s.attack,
        s.model,
        count(case when s.member then 1 end) as members,
        count(case when not s.member then 1 end) as nonmembers,
        count(case when s.member and s.score >= t.threshold then 1 end) as tp,
        count(case when not s.member and s.score >= t.threshold then 1 end) as fp
    from scores as s
    join _thresholds(null, fpr) as t on t.attack = s.attack and t.model = s.model
    group by s.attack, s.model
)
select
    r.attack,
    _rate(fpr) as fpr,
    r.fpr_realised,
    r.fpr_realised_min,
    r.fpr_realised_max,
    r.tpr_realised,
    a.preset
from (
    select
        c.attack,
        sum(c.fp) / nullif(sum(c.nonmembers), 0) as fpr_realised,
        min(c.fp / nullif(c.nonmembers, 0)) as fpr_realised_min,
        max(c.fp / nullif(c.nonmembers, 0)) as fpr_realised_max,
        sum(c.tp) / nullif(sum(c.members), 0) as tpr_realised
    from called as c
    group by c.attack
) as r
left join attacks as a on a.attack = r.attack
order by r.attack;
