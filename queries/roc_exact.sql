-- The whole ROC of one attack: every threshold that there is, ties as one step.
--
--   fpr        false positive rate
--   tpr        true positive rate
--   threshold  who scores at least this is called a member; infinity at the origin, where nobody is
create macro roc_exact(attack) as table
select p.fpr, p.tpr, p.threshold
from (
    select max(c.fpr) as fpr, max(c.tpr) as tpr, c.score as threshold
    from _curve('_pooled_scores') as c
    where c.attack = attack and c.members > 0 and c.nonmembers > 0
    group by c.score
    union all
    select 0, 0, 'infinity'::double
    from scores as s
    where s.attack = attack
    having bool_or(s.member) and not bool_and(s.member)
) as p
order by p.threshold desc;
