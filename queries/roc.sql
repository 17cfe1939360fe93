-- The ROC of each attack, thinned for plotting: hundreds of points, each of them a point of the exact curve.
--
-- The last point of each of many small intervals of FPR is kept: 40 per decade for logarithmic axes, 100 in all for
-- linear ones. Intervals also end at the FPRs of view metrics and at 0, so those points are among them.
--
--   attack     name of the attack
--   fpr        false positive rate
--   tpr        true positive rate
--   threshold  who scores at least this is called a member; infinity at the origin, where nobody is
create view roc as
select p.attack, p.fpr, p.tpr, p.threshold
from (
    select c.attack, max(c.fpr) as fpr, max(c.tpr) as tpr, min(c.score) as threshold
    from _curve as c
    where c.members > 0 and c.nonmembers > 0
    group by
        c.attack,
        case when c.fp > 0 then ceil(40 * log10(c.fpr)) end,
        ceil(100 * c.fpr),
        c.fpr <= 0.1,
        c.fpr <= 0.01,
        c.fpr <= 0.001,
        c.fpr <= 0.0001,
        c.fpr <= 0.00001
    union all
    select s.attack, 0, 0, 'infinity'::double
    from scores as s
    group by s.attack
    having bool_or(s.member) and not bool_and(s.member)
) as p
order by p.attack, p.threshold desc;
