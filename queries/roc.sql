-- The ROC of each attack, thinned for plotting: hundreds of points, each of them a point of the exact curve.
--
-- Those at the FPRs of view metrics, and at no false positive at all, are among them.
--
--   attack     name of the attack
--   fpr        false positive rate
--   tpr        true positive rate
--   threshold  who scores at least this is called a member; infinity at the origin, where nobody is
--   preset     whose numerics: paper, or the code that is imitated
create view roc as
select r.attack, r.fpr, r.tpr, r.threshold, a.preset
from (
    select p.attack, p.fpr, p.tpr, p.threshold
    from _pooled as p
    where p.members > 0 and p.nonmembers > 0
    union all
    select p.attack, 0, 0, 'infinity'::double
    from _pooled as p
    where p.members > 0 and p.nonmembers > 0
    group by p.attack
) as r
left join attacks as a on a.attack = r.attack
order by r.attack, r.threshold desc;
