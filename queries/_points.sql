-- The curve thinned to hundreds of points: of each of many small intervals of FPR the last point, exactly.
--
-- There are 40 intervals per decade for logarithmic axes and 100 in all for linear ones; they also end at the FPRs of
-- view metrics and at 0, so that the best point at most there is among those that are kept.
--
--   attack, model        as in _curve, like source
--   members, nonmembers  likewise
--   tp, fp, tpr, fpr     of the interval's last point
--   threshold            its score
--   pairs                the interval's share of the AUC: see _metrics
--   advantage            the largest TPR − FPR within the interval
create macro _points(source) as table
select
    c.attack,
    c.model,
    c.members,
    c.nonmembers,
    max(c.tp) as tp,
    max(c.fp) as fp,
    max(c.tpr) as tpr,
    max(c.fpr) as fpr,
    min(c.score) as threshold,
    sum(if(c.member, -c.fp, c.tp)) as pairs,
    max(c.tpr - c.fpr) as advantage
from _curve(source) as c
group by
    c.attack,
    c.model,
    c.members,
    c.nonmembers,
    case when c.fp > 0 then ceil(40 * log10(c.fpr)) end,
    ceil(100 * c.fpr),
    c.fpr <= 0.1,
    c.fpr <= 0.01,
    c.fpr <= 0.001,
    c.fpr <= 0.0001,
    c.fpr <= 0.00001;
