-- What one attack says of each target's examples at a false positive rate calibrated on the other models only.
--
-- A target's threshold is the one that tpr_at_fpr would choose from the scores of all the other models: the smallest
-- at which at most the share `fpr` of their non-members is called a member.
--
--   model      the target
--   example    the example
--   member     the truth
--   predicted  true if the score is at least the threshold
--   score      the attack's score
--   threshold  the target's threshold; NULL if none qualifies, and then nobody is called a member
create macro verdict(attack, fpr) as table
select
    s.model,
    s.example,
    s.member,
    coalesce(s.score >= t.threshold, false) as predicted,
    s.score,
    t.threshold
from scores as s
join _thresholds(attack, fpr) as t on t.attack = s.attack and t.model = s.model
where s.attack = attack;
