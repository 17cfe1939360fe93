-- How far each attack can be trusted where it says member, if the share `prior` of those asked about are.
--
-- Precision is π·TPR / (π·TPR + (1 − π)·FPR), π being the prior, TPR and FPR those of calibrated(fpr).
--
--   attack        name of the attack
--   fpr           the false positive rate that was asked for
--   prior         the share of members, π
--   tpr           the share of the members called members, with thresholds from the other models only
--   fpr_realised  the share of the non-members called members with them
--   precision     the share of members among those who are called members; NULL if nobody is
--   preset        whose numerics: paper, or the code that is imitated
create macro precision_at(fpr, prior) as table
select
    c.attack,
    c.fpr,
    _prior(prior) as prior,
    c.tpr_realised as tpr,
    c.fpr_realised,
    _prior(prior) * c.tpr_realised
    / nullif(_prior(prior) * c.tpr_realised + (1 - _prior(prior)) * c.fpr_realised, 0) as precision,
    c.preset
from calibrated(fpr) as c
order by c.attack;
